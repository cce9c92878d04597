"""Normalize: what every later pass may take for granted."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

from onnx_fc2conv.passes.lift_opset import LiftOpset

__all__ = ["Normalize"]


@dataclass(frozen=True)
class Normalize(ir.passes.InPlacePass):
    """Lift an old opset, inline local functions and drop nodes that no output needs.

    Interface and computation stay as they are.

    Raises:
        RefusedError: If a node of an old opset cannot be lifted (then nothing is changed).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lift, inline, then sweep."""
        modified = LiftOpset()(model).modified
        if model.functions:
            modified |= InlinePass()(model).modified
        modified |= RemoveUnusedNodesPass()(model).modified
        return ir.passes.PassResult(model, modified=modified)
