"""The table of tiers is what the pages show, and what results are named by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnx_fc2conv.equivalence.tiers.table import TIERS
from tests.equivalence import faults
from tests.equivalence.conftest import NETS, ROOT, Case
from tools.tier_tables import PAGES, with_table

NAMES = [tier.name for tier in TIERS]


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_up_to_date(page: str) -> None:
    """Else run ``python tools/tier_tables.py``."""
    assert (ROOT / page).read_text(encoding="utf-8") == with_table(page)


def test_names_are_unique_and_those_of_the_planted_faults() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(faults.TIERS.values()) <= set(NAMES)


@pytest.mark.parametrize("net", ["plain", "globally_pooled", "half"])
def test_results_are_named_by_the_table_in_its_order(
    net: str, case_of: Callable[[str], Case]
) -> None:
    assert net in NETS
    found = list(dict.fromkeys(result.tier for result in case_of(net).check().results))
    assert found == [name for name in NAMES if name in found]


@pytest.mark.parametrize("page", PAGES)
def test_pages_count_the_planted_faults(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("\n", " ")
    assert f"{len(faults.TABLE)} kinds of fault" in text or f"{len(faults.TABLE)} planted" in text
