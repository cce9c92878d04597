"""The result of a check, as an object with a truth value and as text for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from onnx_fc2conv.equivalence.comparing.spread import BINS
from onnx_fc2conv.equivalence.reporting.junit import Suite, TestCase, junit_xml
from onnx_fc2conv.equivalence.reporting.markdown import errors_table, one_line, results_table
from onnx_fc2conv.equivalence.reporting.results import Relation, TierResult
from onnx_fc2conv.geometry import Geometry

__all__ = ["EquivalenceReport", "ProviderRun"]


@dataclass(frozen=True)
class ProviderRun:
    """All tiers on one execution provider.

    Attributes:
        provider: ``cpu`` or ``cuda``.
        settings: Options of the provider that are not its defaults.
        results: Everything that was checked, tier by tier.
        seconds: Time that it took.
    """

    provider: str
    settings: Mapping[str, str]
    results: tuple[TierResult, ...]
    seconds: float

    def __bool__(self) -> bool:
        """Whether the native size was compared and no tier failed."""
        compared = any(r.tier == "native" and r.status == "passed" for r in self.results)
        return compared and not any(r.status == "failed" for r in self.results)


@dataclass(frozen=True)
class EquivalenceReport:
    """Whether two models are the same function, and how that was found out.

    True if on every provider the native size was compared and no tier failed.

    Attributes:
        runs: The runs, one for each provider.
        relation: How the converted model relates to the original.
        runtime: Version of onnxruntime.
        seed: Seed of the random inputs.
        seconds: Time that the check took.
        notes: Further remarks, such as inputs that were matched by position.
        geometry: The geometry that was assumed, by output.
        reference: Name of the original's file, if it came from one.
        converted: Name of the other file.
    """

    runs: tuple[ProviderRun, ...]
    relation: Relation
    runtime: str
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()
    geometry: Mapping[str, Geometry] = field(default_factory=dict)
    reference: str | None = None
    converted: str | None = None

    def __bool__(self) -> bool:
        """Whether the models are equivalent as far as was checked."""
        return bool(self.runs) and all(self.runs)

    @property
    def results(self) -> tuple[TierResult, ...]:
        """Everything that was checked, provider by provider."""
        return tuple(result for run in self.runs for result in run.results)

    @property
    def failures(self) -> tuple[TierResult, ...]:
        """The results that are failures."""
        return tuple(result for result in self.results if result.status == "failed")

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        if not self:
            return "not equivalent"
        words = self.relation.words
        return words if words.startswith("equal") else f"equivalent: {words}"

    def extended(self, results: Sequence[TierResult]) -> EquivalenceReport:
        """Return the report with further results in its first run."""
        first, *others = self.runs
        return replace(self, runs=(replace(first, results=(*first.results, *results)), *others))

    def check_values(self) -> dict[str, object]:
        """The keys of a report that say how the check ran and what it found."""
        return {
            "relation": asdict(self.relation),
            "notes": list(self.notes),
            "providers": [
                {"name": r.provider, "settings": dict(r.settings), "seconds": round(r.seconds, 3)}
                for r in self.runs
            ],
            "onnxruntime": self.runtime,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "bins": list(BINS),
            "checks": [
                _plain({"provider": run.provider, **asdict(result)})
                for run in self.runs
                for result in run.results
            ],
        }

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; numbers that JSON lacks become strings."""
        return {
            "schema": 1,
            "status": "equivalent" if self else "different",
            "reference": self.reference,
            "converted": self.converted,
            "geometry": {name: g.as_dict() for name, g in self.geometry.items()},
            **self.check_values(),
        }

    def to_json(self) -> str:
        """The report as JSON, as ``docs/report.schema.json`` describes it."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The report as Markdown, for a pull request or the summary of a CI job."""
        names = [f"`{name}`" for name in (self.reference, self.converted) if name]
        lines = [f"## fc2conv check: {' and '.join(names)}", ""] if names else []
        how = f"**{self.verdict}** (onnxruntime {self.runtime}, seed {self.seed})"
        return "\n".join([*lines, how, "", self.to_table()])

    def to_table(self) -> str:
        """The checks as Markdown tables, one for each provider."""
        lines = [f"- {one_line(note)}" for note in self.notes]
        for run in self.runs:
            lines += ["", *_heading(run, len(self.runs)), *results_table(run.results)]
            lines += errors_table(run.results)
        return "\n".join(lines).lstrip() + "\n"

    def to_junit(self) -> str:
        """The report as JUnit XML: a suite for each provider, a case for each tier and subject."""
        return junit_xml("fc2conv check", self.junit_suites())

    def junit_suites(self) -> list[Suite]:
        """The suites of `to_junit`."""
        return [_suite(self, run) for run in self.runs]


def _heading(run: ProviderRun, runs: int) -> list[str]:
    settings = ", ".join(f"{key}={value}" for key, value in run.settings.items())
    if runs == 1 and not settings:
        return []
    return [f"### {run.provider}" + (f" ({settings})" if settings else ""), ""]


def _suite(report: EquivalenceReport, run: ProviderRun) -> Suite:
    cases = [_case(result) for result in run.results]
    if not run and not any(case.failure for case in cases):
        cases.append(TestCase("native", "all outputs", failure="nothing was compared"))
    properties = {
        **{f"{run.provider}.{key}": value for key, value in run.settings.items()},
        "onnxruntime": report.runtime,
        "seed": str(report.seed),
        "relation": report.relation.words,
    }
    return Suite(f"fc2conv on {run.provider}", tuple(cases), run.seconds, properties)


def _case(result: TierResult) -> TestCase:
    figures = ""
    if result.worst_error is not None:
        figures = f"; {result.elements:,} elements, worst error {result.worst_error:.2g}"
    if result.required_rtol is not None:
        figures += f", smallest rtol that would have passed {result.required_rtol:.2g}"
    return TestCase(
        result.tier,
        result.subject,
        failure=result.detail if result.status == "failed" else None,
        skipped=result.detail if result.status == "skipped" else None,
        output=f"{result.status}: {result.sentence}{figures}",
    )


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
