"""Normalize: bring the model to the form that every later pass expects."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.graphs.shapes import infer_shapes
from onnx_fc2conv.passes.fold_constant_if import FoldConstantIf
from onnx_fc2conv.passes.upgrade_opset import UpgradeOpset
from onnx_fc2conv.views.growth import check_sizes

__all__ = ["Normalize"]


@dataclass(frozen=True)
class Normalize(ir.passes.InPlacePass):
    """Upgrade an old opset, inline functions and constant branches, drop nodes without a use.

    A CastLike whose target type is known becomes a Cast (CastLike-15).

    Interface and computation stay as they are.

    Raises:
        RefusedError: If a node of an old opset cannot be upgraded, or a function not be inlined.
        InvalidModelError: If a node would make a tensor that no memory holds.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Upgrade, inline, lower, then sweep."""
        modified = UpgradeOpset()(model).modified
        if model.functions:
            modified |= _inline(model)
        modified |= FoldConstantIf()(model).modified
        modified |= _lower_casts(model)
        modified |= RemoveUnusedNodesPass()(model).modified
        check_sizes(model.graph)
        return ir.passes.PassResult(model, modified=modified)


def _inline(model: ir.Model) -> bool:
    """Put the bodies of functions in place of their calls."""
    try:
        return InlinePass()(model).modified
    except (ValueError, ir.passes.PreconditionError) as error:
        reason = f"cannot be put in place of their calls: {error.__cause__ or error}"
        raise RefusedError([Refusal("function", "the functions", reason)]) from error


def _lower_casts(model: ir.Model) -> bool:
    """Turn each CastLike into a Cast, where its type is known."""
    found = [n for n in model.graph if n.op_type == "CastLike" and not n.domain]
    if any(_type_of(node) is None for node in found):
        infer_shapes(model)
    lowered = False
    for node in found:
        dtype = _type_of(node)
        if dtype is not None:
            node.op_type = "Cast"
            node.resize_inputs(1)
            node.attributes.add(ir.AttrInt64("to", dtype.value))
            lowered = True
    return lowered


def _type_of(node: ir.Node) -> ir.DataType | None:
    """The type of the tensor that a CastLike takes its type from."""
    like = node.inputs[1] if len(node.inputs) > 1 else None
    return None if like is None else like.dtype
