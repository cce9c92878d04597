"""A pointwise layer's nodes: its operand brought to [N, D, H, W], the Conv, and the way back."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import ORIGIN, describe
from onnx_fc2conv.graphs.writer import GraphWriter, Place
from onnx_fc2conv.views.plan import ConstantTensor, PointwiseLayer

__all__ = ["write_pointwise"]

_CHANNELS = -1
"""Stands for the axis of the channels where axes are named by their place in the operand."""


def write_pointwise(writer: GraphWriter, layer: PointwiseLayer) -> tuple[ir.Value, str]:
    """Let every node that reads a layer's product read that of a Conv.

    Returns:
        The latter, and the name of the former.
    """
    product = layer.node.outputs[0]
    operand = layer.node.inputs[layer.position]
    assert operand is not None
    following = _added_bias(layer)
    at = writer.before(layer.node, {ORIGIN: describe(layer.node)})
    value = _product(at, layer, operand, _bias(writer, layer, following))
    if following is not None:
        product = following.outputs[0]
    value.type, value.shape = product.type, product.shape
    product.replace_all_uses_with(value, replace_graph_outputs=True)
    return value, product.name or ""


def _product(
    at: Place, layer: PointwiseLayer, operand: ir.Value, bias: ir.Value | None
) -> ir.Value:
    rest = [axis for axis in range(layer.rank) if axis != layer.axis]
    samples, positions = (rest[:1], rest[1:]) if layer.axis else ([], rest)
    value = at.transpose(operand, [*samples, layer.axis, *positions])
    # Axes of length 1 in the places of those that the operand lacks.
    lacking = [] if samples else [0]
    lacking += range(len(lacking) + layer.rank, 4)
    if layer.merged:
        value = at.node("Reshape", value, (0, 0, 0, -1))
    value = at.unsqueeze(value, lacking)
    value = _conv(at, layer, value, bias)
    if layer.merged:
        lengths = (-1 if length is None else length for length in layer.merged)
        value = at.node("Reshape", value, (0, 0, 0, *lengths))
    made = [*samples, _CHANNELS, *positions]
    if layer.out_axis is None:
        value = at.squeeze(value, sorted([*lacking, 1]))
        made.remove(_CHANNELS)
    else:
        value = at.squeeze(value, lacking)
        rest.insert(layer.out_axis, _CHANNELS)
    value = at.transpose(value, [made.index(axis) for axis in rest])
    value = at.unsqueeze(value, range(layer.leading))
    return _with_summand(at, layer, value)


def _conv(at: Place, layer: PointwiseLayer, value: ir.Value, bias: ir.Value | None) -> ir.Value:
    """The layer itself, under its name."""
    kernel = at.writer.stored(layer.kernel.name, layer.kernel.make)
    operands = [value, kernel, *(() if bias is None else (bias,))]
    return at.put(ir.node("Conv", operands, {"kernel_shape": (1, 1)}, name=layer.node.name))


def _with_summand(at: Place, layer: PointwiseLayer, value: ir.Value) -> ir.Value:
    """What a Gemm adds that is no bias: another value for each row, or one that changes."""
    if not layer.added:
        return value
    summand = layer.node.inputs[2]  # as it is now: a layer before may have been replaced
    assert summand is not None
    if layer.beta != 1.0:
        assert summand.dtype is not None
        beta = np.array(layer.beta, summand.dtype.numpy())
        stored = at.writer.constant(f"{layer.kernel.name}.beta", beta)
        summand = at.node("Mul", summand, stored)
    return at.node("Add", value, summand)


def _bias(writer: GraphWriter, layer: PointwiseLayer, following: ir.Node | None) -> ir.Value | None:
    if following is not None:
        (stored,) = (v for v in following.inputs if v is not layer.node.outputs[0])
        assert stored is not None
        assert stored.const_value is not None
        if len(stored.const_value.shape) == 1:
            return stored
        flat = stored.const_value.numpy().reshape(layer.kernel.shape[0])
        return writer.constant(f"{stored.name}.bias", flat)
    bias = layer.bias
    return writer.stored(bias.name, bias.make) if isinstance(bias, ConstantTensor) else bias


def _added_bias(layer: PointwiseLayer) -> ir.Node | None:
    """Return the Add of a stored bias right behind a MatMul, if there is one."""
    product, outputs = layer.node.outputs[0], layer.kernel.shape[0]
    uses = tuple(product.uses())
    if layer.out_axis is None or layer.bias or layer.added or product.is_graph_output():
        return None
    if len(uses) != 1 or uses[0].node.op_type != "Add" or uses[0].node.domain != "":
        return None
    add = uses[0].node
    other = add.inputs[1 - uses[0].idx]
    if other is None or other.const_value is None or not other.is_initializer():
        return None
    shape = tuple(other.const_value.shape.numpy())
    behind = layer.rank - layer.out_axis - 1
    wanted = (outputs, *[1] * behind)
    rank = layer.rank + layer.leading
    by_output = shape[len(shape) - len(wanted) :] == wanted and prod(shape) == outputs
    return add if by_output and len(shape) <= rank else None
