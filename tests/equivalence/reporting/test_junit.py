"""JUnit XML by the rules that the common schemas share, read back by an XML parser."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from onnx_fc2conv import EquivalenceReport, check
from onnx_fc2conv.conversion_report import ConversionReport
from onnx_fc2conv.equivalence.reporting.junit import Suite, TestCase, junit_xml
from onnx_fc2conv.equivalence.reporting.report import ProviderRun
from onnx_fc2conv.equivalence.reporting.results import Relation, TierResult
from onnx_fc2conv.pipeline import convert, inspect
from tests.equivalence.conftest import Case
from tests.equivalence.planting import edit_constant
from tests.nets import Net

CHILDREN = {
    "testsuites": ("testsuite",),
    "testsuite": ("properties", "testcase"),
    "properties": ("property",),
    "testcase": ("skipped", "failure", "system-out"),
}
REQUIRED = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"classname", "name", "time"},
    "property": {"name", "value"},
    "failure": {"type", "message"},
    "skipped": {"message"},
    "properties": set[str](),
    "system-out": set[str](),
}


def assert_valid(element: ET.Element) -> None:
    """Known elements in the schemas' order, their attributes, and counts that add up."""
    assert set(element.attrib) == REQUIRED[element.tag], element.tag
    allowed = CHILDREN.get(element.tag, ())
    order = [allowed.index(child.tag) for child in element]
    assert order == sorted(order)
    for child in element:
        assert_valid(child)
    if element.tag in ("testsuite", "testsuites"):
        cases = list(element.iter("testcase"))
        counts = {
            "tests": len(cases),
            "failures": len(list(element.iter("failure"))),
            "skipped": len(list(element.iter("skipped"))),
            "errors": 0,
        }
        assert {key: int(element.attrib[key]) for key in counts} == counts
        assert float(element.attrib["time"]) >= 0
    if element.tag == "testsuite":
        names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
        assert len(set(names)) == len(names), "a CI server would show one of them only"


def parsed(text: str) -> ET.Element:
    root = ET.fromstring(text)
    assert_valid(root)
    return root


def of(*results: TierResult, providers: tuple[str, ...] = ("cpu",)) -> EquivalenceReport:
    runs = tuple(ProviderRun(p, {"use_tf32": "0"}, results, 0.5) for p in providers)
    return EquivalenceReport(runs, Relation("map", "a map"), "1.31.0", 3, 1.0)


PASSED = TierResult("native", "y", "passed", "160 values", 160, 1e-6, 1e-7)
FAILED = TierResult("weights", "Gemm <a> & \x00b\x1b[0m", "failed", 'wrong "\ud800"', 8, 0.5)
SKIPPED = TierResult("feature windows", "y", "skipped", "native size only")
MEASURED = TierResult("image windows", "y", "measured", "border effect", 52, 0.98)


def test_a_suite_for_each_provider_and_a_case_for_each_result() -> None:
    report = of(PASSED, FAILED, SKIPPED, MEASURED, providers=("cpu", "cuda"))
    root = parsed(report.to_junit())
    assert [s.attrib["name"] for s in root] == ["fc2conv on cpu", "fc2conv on cuda"]
    suite = root[1]
    assert {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")} == {
        "cuda.use_tf32": "0",
        "onnxruntime": "1.31.0",
        "seed": "3",
        "relation": "a map",
    }
    native, weights, features, images = suite.iter("testcase")
    assert [child.tag for child in native] == ["system-out"]
    assert [child.tag for child in images] == ["system-out"]
    assert (images.findtext("system-out") or "").startswith("measured: border effect")
    failure, skipped = weights.find("failure"), features.find("skipped")
    assert failure is not None
    assert failure.attrib["message"].startswith('wrong "')
    assert skipped is not None
    assert skipped.attrib["message"] == "native size only"


def test_two_results_of_one_name_stay_two() -> None:
    root = parsed(of(PASSED, PASSED, PASSED).to_junit())
    assert [c.attrib["name"] for c in root.iter("testcase")] == ["y", "y (2)", "y (3)"]


def test_nothing_compared_is_a_failure() -> None:
    """Or a CI server would show green where the command fails."""
    for report in (of(), of(SKIPPED)):
        assert not report
        assert int(parsed(report.to_junit()).attrib["failures"]) == 1


def test_text_that_xml_cannot_hold() -> None:
    cases = [TestCase("a", "".join(map(chr, range(32))), failure="\ufffe\ud800\U0001f600")]
    root = parsed(junit_xml("\x07", [Suite("\x08", cases)]))
    (failure,) = root.iter("failure")
    assert failure.text == "\ufffd\ufffd\U0001f600"


@pytest.mark.parametrize("right", [True, False])
def test_a_real_report(right: bool, case_of: Callable[[str], Case]) -> None:
    case = case_of("softmax")
    if not right:
        edit_constant(0, 1, lambda kernel: kernel * 2)(case.converted)
    report = check(case.reference, case.converted)
    root = parsed(report.to_junit())
    assert int(root.attrib["tests"]) == len(report.results)
    assert (root.attrib["failures"] == "0") == right == bool(report)


def test_report_of_a_conversion(case_of: Callable[[str], Case]) -> None:
    reference = case_of("plain").reference
    conversion = convert(reference)
    assert conversion.model is not None
    equivalence = check(reference, conversion.model)
    root = parsed(ConversionReport("in.onnx", "out.onnx", conversion, equivalence).to_junit())
    assert [suite.attrib["name"] for suite in root] == ["fc2conv", "fc2conv on cpu"]
    layers = [case.attrib["name"] for case in root[0].iter("testcase")]
    assert layers == [f"{h.op_type} {h.node}" for h in conversion.heads]


def test_report_of_a_refusal() -> None:
    net = Net()
    conversion = inspect(net.model(net.op("Relu", net.x)))
    (failure,) = parsed(ConversionReport("in.onnx", None, conversion).to_junit()).iter("failure")
    assert failure.attrib["message"].endswith("[nothing-to-convert]")
