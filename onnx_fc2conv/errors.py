"""Refusals and errors, by who must act.

A *refusal* is data: the analysis collects every reason why a layer cannot be written as a
convolution. (The rule of an operator raises it; the walk over the graph catches it and goes on.)
Only the boundary (``convert``, the command line) turns refusals into an error. Everything that the
user can cause derives from `Fc2ConvError`; anything else that escapes is a bug and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ArgumentError",
    "Fc2ConvError",
    "InvalidModelError",
    "Refusal",
    "RefusedError",
    "RuntimeUnavailableError",
]


@dataclass(frozen=True)
class Refusal:
    """The reason why a node of the model cannot be part of a fully convolutional model.

    Attributes:
        code: A stable, documented word for the reason, such as ``baked-size``.
        node: The node, as ``OpType name``.
        reason: One sentence with the shapes or values that decided, and what to do.
    """

    code: str
    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason} [{self.code}]"


class Fc2ConvError(Exception):
    """Base of every error that the user of this package can act upon."""


class ArgumentError(Fc2ConvError):
    """An argument does not fit the model (exit code 2)."""


class InvalidModelError(Fc2ConvError):
    """A file or an object is not a valid ONNX model (exit code 2)."""


class RuntimeUnavailableError(Fc2ConvError):
    """onnxruntime, or the requested execution provider, is missing (exit code 2)."""


class RefusedError(Fc2ConvError):
    """The model cannot be converted, or has nothing to convert (exit code 3).

    Attributes:
        refusals: Every reason found, in graph order; never empty.
    """

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(str(refusal) for refusal in self.refusals))
