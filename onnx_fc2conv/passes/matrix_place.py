"""Where the nodes go that a layer becomes as a matrix."""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.graphs.writer import GraphWriter, Place

__all__ = ["matrix_place"]

_ORIGIN = "conv2fc.origin"
"""Key in the metadata of an emitted node: operator and name of the node that it stands for."""


def matrix_place(writer: GraphWriter, node: ir.Node) -> Place:
    """The place before a node, for nodes that name the one that they stand for."""
    return writer.before(node, {_ORIGIN: describe(node)}, typed=True)
