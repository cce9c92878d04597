"""Operators that no map of windows can go through: refused by name, with what to do about it."""

from __future__ import annotations

from typing import NoReturn

from onnx_fc2conv.views.rules.registry import Application, rule

__all__ = [
    "attention",
    "fixed_size",
    "loss",
    "one_hot",
    "recurrent",
    "rotary",
    "sampling",
    "selection",
    "transform",
    "triangle",
    "unknown",
]

_ML = "ai.onnx.ml"
_STANDARD = ("", "ai.onnx")


@rule("Attention")
@rule("Attention", "MultiHeadAttention", "GroupQueryAttention", domain="com.microsoft")
def attention(app: Application) -> NoReturn:
    """Attention-23: every position is weighted by all others."""
    app.refuse(
        "attention",
        "weights each position by all others: on a larger map these would be other positions",
    )


@rule("LSTM", "GRU", "RNN")
def recurrent(app: Application) -> NoReturn:
    """LSTM, GRU and RNN-1/7/14/22."""
    app.refuse("recurrent", "reads the features one after the other, not as a window")


@rule("NonMaxSuppression", "Unique", "NonZero")
def selection(app: Application) -> NoReturn:
    """Operators whose output has as many elements as the image happens to give."""
    app.refuse(
        "post-processing",
        "makes a list whose length depends on the image; cut it off and apply it outside, to the "
        "map",
    )


@rule("OneHot")
def one_hot(app: Application) -> NoReturn:
    """OneHot-9/11: the numbers of classes as rows of zeros and a one."""
    app.refuse(
        "post-processing",
        "makes a row of zeros and ones of each number, on an axis of its own; cut it off, let it "
        "output the numbers or the scores, and apply it outside, to the map",
    )


@rule("Trilu")
def triangle(app: Application) -> NoReturn:
    """Trilu-14: zeros above or below a diagonal of the last two axes."""
    view = app.view(0)
    shape = "" if view is None else f" of {list(view.shape)}"
    app.refuse(
        "positional-constant",
        f"keeps a triangle of the last two axes{shape}: a mask by row and column, which fits this "
        "size only",
    )


@rule("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(app: Application) -> NoReturn:
    """NegativeLogLikelihoodLoss-12/13/22, SoftmaxCrossEntropyLoss-12/13."""
    app.refuse("training-mode", "is a loss, which compares scores with given classes")


@rule("CenterCropPad", "Col2Im", "AffineGrid")
def fixed_size(app: Application) -> NoReturn:
    """CenterCropPad-18, Col2Im-18, AffineGrid-20: an input is the size of what they make."""
    app.refuse("baked-size", "makes a map of a size that is written into the model")


@rule("DFT", "STFT")
def transform(app: Application) -> NoReturn:
    """DFT-17/20, STFT-17: each result depends on all positions along an axis."""
    app.refuse(
        "flattened-features",
        "transforms all positions along an axis at once, which no cell of a larger map can hold; "
        "carry the transform out before the model",
    )


@rule("GridSample", "RoiAlign", "MaxUnpool")
def sampling(app: Application) -> NoReturn:
    """GridSample-16/20/22, RoiAlign-10/16/22, MaxUnpool-9/11/22: an input says which positions."""
    app.refuse("data-dependent", "takes its positions in the map from another input")


@rule("RotaryEmbedding")
def rotary(app: Application) -> NoReturn:
    """RotaryEmbedding-23: another angle for each position."""
    app.refuse("positional-constant", "turns the features of each position by an angle of its own")


def unknown(app: Application) -> NoReturn:
    """The refusal of an operator that has no rule."""
    domain = app.node.domain
    if domain == _ML:
        app.refuse(
            "post-processing",
            "is post-processing of scores (ai.onnx.ml); cut it off and apply it outside",
        )
    if domain not in _STANDARD:
        app.refuse(
            "other-domain",
            f"is an operator of the domain {domain}, of which nothing is known here; export with "
            "standard operators, or cut it off",
        )
    app.refuse("no-rule", "no rule says what this operator does on a larger feature map")
