"""What ONNX says of its operators, where more than one part of the package asks."""

from __future__ import annotations

from typing import Final

__all__ = ["BROADCASTING", "UNARY"]

UNARY: Final = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos"),
    *("Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log"),
    *("Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin"),
    *("Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
    "BitwiseNot",
)
"""Each element of the output is computed from that of the first input, and has its type."""

BROADCASTING: Final = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Min", "Max", "Sum", "Mean"),
    *("BitwiseAnd", "BitwiseOr", "BitwiseXor"),
)
"""Each element of the output is computed from those of the inputs in its place, of their type."""
