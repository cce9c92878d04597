"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_fc2conv.errors import ArgumentError

if TYPE_CHECKING:
    from onnx_fc2conv.equivalence.running.start import Provider

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
    "Providers",
    "Quiet",
    "Reduce",
    "ReduceName",
    "Reports",
    "Rtol",
    "Seed",
    "Static",
    "Stride",
    "parse_bounds",
    "parse_input_shapes",
    "parse_providers",
    "parse_sizes",
    "parse_stride",
]


class ProviderName(StrEnum):
    """Where the check runs."""

    CPU = "cpu"
    CUDA = "cuda"


class PoolName(StrEnum):
    """The treatment of a global pooling in the head."""

    KEEP = "keep"
    WINDOW = "window"


class ReduceName(StrEnum):
    """The reduction over all positions of an output map."""

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
Stride = Annotated[
    str | None,
    typer.Option(
        "--stride",
        metavar="N|H,W",
        help="Pixels between neighboring windows, a divisor of the layers' own stride: a denser "
        "map, by dilating the layers after those that lose their stride (à trous).",
    ),
]
Pool = Annotated[
    PoolName,
    typer.Option(
        "--pool",
        help="Global pooling in the head: keep pools the whole image (one cell at "
        "any size), window pools each window (a map).",
    ),
]
Reduce = Annotated[
    ReduceName,
    typer.Option(
        "--reduce",
        help="Reduce all cells of the output map, so that an image of any size gives "
        "one vector of scores.",
    ),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write a report; the ending chooses the format: .json, .md or .xml (JUnit). "
        "Repeatable.",
    ),
]
Providers = Annotated[
    list[ProviderName] | None,
    typer.Option(
        "--provider",
        help="onnxruntime provider that runs the check: cpu by default. Repeatable: the same tiers "
        "on each.",
    ),
]
Rtol = Annotated[
    list[str] | None,
    typer.Option(
        "--rtol",
        metavar="[OUTPUT=]NUMBER",
        help="Relative tolerance of the check, of all outputs or of one (scores=1e-4). Default: "
        "128 ulps, 1.5e-5. Repeatable.",
    ),
]
Atol = Annotated[
    list[str] | None,
    typer.Option(
        "--atol",
        metavar="[OUTPUT=]NUMBER",
        help="Absolute tolerance of the check, likewise. Default: rtol × the output's largest "
        "magnitude.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the check's random inputs.")]
AllLinear = Annotated[
    bool,
    typer.Option(
        "--all-linear",
        help="With --static: convert every Gemm and MatMul by a constant matrix, in transformers "
        "and MLPs too, not only those that depend on an image.",
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


def parse_bounds(option: str, texts: Sequence[str] | None) -> dict[str, float] | None:
    """``["1e-3", "scores=1e-4"]`` as ``{"*": 1e-3, "scores": 1e-4}``.

    Raises:
        ArgumentError: If one is not written like that.
    """
    bounds: dict[str, float] = {}
    for text in texts or ():
        name, equals, number = text.rpartition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = -1.0
        if not 0 <= bound < float("inf") or (equals and not name):
            raise ArgumentError(
                f"{option} {text!r} is not written like {option} 1e-4 or {option} scores=1e-4"
            )
        bounds[name or "*"] = bound
    return bounds or None


def parse_providers(given: Sequence[ProviderName] | None) -> tuple[Provider, ...]:
    """The providers in the order given, each once; the CPU if there are none."""
    return tuple(dict.fromkeys(name.value for name in given or (ProviderName.CPU,)))


def parse_sizes(text: str | None) -> tuple[tuple[int, ...], ...]:
    """``"512x1024,300x200"`` as ``((512, 1024), (300, 200))``.

    Raises:
        ArgumentError: If it is not written like that.
    """
    if text is None:
        return ()
    try:
        sizes = [tuple(map(int, size.split("x"))) for size in text.split(",")]
    except ValueError:
        sizes = [()]
    if not all(sizes) or any(length < 1 for size in sizes for length in size):
        raise ArgumentError(f"--sizes {text!r} is not written like --sizes 512x1024,300x200")
    return tuple(sizes)


def parse_stride(text: str | None) -> int | tuple[int, ...] | None:
    """``"4"`` as ``4``, ``"4,8"`` as ``(4, 8)``.

    Raises:
        ArgumentError: If it is not written like that.
    """
    if text is None:
        return None
    try:
        strides = tuple(map(int, text.split(",")))
    except ValueError:
        raise ArgumentError(f"--stride {text!r} is not written like --stride 4 or 4,8") from None
    return strides[0] if len(strides) == 1 else strides
