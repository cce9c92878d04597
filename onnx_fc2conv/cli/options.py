"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onnx_fc2conv.errors import ArgumentError

__all__ = [
    "AllLinear",
    "Atol",
    "InputShapes",
    "MaxDepth",
    "MaxKernel",
    "ModelPath",
    "Pool",
    "PoolName",
    "ProviderName",
    "ProviderOption",
    "Quiet",
    "Reduce",
    "ReduceName",
    "Reports",
    "Rtol",
    "Seed",
    "Static",
    "parse_input_shapes",
]


class ProviderName(StrEnum):
    """Where the check runs."""

    CPU = "cpu"
    CUDA = "cuda"


class PoolName(StrEnum):
    """What a global pooling of the head becomes."""

    KEEP = "keep"
    WINDOW = "window"


class ReduceName(StrEnum):
    """What is taken over all positions of an output map."""

    NONE = "none"
    MEAN = "mean"
    MAX = "max"


ModelPath = Annotated[Path, typer.Argument(metavar="IN.onnx", help="The model to read.")]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME:1,3,224,224",
        help="Native shape of an input whose dims are symbolic in the model. Repeatable.",
    ),
]
Static = Annotated[
    bool,
    typer.Option(
        "--static", help="Keep sizes and interface; only the FC layers become convolutions."
    ),
]
Pool = Annotated[
    PoolName,
    typer.Option(
        "--pool",
        help="What a global pooling of the head becomes: keep sees the whole image (one cell at "
        "any size), window pools each window (a map).",
    ),
]
Reduce = Annotated[
    ReduceName,
    typer.Option(
        "--reduce",
        help="What to take over all cells of the output map, so that an image of any size gives "
        "one vector of scores.",
    ),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write a report; the ending chooses the format: .json or .md. Repeatable.",
    ),
]
ProviderOption = Annotated[
    ProviderName, typer.Option("--provider", help="onnxruntime provider that runs the check.")
]
Rtol = Annotated[
    float | None,
    typer.Option(
        "--rtol", min=0.0, help="Relative tolerance of the check. Default: 128 ulps, 1.5e-5."
    ),
]
Atol = Annotated[
    float | None,
    typer.Option(
        "--atol",
        min=0.0,
        help="Absolute tolerance of the check. Default: rtol × the output's largest magnitude.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the check's random inputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def parse_input_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """``["image:1,3,224,224"]`` as ``{"image": (1, 3, 224, 224)}``.

    Raises:
        ArgumentError: If one is not written like that.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, colon, dims = text.rpartition(":")
        try:
            shape = tuple(int(dim) for dim in dims.split(","))
        except ValueError:
            shape = ()
        if not colon or not name or not shape:
            raise ArgumentError(
                f"--input-shape {text!r} is not written like --input-shape image:1,3,224,224"
            )
        shapes[name] = shape
    return shapes


AllLinear = Annotated[
    bool,
    typer.Option(
        "--all-linear",
        help="With --static: convert every Gemm and MatMul by a constant matrix, in transformers "
        "and MLPs too, not only those that an image leads to.",
    ),
]
MaxKernel = Annotated[
    int | None,
    typer.Option(
        "--max-kernel",
        metavar="N",
        min=1,
        help="Largest extent of an emitted kernel along any axis; a larger one is split into a sum "
        "of Convs. TI TIDL: 7. AMD DPU: 16.",
    ),
]
MaxDepth = Annotated[
    int | None,
    typer.Option(
        "--max-depth",
        metavar="N",
        min=1,
        help="Most weights that one output channel of an emitted Conv may have (channels × kernel "
        "height × width); more are split into a sum of Convs. AMD DPU: channel_parallel × "
        "bank_depth, 32768 for DPUCZDX8G.",
    ),
]
