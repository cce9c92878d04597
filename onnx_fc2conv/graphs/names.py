"""Names of nodes and tensors: in reports, and fresh ones for what is added to a graph."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["ORIGIN", "NameScope", "describe", "node_name"]

ORIGIN = "fc2conv.origin"
"""Key in the metadata of an emitted node: operator and name of the node that it replaces."""


def node_name(node: ir.Node) -> str:
    """The node's name, or its first output's where it has none."""
    return node.name or (node.outputs[0].name if node.outputs else None) or "(unnamed)"


def describe(node: ir.Node) -> str:
    """The node as reports name it: its operator and its name."""
    return f"{node.op_type} {node_name(node)}"


class NameScope:
    """Hands out names that no tensor or node of the model has."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    @classmethod
    def of(cls, graph: ir.Graph) -> NameScope:
        """A scope in which the names of the graph's tensors and nodes are taken."""
        names = [value.name or "" for value in (*graph.inputs, *graph.initializers.values())]
        for node in ir.traversal.RecursiveGraphIterator(graph):
            names.append(node.name or "")
            names.extend(value.name or "" for value in node.outputs)
        return cls(names)

    def take(self, name: str) -> None:
        """Mark this name as taken."""
        self._taken.add(name)

    def fresh(self, wanted: str) -> str:
        """``wanted``, with a number appended if that name is taken; it is taken then."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
