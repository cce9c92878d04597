"""What ONNX says of its operators, where more than one part of the package asks."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BROADCASTING",
    "CONVOLUTIONS",
    "FC_OPERATORS",
    "GLOBAL_POOLINGS",
    "MICROSOFT",
    "POOLINGS",
    "REARRANGING",
    "SIZES",
    "SLIDING",
    "UNARY",
]

MICROSOFT: Final = "com.microsoft"
"""The domain of onnxruntime's own operators."""

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

CONVOLUTIONS: Final = ("Conv", "ConvInteger", "QLinearConv")
"""A kernel slides over the positions of [N, C, *spatial] and sums over the channels."""

POOLINGS: Final = ("MaxPool", "AveragePool", "LpPool")
"""A window slides over the positions of each channel of [N, C, *spatial]."""

GLOBAL_POOLINGS: Final = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
"""All positions of each channel of [N, C, *spatial] become one."""

SLIDING: Final = (*CONVOLUTIONS, "ConvTranspose", *POOLINGS, *GLOBAL_POOLINGS)
"""Axis 1 of the first input holds the channels, the axes from 2 on are positions."""

REARRANGING: Final = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""The output has the elements of the first input, each once."""

SIZES: Final = ("Shape", "Size")
"""The output depends on the shape of the input only."""

FC_OPERATORS: Final = (
    *("Gemm", "MatMul", "Einsum", "QLinearMatMul", "MatMulInteger"),
    *("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
)
"""The operators that a fully connected layer is written with; the last three are onnxruntime's."""
