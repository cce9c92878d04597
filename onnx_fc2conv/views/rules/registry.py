"""Which rule answers for which operator, and what a rule is given.

A rule is a pure function from one node and what is known of its operands to an `Outcome`, or it
refuses the node. It looks at nothing else: not at the node's neighbors, not at the spelling that
led here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.known import Known, Opaque
from onnx_fc2conv.views.plan import Outcome
from onnx_fc2conv.views.view import Batches, FeatureMap, FeatureView, LabelSpace, channels_first

__all__ = [
    "RULES",
    "Application",
    "Fact",
    "NameScope",
    "NodeRefused",
    "Rule",
    "describe",
    "node_name",
    "rule",
]

Fact = FeatureView | Known | Opaque
Rule = Callable[["Application"], Outcome]

RULES: dict[tuple[str, str], Rule] = {}


class NodeRefused(Exception):  # noqa: N818 - an outcome of a rule, not an error
    """A node has no place in a fully convolutional model.

    The walk over the graph catches it; what the reports say of it is the `Refusal`.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def rule(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of these operators."""

    def register(function: Rule) -> Rule:
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


@dataclass(frozen=True, eq=False)
class Application:
    """One node and its operands.

    Attributes:
        node: The node.
        opset: Version of the node's operator set.
        operands: What is known of each input; None where an optional input is left out.
        space: Gives labels to new maps.
        names: Gives names to new tensors.
        batches: The batch sizes of the labels.
        windowed: Whether the node, if it pools the whole image, is to pool each window instead.
        static: Whether sizes stay, so that a window is the whole image.
        patches: Whether a layer of patches of a map is a sliding layer.
    """

    node: ir.Node
    opset: int
    operands: tuple[Fact | None, ...]
    space: LabelSpace
    names: NameScope
    batches: Batches
    windowed: bool = False
    static: bool = False
    patches: bool = True

    def operand(self, position: int) -> Fact | None:
        """The operand, None if it is left out."""
        return self.operands[position] if position < len(self.operands) else None

    def view(self, position: int = 0) -> FeatureView | None:
        """The operand if it is a view."""
        fact = self.operand(position)
        return fact if isinstance(fact, FeatureView) else None

    def known(self, position: int) -> Known | None:
        """The operand if it is known."""
        fact = self.operand(position)
        return fact if isinstance(fact, Known) else None

    def int_attribute(self, name: str, default: int) -> int:
        """An integer attribute or its default."""
        return self.node.attributes.get_int(name, default)

    def ints_attribute(self, name: str) -> tuple[int, ...] | None:
        """An attribute of integers, None if it is absent."""
        ints = self.node.attributes.get_ints(name, None)
        return None if ints is None else tuple(ints)

    def refuse(self, code: str, reason: str) -> NoReturn:
        """End the rule: this node cannot be part of a fully convolutional model.

        Args:
            code: A word of the catalog of refusals.
            reason: Why, with the shapes or values that decided.

        Raises:
            NodeRefused: Always.
        """
        raise NodeRefused(Refusal(code, describe(self.node), reason))

    def new_map(self, like: FeatureMap, **changes: Any) -> FeatureMap:
        """A new map that this node makes: ``like`` it but for its labels and what is given."""
        made: dict[str, Any] = {
            "name": self.node.outputs[0].name or "",
            "sources": (like,),
            "value": None,
            "layout": channels_first(2 + len(like.extent)),
            "lacks": (),
            "pads": None,
            "mixes_positions": None,
            "pooled_by": None,
            "subdivides": None,
            "parts": None,
            "constant": None,
            "pending": None,
            "base": None,
        }
        made |= changes
        size = made.get("channels", like.channels) * prod(made.get("extent", like.extent))
        made["first_label"] = self.space.reserve(size)
        return self.space.add(replace(like, **made))
