"""Options of the check: sizes, number of windows, tolerances by output, providers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_fc2conv import ArgumentError, check
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.larger import chosen_cells
from tests.equivalence.conftest import Case, failed_tiers
from tests.equivalence.planting import edit_constant, fc_convs, replace_constant

WINDOWS = ("feature windows", "image windows")
LARGER = ("larger sizes", *WINDOWS)


def details(case: Case, **options: Any) -> dict[str, str]:
    report = check(case.reference, case.converted, **options)
    assert report, report.to_markdown()
    return {r.tier: r.detail for r in report.results if r.tier in LARGER}


def test_sizes_of_ones_own(case_of: Callable[[str], Case]) -> None:
    found = details(case_of("plain"), sizes=[(8, 12), (21, 16)])
    cells = 1 * 3 + 2 * 7 * 5
    assert found["image windows"].startswith(f"{cells} cells at 2 larger sizes")
    assert found["feature windows"].startswith(f"{cells} cells at 2 larger sizes")
    assert (
        "at 1 larger size (1 of 2 remainders of the stride),"
        in details(case_of("plain"), sizes=[(12, 12)])["image windows"]
    )


@pytest.mark.parametrize(
    ("net", "size", "message"),
    [
        ("plain", (12,), "size 12 is not one of 'x', whose size is 8×8"),
        ("plain", (7, 12), "size 7×12 is smaller than the native size 8×8"),
        ("one_dimension", (12, 12), "size 12×12 is not one of 'x', whose size is 9"),
    ],
)
def test_sizes_that_do_not_fit(
    net: str, size: tuple[int, ...], message: str, case_of: Callable[[str], Case]
) -> None:
    case = case_of(net)
    with pytest.raises(ArgumentError, match=message):
        check(case.reference, case.converted, sizes=[size])


def test_a_model_of_one_size_takes_no_other(case_of: Callable[[str], Case]) -> None:
    reference = case_of("plain").reference
    with pytest.raises(ArgumentError, match="takes its native size only"):
        check(reference, reference, sizes=[(12, 12)])


@pytest.mark.parametrize("net", ["plain", "padded", "two_heads", "pixel"])
def test_fewer_windows(net: str, case_of: Callable[[str], Case]) -> None:
    found = details(case_of(net), sizes=[(28, 28)], max_windows=6)
    for text in found.values():
        assert text.startswith(("6 cells at 1 ", "cells are not the crops' scores: over 6 windows"))


def test_a_reduction_needs_all_windows(case_of: Callable[[str], Case]) -> None:
    all_windows = details(case_of("globally_pooled"), sizes=[(28, 28)], max_windows=1)
    assert all_windows["larger sizes"].startswith("at 1 larger size")


def test_drawn_windows_find_a_fault(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.01))(case.converted)
    report = check(case.reference, case.converted, max_windows=2)
    assert {*WINDOWS} <= failed_tiers(report)


def test_the_chosen_cells_are_seeded_and_hold_the_corners(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")

    def chosen(seed: int, wanted: int | None, count: int = 100) -> list[int] | None:
        pair = Pair(case.converted, case.converted, {}, seed=seed, max_windows=wanted)
        cells = chosen_cells(pair, count)
        return None if cells is None else cells.tolist()

    assert chosen(0, None) is None
    assert chosen(0, 100) is None
    assert chosen(0, 1) == [0]
    assert chosen(0, 2) == [0, 99]
    ten = chosen(0, 10)
    assert ten is not None
    assert len(set(ten)) == 10
    assert ten == sorted(ten) == chosen(0, 10)
    assert ten != chosen(1, 10)


def test_windows_of_a_wrong_place_are_found_however_few(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    claimed = replace(case.geometry["y"], stride=(1, 2))
    report = check(case.reference, case.converted, geometry={"y": claimed}, max_windows=2)
    assert "image windows" in failed_tiers(report)


def scaled(case: Case) -> Case:
    """0.1 % more on one of two heads."""
    convs = fc_convs(case.converted)
    name = case.converted.graph.outputs[1].name
    (wrong,) = (conv for conv in convs if conv.outputs[0].name == name)
    for position in (1, 2):
        value = wrong.inputs[position]
        assert value is not None
        assert value.const_value is not None
        replace_constant(wrong, position, value.const_value.numpy() * np.float32(1.001))
    for node in case.converted.graph:
        node.metadata_props.clear()
    return case


@pytest.mark.parametrize(
    ("rtol", "equivalent"),
    [
        (None, False),
        (1e-2, True),
        ({"y2": 1e-2}, True),
        ({"y": 1e-2}, False),
        ({"*": 1e-2}, True),
        ({"*": 1e-2, "y2": 1e-6}, False),
        ({"*": 1e-6, "y2": 1e-2}, True),
    ],
    ids=str,
)
def test_tolerance_of_one_output(
    rtol: float | dict[str, float] | None, equivalent: bool, case_of: Callable[[str], Case]
) -> None:
    case = scaled(case_of("two_heads"))
    assert bool(check(case.reference, case.converted, rtol=rtol)) == equivalent


def test_tolerance_of_probabilities(case_of: Callable[[str], Case]) -> None:
    case = case_of("softmax")
    for node in case.converted.graph:
        node.metadata_props.clear()
    for conv in [n for n in case.converted.graph if n.op_type == "Conv"][1:]:
        kernel = conv.inputs[1]
        assert kernel is not None
        assert kernel.const_value is not None
        replace_constant(conv, 1, kernel.const_value.numpy() * np.float32(1.0005))
    assert not check(case.reference, case.converted)
    assert check(case.reference, case.converted, rtol={"y": 1e-2}, atol={"y": 1e-2})


def test_absolute_tolerance_of_one_output(case_of: Callable[[str], Case]) -> None:
    case = scaled(case_of("two_heads"))
    assert check(case.reference, case.converted, atol={"y2": 1e3})
    assert not check(case.reference, case.converted, atol={"y": 1e3})


def test_tolerance_of_an_output_that_is_none(case_of: Callable[[str], Case]) -> None:
    case = case_of("two_heads")
    with pytest.raises(ArgumentError, match="rtol names 'z', but the model's outputs are: y, y2"):
        check(case.reference, case.converted, rtol={"z": 1e-3})


def test_an_unknown_provider(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    with pytest.raises(ArgumentError, match="provider 'tpu' is not one of: cpu, cuda"):
        check(case.reference, case.converted, providers=("tpu",))  # type: ignore[arg-type]
