"""Multiplications and additions of a model at one input size, counted from its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.passes.free_input_size import forget_shapes

__all__ = ["multiply_adds"]


def multiply_adds(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Multiply-adds of all Conv, Gemm and MatMul nodes for inputs of these shapes.

    Each output element of a Conv takes C/group·kh·kw of them, one of a Gemm or MatMul the length of
    the contracted axis. Padding counts like pixels, as in the crops; operators that multiply no
    matrices are not counted.

    Returns:
        The number; None where shape inference does not find the size of a layer.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if (shape := shapes.get(value.name or "")) is not None:
            value.shape = ir.Shape(list(shape))
    forget_shapes(copy)
    for value in copy.graph.outputs:
        value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy)
    total = 0
    for node in copy.graph:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain:
            continue
        count = _of_layer(node)
        if count is None:
            return None
        total += count
    return total


def _of_layer(node: ir.Node) -> int | None:
    made = _lengths(node.outputs[0])
    operand, weight = (_lengths(value) for value in node.inputs[:2])
    if made is None or operand is None or weight is None:
        return None
    if node.op_type == "Conv":
        return prod(made) * prod(weight[1:])
    turned = node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1
    axis = 0 if turned else -1
    return prod(made) * operand[axis]


def _lengths(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a tensor, if all of it is known."""
    if value is None or value.shape is None:
        return None
    lengths = tuple(dim for dim in value.shape if isinstance(dim, int))
    return lengths if len(lengths) == len(value.shape) else None
