"""Outputs computed without pixels: constants, shapes, numbers that all samples share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.operators import SIZES
from onnx_fc2conv.views.growth import check_growth, repeated
from onnx_fc2conv.views.layers.dequantized import quantized_array, quantized_constant
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.labels import AnyArray, evaluate
from onnx_fc2conv.views.maps.view import Batches, FeatureView
from onnx_fc2conv.views.registry import Fact

__all__ = ["computed", "uniform_shape"]


def computed(
    node: ir.Node, operands: Sequence[Fact | None], opset: int, batches: Batches
) -> list[Constant]:
    """The outputs of the node, computed when they are first asked for."""
    sized = any(
        isinstance(fact, FeatureView) or (isinstance(fact, Constant) and fact.sized)
        for fact in operands
    ) and not _counts_axes(node)
    quantized = quantized_constant(node, operands, opset)
    cache: dict[int, list[AnyArray]] = {}

    def compute(batch: int) -> list[AnyArray]:
        if quantized is not None:
            return [quantized.values()]
        inputs = [_stand_in(fact, batch, batches) for fact in operands]
        check_growth(node, inputs)
        if node.op_type == "ConstantOfShape" and not node.domain and inputs[0] is not None:
            return [repeated(node, inputs[0])]
        if node.op_type == "QuantizeLinear":
            return [quantized_array(node, inputs)]
        return evaluate(node, inputs, opset)

    def outputs(batch: int) -> list[AnyArray]:
        if batch not in cache:
            cache[batch] = compute(batch)
        return cache[batch]

    def output(position: int) -> Constant:
        return Constant(
            lambda batch: outputs(batch)[position], batches, sized=sized, quantized=quantized
        )

    return [output(position) for position in range(len(node.outputs))]


def _counts_axes(node: ir.Node) -> bool:
    """Whether the node gives the rank of a tensor, which is the same at any size."""
    shape = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return node.op_type in SIZES and shape is not None and shape.op_type == "Shape"


def _stand_in(fact: Fact | None, batch: int, batches: Batches) -> AnyArray | None:
    """The value of an operand; for a view an array of its shape, since only that is asked for."""
    if isinstance(fact, Constant):
        return fact.at(batch)
    if isinstance(fact, FeatureView):
        if batch == batches.native:
            return np.broadcast_to(np.float32(0), fact.shape)
        if fact.layout is not None and fact.whole_map is not None:
            shape = (batch, *fact.whole_map.per_sample_shape)
            rank = range(len(shape))
            return np.broadcast_to(
                np.float32(0), tuple(shape[fact.layout.index(axis)] for axis in rank)
            )
        other = fact.labels.other
        if other is None:
            raise ValueError("the model works at its native batch size only")
        return np.broadcast_to(np.float32(0), other.shape)
    return None


def uniform_shape(node: ir.Node, operands: Sequence[Fact | None]) -> tuple[int, ...] | None:
    """Return the shape of an output that is the same for all samples; None if it may differ.

    An elementwise operator keeps this property of its operands.
    """
    if node.domain or node.op_type not in ("Mul", "Div", "Cast", "Identity"):
        return None
    shapes = [
        fact.uniform if isinstance(fact, Unknown) else fact.shape
        for fact in operands
        if isinstance(fact, Unknown) or (isinstance(fact, Constant) and not fact.sized)
    ]
    known = [shape for shape in shapes if shape is not None]
    return np.broadcast_shapes(*known) if len(known) == len(operands) else None
