"""Normalize: what every later pass may take for granted."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

__all__ = ["Normalize"]


@dataclass(frozen=True)
class Normalize(ir.passes.InPlacePass):
    """Inline the model's local functions and drop nodes that no output needs.

    Interface and computation stay as they are.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Inline, then sweep."""
        modified = False
        if model.functions:
            modified |= InlinePass()(model).modified
        modified |= RemoveUnusedNodesPass()(model).modified
        return ir.passes.PassResult(model, modified=modified)
