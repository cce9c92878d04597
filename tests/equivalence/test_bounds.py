"""A-priori bounds: no right sum is further off, and a wrong one is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fc2conv.equivalence.bounds import gamma, largest_difference


@settings(max_examples=60, deadline=None)
@given(
    terms=st.integers(1, 600),
    seed=st.integers(0, 1 << 30),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_any_order_of_summation_is_within_the_bound(
    terms: int, seed: int, dtype: type[np.floating]
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, terms)).astype(dtype)
    w = rng.standard_normal((1, terms)).astype(dtype)
    sums = []
    for order in (np.arange(terms), np.arange(terms)[::-1], rng.permutation(terms)):
        total = dtype(0)
        for product in (x[0] * w[0])[order]:
            total = dtype(total + product)
        sums.append(float(total))
    bound = largest_difference(x, w)
    assert max(sums) - min(sums) <= bound[0, 0]


def test_bound_is_higham_s() -> None:
    x = np.array([[1.0, -2.0], [0.0, 0.0]])
    w = np.array([[3.0, 4.0]], np.float32)
    u = 2.0**-24
    expected = 2 * (2 * u / (1 - 2 * u)) * 11
    assert largest_difference(x, w)[0, 0] == pytest.approx(expected, rel=1e-12)
    assert largest_difference(x, w)[1, 0] < 1e-37


def test_a_wrong_product_is_beyond_it() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 64)), rng.standard_normal((3, 64)).astype(np.float32)
    wrong = w.copy()
    wrong[1, 7] *= np.float32(1.01)
    off = np.abs(x @ wrong.T.astype(np.float64) - x @ w.T.astype(np.float64))
    assert (off > largest_difference(x, w))[:, 1].any()


def test_long_sums_of_halves_have_no_bound() -> None:
    assert gamma(2000, np.dtype(np.float16)) is None
    assert gamma(100, np.dtype(np.float16)) == pytest.approx(0.0513, rel=0.01)
    assert np.isinf(largest_difference(np.ones((1, 2000)), np.ones((1, 2000), np.float16))).all()
