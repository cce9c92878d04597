"""A comparison says what is equal, what is not, and which tolerance would have done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnx_fc2conv.equivalence.comparing.comparison import FACTOR, Arrays, Comparison, Tolerance
from onnx_fc2conv.equivalence.pair import as_result

Array = np.ndarray[Any, Any]

VALUES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
PAIRS = hnp.array_shapes(max_dims=3, max_side=4).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=VALUES),
        hnp.arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)),
        st.sampled_from([0.0, 1e-7, 1e-4, 1e-2, 1.0]),
    )
)


def compared(
    one: Array, two: Array, rtol: float | None = None, atol: float | None = None
) -> Comparison:
    comparison = Comparison(Tolerance(rtol, atol))
    comparison.add("y", one, two)
    return comparison


@settings(max_examples=200, deadline=None)
@given(pair=PAIRS, atol=st.sampled_from([None, 0.0, 1e-6, 1.0]))
def test_required_rtol_is_the_smallest_that_passes(
    pair: tuple[Array, Array, float], atol: float | None
) -> None:
    one, noise, amount = pair
    two = (one * (1 + noise * np.float32(amount))).astype(np.float32)
    required = compared(one, two, 0.0, atol).required_rtol
    assume(np.isfinite(required))
    assert compared(one, two, required * (1 + 1e-9) + 1e-300, atol).passed
    if required > 1e-12:
        assert not compared(one, two, required * (1 - 1e-9), atol).passed


@settings(max_examples=100, deadline=None)
@given(pair=PAIRS)
def test_equal_arrays_need_no_tolerance(pair: tuple[Array, Array, float]) -> None:
    comparison = compared(pair[0], pair[0].copy(), 0.0, 0.0)
    assert comparison.passed
    assert (comparison.required_rtol, comparison.worst) == (0.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(pair=PAIRS)
def test_worst_and_where_are_the_largest_difference(pair: tuple[Array, Array, float]) -> None:
    one, noise, amount = pair
    two = (one + noise * np.float32(amount)).astype(np.float32)
    comparison = compared(one, two)
    difference = np.abs(one.astype(np.float64) - two.astype(np.float64))
    assert comparison.worst == difference.max()
    position = tuple(map(int, comparison.where.removeprefix("y[").removesuffix("]").split(",")))
    assert difference[position] == difference.max()
    channels = one if one.ndim < 2 else one[:, position[1]]
    assert comparison.magnitude == np.abs(channels).max()


ONES = np.ones((2, 3), np.float32)
NAN = np.where(np.eye(2, 3, dtype=bool), np.nan, ONES).astype(np.float32)
INFINITE = np.where(np.eye(2, 3, dtype=bool), np.inf, ONES).astype(np.float32)


@pytest.mark.parametrize(
    ("one", "two", "problem"),
    [
        (ONES, NAN, "2 of 6 values of the converted model are NaN or Inf"),
        (NAN, ONES, "2 of 6 values of the reference are NaN or Inf"),
        (NAN, NAN[::-1], "2 of 6 values of the reference are NaN"),
        (INFINITE, -INFINITE, "2 of 6 values of the converted model are NaN or Inf"),
        (INFINITE, NAN, "and not in the other model"),
        (ONES, ONES.T, "shape [3, 2], not [2, 3]"),
        (ONES, ONES.reshape(-1), "shape [6], not [2, 3]"),
        (ONES, ONES[:1], "shape [1, 3], not [2, 3]"),
        (ONES, ONES.astype(np.float64), "type float64, not float32"),
        (ONES.astype(np.int64), ONES.astype(np.int32), "type int32, not int64"),
        (ONES[:0], ONES[:0], "nothing to compare"),
    ],
    ids=[
        *("nan", "nan-in-the-reference", "nan-elsewhere", "infinite-with-another-sign"),
        *("infinite-and-nan", "transposed"),
        *("flattened", "fewer-rows", "float64", "int32", "empty"),
    ],
)
def test_problems_fail_whatever_the_tolerance(one: Array, two: Array, problem: str) -> None:
    comparison = compared(one, two, 1e9, 1e9)
    comparison.add("equal", ONES, ONES)
    assert not comparison.passed
    assert problem in "; ".join(comparison.problems)
    result = as_result("native", "y", comparison, "")
    assert result.status == "failed"
    assert problem in result.detail


@pytest.mark.parametrize("same", [NAN, INFINITE, -INFINITE], ids=["nan", "inf", "-inf"])
def test_equal_places_without_a_number_are_left_out(same: Array) -> None:
    comparison = compared(same, same.copy())
    assert comparison.passed
    assert (comparison.elements, comparison.not_finite) == (4, 2)
    off = same + np.float32(0.5)
    assert (compared(same, off).failed, compared(same, off).passed) == (4, False)
    result = as_result("native", "y", comparison, "numbers")
    assert result.detail == "numbers; 2 more are the same NaN or Inf in both"
    assert result.not_finite == 2


def test_nothing_finite_is_unproven() -> None:
    comparison = compared(NAN * np.nan, NAN * np.nan)
    result = as_result("native", "y", comparison, "numbers")
    assert result.status == "failed"
    assert result.detail.startswith("unproven: nothing finite could be compared, 6 values")


def test_nothing_compared_is_not_passed() -> None:
    assert not Comparison(Tolerance()).passed


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_], ids=lambda dtype: dtype.__name__)
def test_whole_numbers_are_compared_exactly(dtype: type[np.generic]) -> None:
    one = np.array([[0, 1], [1, 0]]).astype(dtype)
    two = np.array([[0, 1], [0, 0]]).astype(dtype)
    assert compared(one, one, 1.0, 1.0).passed
    comparison = compared(one, two, 1.0, 1.0)
    assert not comparison.passed
    assert (comparison.failed, comparison.worst, comparison.where) == (1, 1.0, "y[1, 0]")
    assert comparison.required_rtol == float("inf")


@pytest.mark.parametrize(
    ("rtol", "atol", "difference", "passes"),
    [
        (None, None, 1e-5, True),
        (None, None, 1e-3, True),
        (None, None, 1e-2, False),
        (0.0, 1e-3, 0.9e-3, True),
        (0.0, 1e-3, 1.1e-3, False),
        (1e-3, 0.0, 0.9e-3, True),
        (1e-3, 0.0, 1.1e-3, False),
        (1e-3, 1e-3, 1.9e-3, True),
        (1e-3, 1e-3, 2.1e-3, False),
        (1e-6, None, 0.9e-4, True),
        (1e-6, None, 1.1e-4, False),
    ],
)
def test_tolerance(rtol: float | None, atol: float | None, difference: float, passes: bool) -> None:
    """The number compared is 1, the largest is 100."""
    one = np.array([1.0, 100.0])
    tolerance = Tolerance(rtol if rtol is not None else 128 * 2.0**-23, atol)
    comparison = Comparison(tolerance)
    comparison.add("y", one, one + np.array([difference, 0]))
    assert comparison.passed == passes


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [("f4", 128 * 2.0**-23), ("f8", 128 * 2.0**-52), ("f2", 32 * 2.0**-10), ("i8", 0.0)],
)
def test_default_tolerance_follows_the_type(dtype: str, rtol: float) -> None:
    assert Tolerance().relative(np.dtype(dtype)) == rtol
    assert Tolerance(0.5).relative(np.dtype(dtype)) == 0.5


def test_worst_of_several_arrays_is_kept() -> None:
    comparison = Comparison(Tolerance())
    for label, amount in (("one", 1.0), ("two", 3.0), ("three", 2.0)):
        comparison.add(label, np.zeros(2), np.array([0, amount]))
    assert (comparison.worst, comparison.where, comparison.elements) == (3.0, "two[1]", 6)
    assert comparison.failed == 3
    assert "3 of 6 values differ, most at two[1]" in as_result("native", "y", comparison, "").detail


def jittered(one: Array, two: Array, *draws: Array, atol: float | None = None) -> Comparison:
    comparison = Comparison(Tolerance(atol=atol))
    comparison.add_all([Arrays("y", one, two, np.stack(draws))])
    return comparison


LARGE_AND_SMALL = np.array([[1e6, 1.0], [-2e6, 0.5]], np.float32)


def test_each_channel_has_its_scale_where_rounding_was_measured() -> None:
    off = LARGE_AND_SMALL + np.array([0, 1e-3], np.float32)
    assert compared(LARGE_AND_SMALL, off).passed
    comparison = jittered(LARGE_AND_SMALL, off, LARGE_AND_SMALL)
    assert (comparison.failed, comparison.magnitude) == (2, 1.0)
    assert comparison.where in ("y[0, 1]", "y[1, 1]")


def test_channels_share_their_scale_over_samples_and_positions() -> None:
    """A number near 0 in a channel of ones may be the difference of ones."""
    one = np.array([[[1.0, 1e-6]], [[1e-5, 1e-7]]], np.float32)
    assert jittered(one, one + np.float32(1e-5), one).passed
    assert not jittered(one[1:], one[1:] + np.float32(1e-5), one[1:]).passed


def test_what_rounding_does_is_allowed() -> None:
    one = np.full((2, 3), 1.0)
    moved = one + np.array([0, 0, 1e-3])
    within, beyond = (one + np.array([0, 0, FACTOR * by]) for by in (0.9e-3, 1.1e-3))
    assert jittered(one, within, one, moved).passed
    assert jittered(one, within, one, moved).required_rtol == 0
    assert not jittered(one, beyond, one, moved).passed
    assert not jittered(one, within, one, one).passed
    assert not jittered(one, within, one, moved, atol=1e-3).passed
    other_channel = one + np.array([0, FACTOR * 0.9e-3, 0])
    assert not jittered(one, other_channel, one, moved).passed


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_what_rounding_moves_noticeably_is_ill_conditioned(share: float) -> None:
    one = np.full((2, 3), 1.0)
    comparison = jittered(one, one, one * (1 + share))
    assert comparison.passed
    assert comparison.moved_by_rounding == pytest.approx(share if share > 0.01 else 0)
    comparison.add_all([Arrays("another kind", one, one, one)])
    assert comparison.moved_by_rounding == 0


def test_whole_numbers_that_rounding_changes_are_undecided() -> None:
    one, two, draw = np.array([[0, 1, 2]]), np.array([[0, 5, 2]]), np.array([[0, 3, 2]])
    assert not jittered(one, two, one).passed
    comparison = jittered(one, two, one, draw)
    assert comparison.passed
    assert (comparison.elements, comparison.undecided) == (2, 1)
    assert comparison.moved_by_rounding == pytest.approx(1 / 3)
    result = as_result("native", "y", comparison, "numbers")
    assert result.detail == "numbers; 1 more are decided by rounding alone"
    assert not jittered(one, np.array([[1, 1, 2]]), one, draw).passed


def test_numbers_that_rounding_makes_infinite_are_undecided() -> None:
    one, two = np.array([[1.0, -40.0]]), np.array([[1.0, -np.inf]])
    assert not jittered(one, two, one).passed
    comparison = jittered(one, two, one, two)
    assert (comparison.passed, comparison.elements, comparison.undecided) == (True, 1, 1)
    assert jittered(two, one, one).undecided == 1


def test_nothing_decided_is_measured_and_convicts_nobody() -> None:
    comparison = jittered(np.array([[1]]), np.array([[2]]), np.array([[2]]))
    assert as_result("native", "y", comparison, "numbers").status == "measured"
    different = jittered(np.array([[1]]), np.array([[2, 3]]), np.array([[2]]))
    assert as_result("native", "y", different, "numbers").status == "failed"


def test_whole_numbers_beyond_those_of_float64_are_exact() -> None:
    one = np.array([[2**60, 2**60]])
    assert not compared(one, one + np.array([0, 1])).passed


def test_a_failure_is_shown_before_larger_differences_that_pass() -> None:
    one = np.array([[1e6, 1.0]], np.float32)
    two = one + np.array([1, 1e-3], np.float32)
    comparison = jittered(one, two, one)
    assert comparison.where == "y[0, 1]"
    assert comparison.worst == pytest.approx(1e-3, rel=1e-3)
