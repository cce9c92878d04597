"""The options of a conversion: each is declared here once, for Python and for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnx_fc2conv.errors import ArgumentError

__all__ = ["Options", "Pool", "Reduce", "parse_input_shapes", "parse_stride"]

Pool = Literal["keep", "window"]
"""Whether a global pooling of the head stays, or pools each window."""

Reduce = Literal["none", "mean", "max"]
"""The reduction over all positions of an output map."""


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


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `convert` and `inspect`: each field is a keyword of both.

    Attributes:
        input_shapes: Native shape by input name, such as ``{"image": (1, 3, 224, 224)}``, for
            inputs whose shape in the model is symbolic.
        static: Keep the model's sizes and interface; only its fully connected layers change, and
            one that cannot be converted is left alone.
        stride: Pixels between neighboring windows, one number or one an axis, which must divide
            what the model's layers make it (`RefineStride`); None leaves that as it is.
        pool: What a global pooling of the head becomes: with ``"keep"`` it sees the whole image,
            and the output is one cell at any size; with ``"window"`` it pools each window, and the
            output is a map. A gate (squeeze-and-excite) sees the whole image either way.
        reduce: What is taken over all cells of each output map, so that an image of any size gives
            [N, K] again: ``"mean"``, ``"max"``, or ``"none"``.
        all_linear: Convert every Gemm and MatMul by a constant matrix, in transformers and MLPs
            too, not only those that an image leads to; with ``static`` only.
        max_kernel: Largest extent of an emitted kernel along any spatial axis; a larger one is
            split into a sum of Convs (see `SplitKernels`).
        max_depth: Largest number of weights C·kh·kw that an output channel of one Conv may have.
    """

    # The metadata are the arguments of typer.Option. The flag is the field's name, unless "flag"
    # gives another. Where the command line is given something else than the field holds, "given"
    # is its type, and "read" makes the value of it.

    input_shapes: Mapping[str, tuple[int, ...]] | None = field(
        default=None,
        metadata={
            "flag": "--input-shape",
            "given": list[str] | None,
            "read": parse_input_shapes,
            "metavar": "NAME:1,3,224,224",
            "help": "Native shape of an input whose dims are symbolic in the model. Repeatable.",
        },
    )
    static: bool = field(
        default=False,
        metadata={"help": "Keep sizes and interface; only the FC layers become convolutions."},
    )
    stride: int | tuple[int, ...] | None = field(
        default=None,
        metadata={
            "given": str | None,
            "read": parse_stride,
            "metavar": "N|H,W",
            "help": "Pixels between neighboring windows, a divisor of the layers' own stride: a "
            "denser map, by dilating the layers after those that lose their stride (à trous).",
        },
    )
    pool: Pool = field(
        default="keep",
        metadata={
            "help": "Global pooling in the head: keep pools the whole image (one cell at any "
            "size), window pools each window (a map)."
        },
    )
    reduce: Reduce = field(
        default="none",
        metadata={
            "help": "Reduce all cells of the output map, so that an image of any size gives one "
            "vector of scores."
        },
    )
    all_linear: bool = field(
        default=False,
        metadata={
            "help": "With --static: convert every Gemm and MatMul by a constant matrix, in "
            "transformers and MLPs too, not only those that depend on an image."
        },
    )
    max_kernel: int | None = field(
        default=None,
        metadata={
            "metavar": "N",
            "min": 1,
            "help": "Largest extent of an emitted kernel along any axis; a larger one is split "
            "into a sum of Convs. TI TIDL: 7. AMD DPU: 16.",
        },
    )
    max_depth: int | None = field(
        default=None,
        metadata={
            "metavar": "N",
            "min": 1,
            "help": "Most weights that one output channel of an emitted Conv may have (channels × "
            "kernel height × width); more are split into a sum of Convs. AMD DPU: "
            "channel_parallel × bank_depth, 32768 for DPUCZDX8G.",
        },
    )
