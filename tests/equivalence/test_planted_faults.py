"""A wrong model that passes is the worst outcome: every planted fault must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.equivalence.conftest import ROOT, Case, failed_tiers
from tests.equivalence.faults import NATIVE, TABLE, Fault
from tests.equivalence.planting import nudged_logits
from tools.fault_page import page


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, case_of: Callable[[str], Case]) -> None:
    case = case_of(fault.net)
    fault.plant(case.converted)
    if fault.claim is not None:
        claimed = {output: fault.claim(meaning) for output, meaning in case.geometry.items()}
        case = replace(case, geometry=claimed)
    report = case.check()
    print(report.to_markdown())
    assert failed_tiers(report) - {"geometry"} == fault.found_by  # its metadata stayed as it was
    assert not report
    assert report.to_json()


@pytest.mark.parametrize("net", sorted({fault.net for fault in TABLE}))
def test_without_the_fault_it_passes(net: str, case_of: Callable[[str], Case]) -> None:
    report = case_of(net).check()
    assert report, report.to_markdown()
    assert all(r.elements for r in report.results if r.status != "skipped")


def test_saturated_output_itself_hides_the_error(case_of: Callable[[str], Case]) -> None:
    case = case_of("saturated")
    nudged_logits(case.converted)
    native = {r.subject: r.status for r in case.check().results if r.tier == NATIVE}
    assert native == {"y": "passed"}


def test_names_are_unique() -> None:
    assert len({fault.name for fault in TABLE}) == len(TABLE) >= 50


def test_page_is_up_to_date() -> None:
    """Else run ``python tools/fault_page.py``."""
    assert (ROOT / "docs" / "faults.md").read_text(encoding="utf-8") == page()
