"""Positions of the operands of a layer's operator, and of the kernel of a Conv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.equivalence.tracing.structure import constants
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = [
    "KERNELS",
    "LAYERS",
    "Operands",
    "adds_up",
    "has_bias",
    "has_stack",
    "image_operand",
    "is_left",
    "layer_weight",
    "weight_zero",
]


@dataclass(frozen=True)
class Operands:
    """Positions of the operands of a layer.

    Attributes:
        both: Left and right operand.
        zeros: The zero point of either; None for operators of floats.
        bias: The bias that the node itself adds.
    """

    both: tuple[int, int]
    zeros: tuple[int, int] | None = None
    bias: int | None = None


LAYERS: Mapping[str, Operands] = {
    "Gemm": Operands((0, 1), bias=2),
    "MatMul": Operands((0, 1)),
    "QLinearMatMul": Operands((0, 3), (2, 5)),
    "QGemm": Operands((0, 3), (2, 5), bias=6),
    "MatMulInteger": Operands((0, 1), (2, 3)),
    "MatMulIntegerToFloat": Operands((0, 1), (4, 5)),
    "DynamicQuantizeMatMul": Operands((0, 1), (3, 3)),
}
KERNELS: Mapping[str, tuple[int, int | None]] = {
    "Conv": (1, 2),
    "QLinearConv": (3, 8),
    "ConvInteger": (1, None),
}
"""By operator, the positions of kernel and bias."""


def is_left(model: ir.Model, layer: ir.Node) -> bool:
    """Whether the weight is the left operand."""
    return layer.inputs[LAYERS[layer.op_type].both[0]] in constants(model.graph)


def image_operand(model: ir.Model, layer: ir.Node) -> ir.Value | None:
    """The operand of a layer that depends on the input."""
    fixed = constants(model.graph)
    both = (layer.inputs[position] for position in LAYERS[layer.op_type].both)
    return next((v for v in both if v is not None and v not in fixed), None)


def layer_weight(model: ir.Model, layer: ir.Node) -> AnyArray:
    """The layer's weight as [K, D], from the operator's definition."""
    left = is_left(model, layer)
    weight = constant_array(model, layer.inputs[LAYERS[layer.op_type].both[0 if left else 1]])
    if weight.ndim == 1:
        return weight[None, :]
    weight = weight.reshape(weight.shape[-2:])
    flag = layer.attributes.get_int("transA" if left else "transB", 0)
    return weight if bool(flag) != left else weight.T


def has_stack(model: ir.Model, layer: ir.Node) -> bool:
    """Whether the layer has several matrices, each for rows of its own."""
    position = LAYERS[layer.op_type].both[0 if is_left(model, layer) else 1]
    value = layer.inputs[position]
    shape = None if value is None else value.shape
    return shape is not None and any(dim != 1 for dim in list(shape)[:-2])


def weight_zero(model: ir.Model, layer: ir.Node) -> AnyArray | None:
    """The zero point of the weight, one number or [K]; None where there is none."""
    zeros = LAYERS[layer.op_type].zeros
    if zeros is None:
        return None
    position = zeros[0 if is_left(model, layer) else 1]
    value = layer.inputs[position] if position < len(layer.inputs) else None
    return None if value is None else constant_array(model, value).reshape(-1)


def has_bias(conv: ir.Node) -> bool:
    """Whether the Conv adds a bias itself."""
    position = KERNELS[conv.op_type][1]
    return position is not None and any(value is not None for value in conv.inputs[position:])


def adds_up(model: ir.Model, conv: ir.Node) -> bool:
    """Whether the Conv sums all integers of a window: its kernel holds nothing but ones.

    Such a sum subtracts zero points by channel, where a ConvInteger takes one for all.
    """
    if conv.op_type != "ConvInteger":
        return False
    kernel = constant_array(model, conv.inputs[KERNELS[conv.op_type][0]])
    return len(kernel) == 1 and bool((kernel == 1).all())
