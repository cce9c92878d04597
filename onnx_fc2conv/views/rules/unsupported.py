"""Operators that cannot slide: refused by name, with advice."""

from __future__ import annotations

from typing import NoReturn

from onnx_fc2conv.graphs.operators import MICROSOFT
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.registry import rule

__all__ = ["triangle", "unknown_operator"]

_ML = "ai.onnx.ml"
_STANDARD = ("", "ai.onnx")


def refuse(code: str, reason: str, *op_types: str, domain: str = "") -> None:
    """Register a rule that always refuses these operators."""

    def refused(ctx: Context) -> NoReturn:
        ctx.refuse(code, reason)

    rule(*op_types, domain=domain)(refused)


refuse(  # Attention-23
    "attention",
    "weights each position by all others: on a larger map these would be other positions",
    "Attention",
)
refuse(
    "attention",
    "weights each position by all others: on a larger map these would be other positions",
    *("Attention", "MultiHeadAttention", "GroupQueryAttention"),
    domain=MICROSOFT,
)
refuse(  # LSTM, GRU and RNN-1/7/14/22
    "recurrent",
    "reads the features one after the other, not as a window",
    *("LSTM", "GRU", "RNN"),
)
refuse(  # NonMaxSuppression-10/11, Unique-11, NonZero-9/13
    "post-processing",
    "makes a list whose length depends on the image; cut it off and apply it outside, to the map",
    *("NonMaxSuppression", "Unique", "NonZero"),
)
refuse(  # OneHot-9/11
    "post-processing",
    "makes a row of zeros and ones of each number, on an axis of its own; cut it off, let it "
    "output the numbers or the scores, and apply it outside, to the map",
    "OneHot",
)
refuse(  # NegativeLogLikelihoodLoss-12/13/22, SoftmaxCrossEntropyLoss-12/13
    "training-mode",
    "is a loss, which compares scores with given classes",
    *("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
)
refuse(  # CenterCropPad-18, Col2Im-18, AffineGrid-20: an input is the size of what they make
    "baked-size",
    "makes a map of a size that is written into the model",
    *("CenterCropPad", "Col2Im", "AffineGrid"),
)
refuse(  # DFT-17/20, STFT-17
    "flattened-features",
    "transforms all positions along an axis at once, which no cell of a larger map can hold; carry "
    "the transform out before the model",
    *("DFT", "STFT"),
)
refuse(  # GridSample-16/20/22, RoiAlign-10/16/22, MaxUnpool-9/11/22
    "data-dependent",
    "takes its positions in the map from another input",
    *("GridSample", "RoiAlign", "MaxUnpool"),
)
refuse(  # RotaryEmbedding-23
    "positional-constant",
    "turns the features of each position by an angle of its own",
    "RotaryEmbedding",
)


@rule("Trilu")
def triangle(ctx: Context) -> NoReturn:
    """Trilu-14: zeros above or below a diagonal of the last two axes."""
    view = ctx.view(0)
    shape = "" if view is None else f" of {list(view.shape)}"
    ctx.refuse(
        "positional-constant",
        f"keeps a triangle of the last two axes{shape}: a mask by row and column, which fits this "
        "size only",
    )


def unknown_operator(ctx: Context) -> NoReturn:
    """The refusal of an operator that has no rule."""
    domain = ctx.node.domain
    if domain == _ML:
        ctx.refuse(
            "post-processing",
            "is post-processing of scores (ai.onnx.ml); cut it off and apply it outside",
        )
    if domain not in _STANDARD:
        ctx.refuse(
            "other-domain",
            f"is an operator of the domain {domain}, of which nothing is known here; export with "
            "standard operators, or cut it off",
        )
    ctx.refuse("no-rule", "no rule says what this operator does on a larger feature map")
