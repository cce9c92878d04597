"""The report as a truth value, as JSON and as Markdown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onnx_fc2conv.equivalence import EquivalenceReport, TierResult
from onnx_fc2conv.equivalence.reporting.report import ProviderRun
from onnx_fc2conv.equivalence.reporting.results import Relation

PASSED = TierResult("native", "y", "passed", "compared", 160, 0.5, 1e-7)
FAILED = TierResult("weights", "Gemm a|b", "failed", "2 of 8\nweights differ", 8, float("nan"))
INFINITE = TierResult("feature windows", "y", "failed", "no", 8, float("inf"), float("inf"))
SKIPPED = TierResult("feature windows", "y", "skipped", "native size only")
MEASURED = TierResult("image windows", "y", "measured", "border effect", 52, 0.98)
WINDOWS = TierResult("feature windows", "y", "passed", "26 cells", 26, 0.0, 0.0)


SPREAD = TierResult(
    "native",
    "y|z",
    "passed",
    "compared",
    9,
    0.5,
    1e-7,
    where="normal, batch 3[2, 1]",
    quantiles={"0.5": 1e-8, "0.9": 3e-8, "0.99": 2e-7},
    histogram=(4, 0, 3, 0, 0, 0, 0, 0, 0, 2),
)


MAP = Relation("map", "a map of windows at any size")
CUDA = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def report(*results: TierResult) -> EquivalenceReport:
    run = ProviderRun("cpu", {}, results, 0.1)
    return EquivalenceReport((run,), MAP, "1.31.0", 0, 0.12345)


def on_two(cpu: TierResult, cuda: TierResult) -> EquivalenceReport:
    runs = (ProviderRun("cpu", {}, (cpu,), 0.1), ProviderRun("cuda", CUDA, (cuda,), 0.2))
    return EquivalenceReport(runs, MAP, "1.31.0", 7, 0.3, notes=("a | b",), converted="out.onnx")


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
    assert report(*results).as_dict()["status"] == ("equivalent" if equivalent else "different")
    assert report(*results).verdict.startswith("equivalent: a map" if equivalent else "not equ")


@pytest.mark.parametrize(
    ("cpu", "cuda", "equivalent"),
    [(PASSED, PASSED, True), (PASSED, FAILED, False), (PASSED, SKIPPED, False)],
    ids=["both", "one-fails", "one-compares-nothing"],
)
def test_every_provider_counts(cpu: TierResult, cuda: TierResult, equivalent: bool) -> None:
    assert bool(on_two(cpu, cuda)) == equivalent


def test_no_provider_is_no_proof() -> None:
    assert not EquivalenceReport((), MAP, "1.31.0", 0, 0.0)


def test_failures_are_the_failed_results() -> None:
    assert report(PASSED, FAILED, SKIPPED, INFINITE).failures == (FAILED, INFINITE)


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_strict() -> None:
    text = report(PASSED, FAILED, INFINITE, SKIPPED).to_json()
    values = json.loads(text, parse_constant=refuse)
    assert values["status"] == "different"
    assert (values["onnxruntime"], values["seed"]) == ("1.31.0", 0)
    assert values["providers"] == [{"name": "cpu", "settings": {}, "seconds": 0.1}]
    assert values["seconds"] == 0.123
    first, second, third, fourth = values["checks"]
    assert first == {
        "provider": "cpu",
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
    lines = report(PASSED, FAILED, INFINITE, SKIPPED, MEASURED).to_table().splitlines()
    assert len(lines) == 2 + 5
    columns = {line.replace("\\|", "").count("|") for line in lines}
    assert columns == {8}
    assert lines[0].startswith("| tier | subject | result |")
    assert lines[2] == "| native | y | passed | 160 | 0.5 | 1e-07 | compared |"
    assert lines[3] == "| weights | Gemm a\\|b | failed | 8 | nan |  | 2 of 8 weights differ |"
    assert lines[5] == "| feature windows | y | skipped | 0 |  |  | native size only |"


def test_empty_report() -> None:
    assert json.loads(report().to_json())["checks"] == []
    assert len(report().to_table().splitlines()) == 2


def test_markdown_of_two_providers_says_how_each_ran() -> None:
    text = on_two(PASSED, FAILED).to_markdown()
    assert text.startswith(
        "## fc2conv check: `out.onnx`\n\n**not equivalent** (onnxruntime 1.31.0, seed 7)\n\n"
        "- a \\| b\n"
    )
    assert "### cpu\n" in text
    assert "### cuda (use_tf32=0, cudnn_conv_algo_search=HEURISTIC)\n" in text


def test_markdown_says_where_the_errors_are_and_how_they_lie() -> None:
    lines = report(SPREAD, WINDOWS).to_markdown().splitlines()
    assert lines[0] == f"**{report(SPREAD).verdict}** (onnxruntime 1.31.0, seed 0)"
    head, rule, row = lines[-5:-2]
    assert head.startswith("| tier | subject | largest difference at | <1e-9 | 1e-9…1e-8 |")
    assert rule.count("---:") == 10
    assert row == ("| native | y\\|z | normal, batch 3[2, 1] | 4 |  | 3 |  |  |  |  |  |  | 2 |")
    assert "50 % below 1e-08, 90 % below 3e-08, 99 % below 2e-07" in report(SPREAD).to_markdown()
    assert "<details>" not in report(PASSED, WINDOWS).to_markdown()
