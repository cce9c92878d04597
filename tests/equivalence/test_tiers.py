"""Each tier alone: it passes a right conversion and can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.feature_windows import check_feature_windows
from onnx_fc2conv.equivalence.tiers.image_windows import check_image_windows
from onnx_fc2conv.equivalence.tiers.native import check_native
from onnx_fc2conv.equivalence.tiers.weights import check_weights
from tests.equivalence.conftest import MODELS, Case
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
from tests.files.test_reading import with_external_data
from tests.oracle import converted_model

STRIDES = {"x": (2, 2)}


def pair_of(case: Case) -> Pair:
    return Pair(ir.from_proto(case.reference), case.converted, {"x": (1, 2, 8, 8)})


def image_windows(pair: Pair) -> list[TierResult]:
    return check_image_windows(pair, "y", STRIDES, asserted=True)


def feature_windows(pair: Pair) -> list[TierResult]:
    return check_feature_windows(pair, STRIDES)


TIERS = {
    "weights": check_weights,
    "native": check_native,
    "feature windows": feature_windows,
    "image windows": image_windows,
}

FAULTS: list[tuple[str, Plant, set[str]]] = [
    (
        "one-ulp",
        edit_constant(0, 1, one_element(lambda w: np.nextafter(w, np.float32(9)))),
        {"weights"},
    ),
    ("relu-dropped", bypass(lambda m: last(m, "Relu")), set(TIERS) - {"weights"}),
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
        set(TIERS) - {"weights"},
    ),
]


@pytest.mark.parametrize("tier", TIERS)
def test_tier_passes_a_right_conversion(tier: str, case_of: Callable[[str], Case]) -> None:
    results = TIERS[tier](pair_of(case_of("plain")))
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
    failed = any(result.status == "failed" for result in TIERS[tier](pair_of(case)))
    assert failed == (tier in finders)


def test_every_tier_can_fail() -> None:
    assert set.union(*(finders for *_, finders in FAULTS)) == set(TIERS)


def only_image_windows(pair: Pair, stride: tuple[int, int], *, asserted: bool) -> TierResult:
    (result,) = check_image_windows(pair, "y", {"x": stride}, asserted=asserted)
    return result


def test_measured_windows_assert_nothing_but_the_grid(case_of: Callable[[str], Case]) -> None:
    case = case_of("padded")
    assert only_image_windows(pair_of(case), (2, 2), asserted=True).status == "failed"
    measured = only_image_windows(pair_of(case), (2, 2), asserted=False)
    assert measured.status == "measured"
    assert measured.elements
    assert measured.required_rtol is None
    attribute(lambda m: fc_convs(m)[0], strides=[2, 2])(case.converted)
    assert only_image_windows(pair_of(case), (2, 2), asserted=False).status == "failed"


def test_measured_windows_of_nan_fail(case_of: Callable[[str], Case]) -> None:
    case = case_of("padded")
    edit_constant(0, 1, one_element(lambda _: np.nan))(case.converted)
    assert only_image_windows(pair_of(case), (2, 2), asserted=False).status == "failed"


def test_wrong_stride_is_found(case_of: Callable[[str], Case]) -> None:
    pair = pair_of(case_of("plain"))
    assert only_image_windows(pair, (1, 2), asserted=True).status == "failed"
    assert only_image_windows(pair, (2, 3), asserted=True).status == "failed"


@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_large_weights_are_given_back_and_read_again(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_fc2conv.equivalence.tiers.weights._LARGE", 0)
    monkeypatch.setattr("onnx_fc2conv.files.embedded._LARGE", 0)
    source = with_external_data(tmp_path) if external else MODELS / "face25.onnx"
    report = check(source, converted_model(convert(source)))
    assert report, report.to_markdown()
    assert {r.status for r in report.results if r.tier == "weights"} == {"passed"}
