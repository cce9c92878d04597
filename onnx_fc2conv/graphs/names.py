"""How nodes and tensors are called: in reports, and in a graph where a name may be taken."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["NameScope", "describe", "node_name"]


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
        """Hand this name out no more."""
        self._taken.add(name)

    def fresh(self, wanted: str) -> str:
        """``wanted``, with a number behind it if the name is taken."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
