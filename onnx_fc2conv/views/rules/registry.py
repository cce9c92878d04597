"""Which rule answers for which operator, and how nodes and new tensors are called.

A rule is a pure function from one node and what is known of its operands to what is known of its
outputs, or it refuses the node. The steps that make the outputs it writes on the tape of its
`Context`. It looks at nothing else: not at the node's neighbors, not at the spelling that led here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import onnx_ir as ir

from onnx_fc2conv.views.known import Known, Opaque
from onnx_fc2conv.views.view import FeatureView

if TYPE_CHECKING:
    from onnx_fc2conv.views.rules.context import Context

__all__ = ["RULES", "Answer", "Fact", "NameScope", "Rule", "describe", "node_name", "rule"]

Fact = FeatureView | Known | Opaque
Answer = Fact | tuple[Fact, ...]
"""What is known of the only output that is used, or of each in order."""
Rule = Callable[["Context"], Answer]
R = TypeVar("R", bound=Rule)

RULES: dict[tuple[str, str], Rule] = {}


def rule(*op_types: str, domain: str = "") -> Callable[[R], R]:
    """Register the decorated function as the rule of these operators."""

    def register(function: R) -> R:
        for op_type in op_types:
            RULES[domain, op_type] = function
        return function

    return register


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

    def fresh(self, wanted: str) -> str:
        """``wanted``, with a number behind it if the name is taken."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
