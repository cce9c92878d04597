"""A-priori bounds of rounding errors: how far two right sums of the same products can be apart.

Whatever the order in which n products are added, with or without fused multiply-add, the computed
sum is at most γₙ·Σ|x||w| off, where γₙ = n·u / (1 - n·u) and u is half a unit in the last place
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., eqs. 3.5 and 3.12). Two such
sums are at most twice that apart. There is nothing to tune.
"""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.labels import AnyArray

__all__ = ["gamma", "largest_difference"]


def gamma(terms: int, dtype: np.dtype[np.generic]) -> float | None:
    """γₙ for sums of n products; None where n·u is so large that it bounds nothing."""
    product = terms * float(np.finfo(dtype.name).eps) / 2
    return product / (1 - product) if product < 0.5 else None


def largest_difference(operand: AnyArray, weight: AnyArray, terms: int | None = None) -> AnyArray:
    """By how much two products may differ: 2γₙ·Σ|x||w|, and half the smallest number each.

    Args:
        operand: [N, D].
        weight: [K, D], of the type that is computed in.
        terms: Number of rounding errors on the way to a sum; by default D.

    Returns:
        [N, K] in float64; infinite where there is no bound.
    """
    factor = gamma(operand.shape[1] if terms is None else terms, weight.dtype)
    if factor is None:
        return np.full((len(operand), len(weight)), np.inf)
    sums = np.abs(operand.astype(np.float64)) @ np.abs(weight.astype(np.float64)).T
    tiny = float(np.finfo(weight.dtype.name).smallest_normal) * operand.shape[1]
    bound: AnyArray = 2 * factor * sums + tiny
    return bound
