"""One rule per operator family; importing this package registers them all."""

from onnx_fc2conv.views.rules import (
    elementwise,
    linear,
    movement,
    normalization,
    reduction,
    sliding,
)
from onnx_fc2conv.views.rules.registry import RULES, Application, Fact, NameScope, describe

__all__ = [
    "RULES",
    "Application",
    "Fact",
    "NameScope",
    "describe",
    "elementwise",
    "linear",
    "movement",
    "normalization",
    "reduction",
    "sliding",
]
