"""The tape: the rules' additions to the plan, in order. A refused node leaves nothing on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.maps.view import FeatureMap
from onnx_fc2conv.views.plan import AttributeValue, FcLayer, Intermediate, Step, WindowPooling

__all__ = ["Attempt", "Frozen", "Materialized", "NodeRefused", "Record", "Replaced", "Tape"]


@dataclass(frozen=True, eq=False)
class Frozen:
    """Attributes of a node that stays, written out at the native size (None removes one)."""

    node: ir.Node
    attributes: Mapping[str, AttributeValue | None]


@dataclass(frozen=True, eq=False)
class Materialized:
    """A tensor that a node which stays reads, and the map that takes its place."""

    value: ir.Value
    feature_map: FeatureMap


@dataclass(frozen=True, eq=False)
class Replaced:
    """A tensor beside the maps, and the step's output that replaces it."""

    value: ir.Value
    tensor: Intermediate


Record = Step | FcLayer | WindowPooling | Frozen | Materialized | Replaced
Kind = TypeVar("Kind", Step, FcLayer, WindowPooling, Frozen, Materialized, Replaced)


class NodeRefused(Exception):  # noqa: N818 - an outcome of a rule, not an error
    """A node has no place in a fully convolutional model.

    The walk over the graph catches it; reports show its `Refusal`.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Tape:
    """Records of a plan in the making."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def __len__(self) -> int:
        return len(self._records)

    def append(self, record: Record) -> None:
        """Add to the end."""
        self._records.append(record)

    def rewind(self, length: int) -> None:
        """Drop all records beyond this length."""
        del self._records[length:]

    def of(self, kind: type[Kind], start: int = 0) -> tuple[Kind, ...]:
        """Return the records of a kind, in order, from the one at ``start`` on."""
        return tuple(record for record in self._records[start:] if isinstance(record, kind))

    def forget_readers(self, values: frozenset[ir.Value], start: int) -> None:
        """Let nodes read these tensors as they are: drop records made from them alone.

        Args:
            values: Tensors of the model.
            start: Records before this one stay.
        """
        self._records[start:] = [
            record
            for record in self._records[start:]
            if not (isinstance(record, Materialized) and record.value in values)
            and not (isinstance(record, Step) and values.intersection(record.inputs))
        ]


class Attempt(AbstractContextManager["Attempt"]):
    """A block that may refuse the node: then its records are dropped, and the rule goes on."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._start = len(tape)
        self._refused: NodeRefused | None = None

    @property
    def refused(self) -> NodeRefused:
        """The refusal of the node, None if there was none."""
        assert self._refused is not None
        return self._refused

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, NodeRefused):
            return False
        self._tape.rewind(self._start)
        self._refused = error
        return True
