"""JUnit XML, as CI servers read it: testsuites > testsuite > properties, testcase.

The format has no standard; this keeps to the common part of the schemas of Jenkins' xUnit plugin
and of Apache Ant.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Suite", "TestCase", "junit_xml"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped, but the name of a node can."""


@dataclass(frozen=True)
class TestCase:
    """One test: failed or skipped if there is a reason, else passed.

    Attributes:
        group: Its class name: what kind of test it is.
        name: The subject of the test.
        failure: Why it failed.
        skipped: Why it was not run.
        output: Its printed text.
    """

    __test__ = False  # not one of pytest's

    group: str
    name: str
    failure: str | None = None
    skipped: str | None = None
    output: str = ""


@dataclass(frozen=True)
class Suite:
    """Tests that ran together."""

    name: str
    cases: Sequence[TestCase]
    seconds: float = 0.0
    properties: Mapping[str, str] = field(default_factory=dict)


def junit_xml(name: str, suites: Sequence[Suite]) -> str:
    """The suites as an XML document."""
    root = ET.Element("testsuites", {"name": _text(name), **_counts(suites)})
    for suite in suites:
        element = ET.SubElement(root, "testsuite", {"name": _text(suite.name), **_counts([suite])})
        properties = ET.SubElement(element, "properties")
        for key, value in suite.properties.items():
            ET.SubElement(properties, "property", name=_text(key), value=_text(value))
        names: Counter[tuple[str, str]] = Counter()
        for case in suite.cases:
            names[case.group, case.name] += 1
            _add(element, case, names[case.group, case.name])
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _counts(suites: Sequence[Suite]) -> Mapping[str, str]:
    cases = [case for suite in suites for case in suite.cases]
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.failure is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.skipped is not None for case in cases)),
        "time": f"{sum(suite.seconds for suite in suites):.3f}",
    }


def _add(suite: ET.Element, case: TestCase, number: int) -> None:
    """Add a case; the second of a name gets a number, or servers would show one of them only."""
    name = case.name if number == 1 else f"{case.name} ({number})"
    group = f"fc2conv.{_text(case.group)}"
    element = ET.SubElement(suite, "testcase", classname=group, name=_text(name), time="0")
    if case.failure is not None:
        message = _text(case.failure)
        ET.SubElement(element, "failure", type="different", message=message).text = message
    if case.skipped is not None:
        ET.SubElement(element, "skipped", message=_text(case.skipped))
    if case.output:
        ET.SubElement(element, "system-out").text = _text(case.output)


def _text(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
