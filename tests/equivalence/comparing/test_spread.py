"""Histogram and quantiles of relative errors."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fc2conv.equivalence.comparing.spread import BINS, ErrorSpread
from onnx_fc2conv.equivalence.reporting.results import TierResult


def spread_of(*relative: float) -> ErrorSpread:
    spread = ErrorSpread()
    spread.add(np.array(relative), np.ones(len(relative)))
    return spread


@pytest.mark.parametrize(
    ("relative", "number"),
    [
        *((0.0, 0), (1e-12, 0), (9.9e-10, 0), (2e-9, 1), (2e-8, 2), (3e-5, 5), (9e-3, 7)),
        *((2e-2, 8), (0.09, 8), (0.11, 9), (1.0, 9), (1e30, 9), (np.inf, 9)),
    ],
)
def test_bin(relative: float, number: int) -> None:
    histogram = spread_of(relative).histogram
    assert len(histogram) == len(BINS) == 10
    assert histogram[number] == sum(histogram) == 1


def test_any_error_of_a_zero_is_the_largest_and_none_is_the_smallest() -> None:
    spread = ErrorSpread()
    spread.add(np.array([1e-30, 0.0]), np.array([0.0, 0.0]))
    assert (spread.histogram[0], spread.histogram[-1]) == (1, 1)


def test_quantiles() -> None:
    errors = np.geomspace(1e-8, 1e-4, 1001)
    quantiles = spread_of(*errors).quantiles
    assert list(quantiles) == ["0.5", "0.9", "0.99"]
    for share, found in quantiles.items():
        assert found == pytest.approx(np.quantile(errors, float(share)), rel=0.13)
    assert spread_of(0.0, 0.0, 0.0).quantiles == {"0.5": 0.0, "0.9": 0.0, "0.99": 0.0}


def test_in_words() -> None:
    spread = spread_of(*[1e-7] * 100)
    result = TierResult("native", "y", "passed", "", 100, 1e-7, quantiles=spread.quantiles)
    assert result.spread_text == "50 % below 1e-07, 90 % below 1e-07, 99 % below 1e-07"
    assert TierResult("native", "y", "passed", "", 100, 0.0).spread_text == ""
