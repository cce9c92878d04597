"""The report as a truth value, as JSON and as Markdown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onnx_fc2conv.equivalence import EquivalenceReport, TierResult

PASSED = TierResult("native", "y", "passed", "compared", 160, 0.5, 1e-7)
FAILED = TierResult("weights", "Gemm a|b", "failed", "2 of 8\nweights differ", 8, float("nan"))
INFINITE = TierResult("feature windows", "y", "failed", "no", 8, float("inf"), float("inf"))
SKIPPED = TierResult("feature windows", "y", "skipped", "native size only")
MEASURED = TierResult("image windows", "y", "measured", "border effect", 52, 0.98)
WINDOWS = TierResult("feature windows", "y", "passed", "26 cells", 26, 0.0, 0.0)


def report(*results: TierResult) -> EquivalenceReport:
    return EquivalenceReport(results, "cpu", "1.31.0", 0, 0.12345)


@pytest.mark.parametrize(
    ("results", "equivalent"),
    [
        ((PASSED,), True),
        ((PASSED, WINDOWS), True),
        ((PASSED, SKIPPED, MEASURED), True),
        ((), False),
        ((WINDOWS,), False),
        ((SKIPPED, MEASURED), False),
        ((TierResult("native", "y", "skipped", ""), WINDOWS), False),
        ((PASSED, FAILED), False),
        ((PASSED, INFINITE), False),
    ],
    ids=[
        *("native", "native-and-windows", "skipped-and-measured", "nothing", "no-native"),
        *("nothing-passed", "native-skipped", "one-failed", "one-infinite"),
    ],
)
def test_truth(results: tuple[TierResult, ...], equivalent: bool) -> None:
    assert bool(report(*results)) == equivalent
    assert report(*results).as_dict()["equivalent"] == equivalent


def test_failures_are_the_failed_results() -> None:
    assert report(PASSED, FAILED, SKIPPED, INFINITE).failures == (FAILED, INFINITE)


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_strict() -> None:
    text = report(PASSED, FAILED, INFINITE, SKIPPED).to_json()
    values = json.loads(text, parse_constant=refuse)
    assert values["equivalent"] is False
    assert (values["provider"], values["onnxruntime"], values["seed"]) == ("cpu", "1.31.0", 0)
    assert values["seconds"] == 0.123
    first, second, third, fourth = values["checks"]
    assert first == {
        "tier": "native",
        "subject": "y",
        "status": "passed",
        "detail": "compared",
        "elements": 160,
        "worst_error": 0.5,
        "required_rtol": 1e-7,
        "where": None,
        "quantiles": None,
        "histogram": None,
        "not_finite": 0,
    }
    assert second["worst_error"] == "nan"
    assert third["required_rtol"] == "inf"
    assert fourth["worst_error"] is None


def test_markdown_is_a_table() -> None:
    lines = report(PASSED, FAILED, INFINITE, SKIPPED, MEASURED).to_markdown().splitlines()
    assert len(lines) == 2 + 5
    columns = {line.replace("\\|", "").count("|") for line in lines}
    assert columns == {8}
    assert lines[0].startswith("| tier | subject | result |")
    assert lines[2] == "| native | y | passed | 160 | 0.5 | 1e-07 | compared |"
    assert lines[3] == "| weights | Gemm a\\|b | failed | 8 | nan |  | 2 of 8 weights differ |"
    assert lines[5] == "| feature windows | y | skipped | 0 |  |  | native size only |"


def test_empty_report() -> None:
    assert json.loads(report().to_json())["checks"] == []
    assert len(report().to_markdown().splitlines()) == 2
