"""Tensor shapes and the number of products at the native size, without running the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["native_shapes_of", "products_of"]

Shapes = Mapping[str, tuple[int, ...]]


def native_shapes_of(model: ir.Model, inputs: Mapping[str, Sequence[int]]) -> Shapes:
    """The shapes that ONNX's own inference finds for inputs of these shapes, by tensor."""
    copy = model.clone()
    for value in copy.graph.inputs:
        if (shape := inputs.get(value.name or "")) is not None:
            value.shape = ir.Shape(list(shape))
    for value in (v for node in copy.graph.all_nodes() for v in node.outputs):
        value.shape = None  # it may be the shape at another size
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy)
    made = (value for node in copy.graph for value in node.outputs)
    return {
        value.name or "": tuple(dim for dim in value.shape if isinstance(dim, int))
        for value in (*copy.graph.inputs, *made)
        if value.shape is not None and all(isinstance(dim, int) for dim in value.shape)
    }


def products_of(model: ir.Model, shapes: Shapes) -> int:
    """About how many products the convolutions of a model compute, as far as shapes are known."""
    total = 0
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "Conv" and len(node.inputs) > 1 else None
        kernel = weight.shape if weight is not None else None
        if kernel is not None:
            lengths = [dim for dim in list(kernel)[1:] if isinstance(dim, int)]
            total += prod(shapes.get(node.outputs[0].name or "", (0,))) * prod(lengths)
    return total
