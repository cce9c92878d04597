"""Each tier alone: it passes a right conversion and can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.feature_windows import check_feature_windows
from onnx_fc2conv.equivalence.tiers.image_windows import check_image_windows
from onnx_fc2conv.equivalence.tiers.native import check_native
from tests.equivalence.conftest import Case
from tests.equivalence.planting import (
    Plant,
    attribute,
    bypass,
    edit_constant,
    edit_trunk,
    fc_convs,
    first,
    last,
    one_element,
)


def claim_of(case: Case, **claimed: object) -> Claim:
    """The models of a case, with these changes to what is claimed of its output."""
    pair = Pair(ir.from_proto(case.reference), case.converted, {"x": (1, 2, 8, 8)})
    meaning = replace(case.geometry["y"], **claimed)  # type: ignore[arg-type]
    return Claim(pair, {"y": meaning}, claims_sizes=True, original=pair.reference)


TIERS: dict[str, Callable[[Claim], list[TierResult]]] = {
    "native": lambda claim: check_native(claim.pair),
    "feature windows": check_feature_windows,
    "image windows": check_image_windows,
}

FAULTS: list[tuple[str, Plant, set[str]]] = [
    (
        "one-ulp",
        edit_constant(0, 1, one_element(lambda w: np.nextafter(w, np.float32(9)))),
        set(),
    ),
    ("relu-dropped", bypass(lambda m: last(m, "Relu")), set(TIERS)),
    (
        "stride-2",
        attribute(lambda m: fc_convs(m)[0], strides=[2, 2]),
        {"feature windows", "image windows"},
    ),
    (
        "end-padding-in-the-trunk",
        attribute(lambda m: first(m, "MaxPool"), pads=[0, 0, 1, 1]),
        {"feature windows", "image windows"},
    ),
    (
        "trunk-weight",
        edit_trunk("Conv", 1, one_element(lambda w: w * np.float32(1.01))),
        set(TIERS),
    ),
]


@pytest.mark.parametrize("tier", TIERS)
def test_tier_passes_a_right_conversion(tier: str, case_of: Callable[[str], Case]) -> None:
    results = TIERS[tier](claim_of(case_of("plain")))
    assert results
    assert {result.status for result in results} == {"passed"}
    assert all(result.tier == tier and result.elements for result in results)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("plant", "finders"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_tier_alone(
    tier: str, plant: Plant, finders: set[str], case_of: Callable[[str], Case]
) -> None:
    case = case_of("plain")
    plant(case.converted)
    failed = any(result.status == "failed" for result in TIERS[tier](claim_of(case)))
    assert failed == (tier in finders)


def test_every_tier_can_fail() -> None:
    assert set.union(*(finders for *_, finders in FAULTS)) == set(TIERS)


def image_windows(case: Case, *, exact: bool, stride: tuple[int, int] = (2, 2)) -> TierResult:
    verdict = "windows exact" if exact else "border effect"
    (result,) = check_image_windows(claim_of(case, verdict=verdict, stride=stride))
    return result


def test_measured_windows_assert_nothing_but_the_grid(case_of: Callable[[str], Case]) -> None:
    case = case_of("padded")
    assert image_windows(case, exact=True).status == "failed"
    measured = image_windows(case, exact=False)
    assert measured.status == "measured"
    assert measured.elements
    assert measured.required_rtol is None
    attribute(lambda m: fc_convs(m)[0], strides=[2, 2])(case.converted)
    assert image_windows(case, exact=False).status == "failed"


def test_measured_windows_of_nan_fail(case_of: Callable[[str], Case]) -> None:
    case = case_of("padded")
    edit_constant(0, 1, one_element(lambda _: np.nan))(case.converted)
    assert image_windows(case, exact=False).status == "failed"


def test_wrong_stride_is_found(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    assert image_windows(case, exact=True, stride=(1, 2)).status == "failed"
    assert image_windows(case, exact=True, stride=(2, 3)).status == "failed"
