"""Multiplications and additions of a model at one input size, counted from its graph."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from onnx_fc2conv.graphs.shapes import Shapes

__all__ = ["multiply_adds"]


def multiply_adds(model: ir.Model, shapes: Shapes) -> int | None:
    """Multiply-adds of all Conv, Gemm and MatMul nodes, where the tensors have these shapes.

    Each output element of a Conv takes C/group·kh·kw of them, one of a Gemm or MatMul the length of
    the contracted axis. Padding counts like pixels, as in the crops; operators that multiply no
    matrices are not counted.

    Returns:
        The number; None where the shapes of a layer are not known.
    """
    total = 0
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul") and not node.domain:
            count = _of_layer(node, shapes)
            if count is None:
                return None
            total += count
    return total


def _of_layer(node: ir.Node, shapes: Shapes) -> int | None:
    names = [value.name or "" if value else "" for value in (node.outputs[0], *node.inputs[:2])]
    made, operand, weight = (_lengths(shapes.get(name)) for name in names)
    if made is None or operand is None or weight is None:
        return None
    if node.op_type == "Conv":
        return prod(made) * prod(weight[1:])
    turned = node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1
    return prod(made) * operand[0 if turned else -1]


def _lengths(shape: tuple[int | None, ...] | None) -> list[int] | None:
    """The lengths of all axes, None if one is not known."""
    lengths = [length for length in shape or () if length is not None]
    return lengths if shape is not None and len(lengths) == len(shape) else None
