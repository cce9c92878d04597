"""Which rule answers for which operator.

A rule is a pure function from one node and what is known of its operands to what is known of its
outputs, or it refuses the node. The steps that make the outputs it writes on the tape of its
`Context`. It looks at nothing else: not at the node's neighbors, not at the spelling that led here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from onnx_fc2conv.views.context import Context, Fact

__all__ = ["RULES", "Answer", "Fact", "Rule", "rule"]

Answer = Fact | tuple[Fact, ...]
"""What is known of the only output that is used, or of each in order."""
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
