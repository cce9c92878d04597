"""The bodies of an If, Loop or Scan: the outer tensors that they read, and their nodes."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["captured_values", "inner_nodes"]


def captured_values(node: ir.Node) -> list[ir.Value]:
    """The tensors that the nodes of the node's subgraphs read: their own, and those around them."""
    return [
        value
        for graph in _bodies(node)
        for inner in (*ir.traversal.RecursiveGraphIterator(graph), None)
        for value in (graph.outputs if inner is None else inner.inputs)
        if value is not None
    ]


def inner_nodes(node: ir.Node) -> list[ir.Node]:
    """The nodes in the bodies of an If, Loop or Scan, and in the bodies of those."""
    bodies = _bodies(node)
    return [inner for graph in bodies for inner in ir.traversal.RecursiveGraphIterator(graph)]


def _bodies(node: ir.Node) -> list[ir.Graph]:
    graphs: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs.extend(attribute.as_graphs())
    return graphs
