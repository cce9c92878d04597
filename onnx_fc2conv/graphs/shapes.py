"""Shapes of tensors, as ONNX's own inference finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.graphs.names import ORIGIN

__all__ = ["Shapes", "forget_shapes", "infer_shapes", "known_shapes", "shapes_at"]

Shapes = Mapping[str, tuple[int | None, ...]]
"""Shapes by the names of tensors, those of unknown rank left out; None for a symbolic dim."""


def infer_shapes(model: ir.Model, *, check_type: bool = True) -> None:
    """Record the types and shapes of all tensors, as far as inference finds them.

    Args:
        model: The model; it is left unchanged if inference fails.
        check_type: Whether inference fails if types do not fit. It finds the type of an operator
            without an inference function, such as GroupNormalization, only if it checks.
    """
    ShapeInferencePass(check_type=check_type, strict_mode=False, data_prop=True)(model)


def forget_shapes(model: ir.Model) -> None:
    """Forget all shapes, except rank and channels of a map from a Reshape to a computed size.

    Shape inference would not find these.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        computed = node.op_type == "Reshape" and ORIGIN in node.metadata_props
        for value in node.outputs:
            shape = value.shape
            if not computed or shape is None or len(shape) < 3:
                value.shape = None
                continue
            value.shape = ir.Shape([None, shape[1], *[None] * (len(shape) - 2)])


def shapes_at(model: ir.Model, inputs: Mapping[str, Sequence[int]]) -> Shapes:
    """The shapes for inputs of these shapes; the model stays as it is."""
    copy = model.clone()
    for value in copy.graph.inputs:
        if (shape := inputs.get(value.name or "")) is not None:
            value.shape = ir.Shape(list(shape))
    forget_shapes(copy)
    return _inferred(copy)


def known_shapes(model: ir.Model) -> Shapes:
    """The shapes that the model records, and those that follow from them; it stays as it is."""
    return _inferred(model.clone())


def _inferred(copy: ir.Model) -> Shapes:
    infer_shapes(copy, check_type=False)
    made = (value for node in copy.graph for value in node.outputs)
    return {
        value.name or "": tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        for value in (*copy.graph.inputs, *copy.graph.initializers.values(), *made)
        if value.shape is not None
    }
