"""The result of a tier for a layer or output, and the relation of the two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Relation", "RelationKind", "Status", "TierResult"]

Status = Literal["passed", "failed", "skipped", "measured"]
RelationKind = Literal["fixed size", "any size", "whole image", "map", "native size only"]


@dataclass(frozen=True)
class TierResult:
    """The result of one tier for one layer or output.

    Attributes:
        tier: A name of `TIERS`, ``detector`` of an appended detector, or ``matrices`` of a file of
            matrices.
        subject: The layer or output that was checked.
        status: ``passed``, ``failed``, ``skipped`` (the detail says why), or ``measured`` (a figure
            that asserts nothing).
        detail: One sentence: what was compared, or why not, or what is wrong.
        elements: Number of elements compared.
        worst_error: Largest absolute difference.
        required_rtol: The smallest relative tolerance that would have passed; None where the
            comparison is exact.
        where: The comparison and the index of the largest difference.
        quantiles: Quantiles of the relative errors, by share of the elements.
        histogram: Numbers of elements by relative error, in the ten bins of `BINS`.
        not_finite: Number of elements that are the same NaN or Inf in both models: not compared.
    """

    tier: str
    subject: str
    status: Status
    detail: str
    elements: int = 0
    worst_error: float | None = None
    required_rtol: float | None = None
    where: str | None = None
    quantiles: Mapping[str, float] | None = None
    histogram: tuple[int, ...] | None = None
    not_finite: int = 0

    @property
    def sentence(self) -> str:
        """The detail, and how the errors are spread."""
        return self.detail + (self.spread_text and f"; relative errors: {self.spread_text}")

    @property
    def spread_text(self) -> str:
        """The spread of the errors in a few words; empty if none was measured."""
        if self.quantiles is None or not self.worst_error:
            return ""
        return ", ".join(
            f"{100 * float(share):g} % below {error:.1g}" for share, error in self.quantiles.items()
        )


@dataclass(frozen=True)
class Relation:
    """How the converted model relates to the original.

    Attributes:
        kind: ``fixed size`` (the same interface), ``any size`` (both take the same sizes), ``map``
            (of windows), ``whole image`` (one result for an image of any size), or ``native size
            only`` (it takes other sizes, and computes something else there).
        words: The same in one sentence for people.
    """

    kind: RelationKind
    words: str
