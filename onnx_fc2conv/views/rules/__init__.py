"""One rule per operator family; importing this package registers them all."""

from onnx_fc2conv.views.rules import (
    einsum,
    elementwise,
    feature_norms,
    foreign,
    image_norms,
    linear,
    movement,
    normalization,
    pooling,
    reduction,
    resize,
    selection,
    sliding,
)
from onnx_fc2conv.views.rules.registry import RULES, Application, Fact, NameScope, describe

__all__ = [
    "RULES",
    "Application",
    "Fact",
    "NameScope",
    "describe",
    "einsum",
    "elementwise",
    "feature_norms",
    "foreign",
    "image_norms",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "reduction",
    "resize",
    "selection",
    "sliding",
]
