"""One rule per operator family; importing this package registers them all."""

from onnx_fc2conv.views.rules import (
    dynamic_quantization,
    elementwise,
    feature_norms,
    foreign,
    linear,
    movement,
    normalization,
    pooling,
    quantized,
    quantized_linear,
    quantized_maps,
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
    "dynamic_quantization",
    "elementwise",
    "feature_norms",
    "foreign",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "quantized",
    "quantized_linear",
    "quantized_maps",
    "reduction",
    "resize",
    "selection",
    "sliding",
]
