"""The result of a check, as an object with a truth value and as text for machines."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["EquivalenceReport", "Status", "TierResult"]

Status = Literal["passed", "failed", "skipped", "measured"]


@dataclass(frozen=True)
class TierResult:
    """What one tier found about one thing.

    Attributes:
        tier: ``weights``, ``native``, ``feature windows`` or ``image windows``.
        subject: The layer or output that was checked.
        status: ``passed``, ``failed``, ``skipped`` (the detail says why), or ``measured`` (a figure
            that asserts nothing).
        detail: One sentence: what was compared, or why not, or what is wrong.
        elements: Number of elements compared.
        worst_error: Largest absolute difference.
        required_rtol: The smallest relative tolerance that would have passed; None where the
            comparison is exact.
    """

    tier: str
    subject: str
    status: Status
    detail: str
    elements: int = 0
    worst_error: float | None = None
    required_rtol: float | None = None


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
            cells = (r.tier, r.subject, r.status, f"{r.elements:,}", worst, rtol, r.detail)
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
