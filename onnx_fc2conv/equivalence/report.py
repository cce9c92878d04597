"""The result of a check, as an object with a truth value and as text for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from onnx_fc2conv.equivalence.spread import BINS

__all__ = ["EquivalenceReport", "Status", "TierResult"]

Status = Literal["passed", "failed", "skipped", "measured"]


@dataclass(frozen=True)
class TierResult:
    """What one tier found about one thing.

    Attributes:
        tier: ``weights``, ``layers``, ``integers``, ``native``, ``feature windows`` or ``image
            windows``.
        subject: The layer or output that was checked.
        status: ``passed``, ``failed``, ``skipped`` (the detail says why), or ``measured`` (a figure
            that asserts nothing).
        detail: One sentence: what was compared, or why not, or what is wrong.
        elements: Number of elements compared.
        worst_error: Largest absolute difference.
        required_rtol: The smallest relative tolerance that would have passed; None where the
            comparison is exact.
        where: The comparison and the index of the largest difference.
        quantiles: Relative errors that a share of the elements stays below, by the share.
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
class EquivalenceReport:
    """Whether two models are the same function, and how that was found out.

    True if no tier failed and the native size was compared.

    Attributes:
        results: Everything that was checked, tier by tier.
        provider: The execution provider.
        runtime: Version of onnxruntime.
        seed: Seed of the random inputs.
        seconds: Time that the check took.
    """

    results: tuple[TierResult, ...]
    provider: str
    runtime: str
    seed: int
    seconds: float

    def __bool__(self) -> bool:
        """Whether the models are equivalent as far as was checked."""
        compared = any(r.tier == "native" and r.status == "passed" for r in self.results)
        return compared and not self.failures

    @property
    def failures(self) -> tuple[TierResult, ...]:
        """The results that are failures."""
        return tuple(result for result in self.results if result.status == "failed")

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; numbers that JSON lacks become strings."""
        return {
            "equivalent": bool(self),
            "provider": self.provider,
            "onnxruntime": self.runtime,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "bins": list(BINS),
            "checks": [_plain(asdict(result)) for result in self.results],
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """The report as a Markdown table."""
        lines = [
            "| tier | subject | result | elements | worst error | smallest rtol | |",
            "| --- | --- | --- | ---: | ---: | ---: | --- |",
        ]
        for r in self.results:
            worst = "" if r.worst_error is None else f"{r.worst_error:.2g}"
            rtol = "" if r.required_rtol is None else f"{r.required_rtol:.2g}"
            cells = (r.tier, r.subject, r.status, f"{r.elements:,}", worst, rtol, r.sentence)
            lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
        return "\n".join(lines) + "\n"


def _plain(values: dict[str, object]) -> dict[str, object]:
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table: one line, and no column of its own."""
    return " ".join(text.split()).replace("|", "\\|")
