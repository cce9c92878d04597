"""The rule of each operator.

A rule is a pure function from one node and the facts about its operands to facts about its outputs,
or it refuses the node. It records the steps that make the outputs on the tape of its `Context`. It
reads nothing else: neither the node's neighbors nor the spelling that led here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from onnx_fc2conv.views.context import Context, Fact

__all__ = ["RULES", "Answer", "Fact", "Rule", "rule"]

Answer = Fact | tuple[Fact, ...]
"""The fact about the only output that is used, or about each output in order."""
Rule = Callable[[Context], Answer]
R = TypeVar("R", bound=Rule)

RULES: dict[tuple[str, str], Rule] = {}


def rule(*op_types: str, domain: str = "") -> Callable[[R], R]:
    """Register the decorated function as the rule of these operators."""

    def register(function: R) -> R:
        for op_type in op_types:
            RULES[domain, op_type] = function
        return function

    return register
