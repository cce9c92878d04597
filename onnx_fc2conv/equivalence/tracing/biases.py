"""Comparing the bias of a layer with that of its Conv, byte for byte."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.equivalence.tracing.operands import KERNELS, LAYERS
from onnx_fc2conv.equivalence.tracing.structure import constants
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["bias_problem"]


def bias_problem(
    reference: ir.Model, layer: ir.Node, converted: ir.Model, conv: ir.Node, last: ir.Node
) -> str:
    """Return the fault of the Conv's bias; empty if there is none, or none can be found.

    ``last`` is the last of the nodes that replace the layer, the Conv itself if there is no
    other.
    """
    kernel_at, bias_at = KERNELS[conv.op_type]
    kernel = constant_array(converted, conv.inputs[kernel_at])
    expected = _layer_bias(reference, layer, len(kernel))
    if expected is None or not expected.any():
        return ""
    bias = _input(conv, bias_at)
    if bias is None:
        # A Conv of integers takes no bias: an Add follows before the sum becomes floats.
        adder = _following_add(conv if bias_at is None else last)
        return "" if adder is not None else "the Conv has no bias, the layer has one"
    found = constant_array(converted, bias)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"bias {found.dtype}{list(found.shape)}, not {expected.dtype}{list(expected.shape)}"
    different = int((found != expected).sum())
    return f"{different} of {found.size} biases are not the layer's" if different else ""


def _layer_bias(model: ir.Model, layer: ir.Node, outputs: int) -> AnyArray | None:
    """The constant of each output that the layer, or an Add right after it, adds: [K]."""
    fixed = constants(model.graph)
    position = LAYERS[layer.op_type].bias
    if position is not None:
        beta = layer.attributes.get_float("beta", 1.0)
        value = _input(layer, position)
    else:
        beta = 1.0
        add = _following_add(layer)
        others = [] if add is None else [v for v in add.inputs if v is not layer.outputs[0]]
        value = others[0] if others else None
    if value is None or value not in fixed or beta == 0.0:
        return None
    array = constant_array(model, value)
    if array.size not in (1, outputs):
        return None
    scaled = array.astype(np.float64) * beta if beta != 1.0 else array
    return np.broadcast_to(scaled.astype(array.dtype).reshape(-1), (outputs,))


def _input(node: ir.Node, position: int | None) -> ir.Value | None:
    return node.inputs[position] if position is not None and position < len(node.inputs) else None


def _following_add(node: ir.Node) -> ir.Node | None:
    consumers = node.outputs[0].consumers()
    return consumers[0] if len(consumers) == 1 and consumers[0].op_type == "Add" else None
