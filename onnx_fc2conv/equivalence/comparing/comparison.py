"""Comparing what two models compute, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from onnx_fc2conv.equivalence.comparing.spread import ErrorSpread
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Arrays", "Comparison", "Tolerance", "largest_magnitude"]

Arrays = tuple[str, AnyArray, AnyArray]
"""Arrays to compare: a label, the reference's array, the converted model's."""

_EPSILONS = 128.0
_EPSILONS_OF_HALVES = 32.0
"""float16 has so few digits that 128 units in the last place would be an eighth of the value."""
_EPSILONS_OF_BFLOATS = 8.0
"""bfloat16 has three bits fewer still."""
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Tolerance:
    """Two numbers agree if ``|a - b| ≤ atol + rtol·|a|``, a being the reference.

    Attributes:
        rtol: Relative tolerance; by default 128 units in the last place of the output's type
            (1.5e-5 in float32), 32 of float16 (3.1e-2), 8 of bfloat16 (6.3e-2).
        atol: Absolute tolerance; by default ``rtol`` times the largest magnitude in the output,
            since the rounding errors of a sum scale with its largest terms, not with the sum.
        computed_in: The type that the model computes in, where its outputs are cast to a finer one.
    """

    rtol: float | None = None
    atol: float | None = None
    computed_in: np.dtype[np.generic] | None = None

    def relative(self, dtype: np.dtype[np.generic]) -> float:
        """The relative tolerance for outputs of this type."""
        if self.rtol is not None:
            return self.rtol
        if not np.issubdtype(dtype, np.floating):
            return 0.0
        return max(_units(dtype), 0.0 if self.computed_in is None else _units(self.computed_in))


def _units(dtype: np.dtype[np.generic]) -> float:
    if dtype == BFLOAT16:
        return _EPSILONS_OF_BFLOATS * 2.0**-7
    units = _EPSILONS_OF_HALVES if dtype == np.float16 else _EPSILONS
    return units * float(np.finfo(dtype.name).eps)


def _widened(array: AnyArray) -> AnyArray:
    """NumPy does not count bfloat16 among its floating-point types; float32 holds its numbers."""
    return array.astype(np.float32) if array.dtype == BFLOAT16 else array


@dataclass
class Comparison:
    """The running totals of a comparison, and its worst element.

    Attributes:
        tolerance: The tolerance.
        elements: Number of elements compared.
        failed: Number of elements outside the tolerance.
        worst: Largest absolute difference.
        magnitude: Largest magnitude of the reference in the arrays with the worst difference.
        required_rtol: The smallest rtol that would have passed, with the default atol if none is
            given.
        problems: Why arrays cannot be compared (shape, NaN, missing output); any of them fails.
        where: Where the worst difference is.
        not_finite: Number of elements that are the same NaN or Inf in both models. They are not
            among the elements: a model may be undefined on an input, and be right.
        spread: How the relative errors are spread.
    """

    tolerance: Tolerance
    elements: int = 0
    failed: int = 0
    worst: float = 0.0
    magnitude: float = 0.0
    required_rtol: float = 0.0
    problems: list[str] = field(default_factory=list)
    where: str = ""
    not_finite: int = 0
    spread: ErrorSpread = field(default_factory=ErrorSpread)

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it agrees."""
        return self.elements > 0 and self.failed == 0 and not self.problems

    def add(self, label: str, reference: AnyArray, converted: AnyArray) -> None:
        """Compare two arrays of the same shape; anything else is a problem."""
        self.add_all([(label, reference, converted)])

    def add_all(self, arrays: Sequence[Arrays], floor: float = 0.0) -> None:
        """Compare arrays that share one scale of rounding errors.

        The default atol follows the largest magnitude over all of them, ``floor`` at least: a
        single number may be the small difference of large terms.
        """
        arrays = [(label, _widened(one), _widened(two)) for label, one, two in arrays]
        largest = max((largest_magnitude(reference) for _, reference, _ in arrays), default=0.0)
        largest = max(largest, floor)
        for label, reference, converted in arrays:
            self._add(label, reference, converted, largest)

    def _add(self, label: str, reference: AnyArray, converted: AnyArray, largest: float) -> None:
        if reference.shape != converted.shape:
            self._problem(f"{label}: shape {list(converted.shape)}, not {list(reference.shape)}")
            return
        if reference.dtype != converted.dtype:
            self._problem(f"{label}: type {converted.dtype}, not {reference.dtype}")
            return
        if reference.size == 0:
            self._problem(f"{label}: nothing to compare, it is empty")
            return
        if not np.issubdtype(reference.dtype, np.floating):
            self.elements += reference.size
            self._exact(label, reference, converted)
            return
        one, two = reference.astype(np.float64), converted.astype(np.float64)
        finite = np.isfinite(one) & np.isfinite(two)
        if not finite.all() and not self._same_where_not_finite(label, one, two, finite):
            return
        compared = int(finite.sum())
        self.not_finite += finite.size - compared
        self.elements += compared
        if not compared:
            return
        rtol = self.tolerance.relative(reference.dtype)
        with np.errstate(invalid="ignore"):
            size = np.where(finite, np.abs(one), 0.0)
            difference = np.where(finite, np.abs(one - two), 0.0)
        self.spread.add(difference[finite], size[finite])
        atol = self.tolerance.atol
        allowed = (rtol * largest if atol is None else atol) + rtol * size
        self.failed += int((difference > allowed).sum())
        self._require(difference, size, largest)
        self._locate(label, difference, largest)

    def _locate(self, label: str, difference: AnyArray, largest: float) -> None:
        """Remember the worst difference and where it is."""
        if self.where and difference.max() <= self.worst:
            return
        self.worst = float(difference.max())
        self.magnitude = largest
        position = np.unravel_index(int(difference.argmax()), difference.shape)
        self.where = f"{label}{[int(axis) for axis in position]}"

    def _require(self, difference: AnyArray, size: AnyArray, largest: float) -> None:
        atol = self.tolerance.atol
        beyond = difference if atol is None else np.maximum(difference - atol, 0.0)
        scale = size + (largest if atol is None else 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(beyond == 0, 0.0, beyond / scale)
        self.required_rtol = max(self.required_rtol, float(needed.max()))

    def _exact(self, label: str, reference: AnyArray, converted: AnyArray) -> None:
        different = reference != converted
        if not different.any():
            return
        self.failed += int(different.sum())
        self.required_rtol = float("inf")
        one, two = reference.astype(np.float64), converted.astype(np.float64)
        self._locate(label, np.abs(one - two), float(np.abs(one).max()))

    def _same_where_not_finite(
        self, label: str, one: AnyArray, two: AnyArray, finite: AnyArray
    ) -> bool:
        """Whether every NaN is NaN in both models, and every Inf the same Inf; else a problem."""
        left, right = one[~finite], two[~finite]
        other = (left != right) & ~(np.isnan(left) & np.isnan(right))
        if not other.any():
            return True
        for name, array in (("the reference", left), ("the converted model", right)):
            bad = int((~np.isfinite(array) & other).sum())
            if bad:
                self._problem(
                    f"{label}: {bad} of {one.size} values of {name} are NaN or Inf, and not in "
                    "the other model"
                )
        return False

    def _problem(self, text: str) -> None:
        if text not in self.problems and len(self.problems) < 5:
            self.problems.append(text)


def largest_magnitude(array: AnyArray) -> float:
    """The largest finite magnitude."""
    if not np.issubdtype(array.dtype, np.floating):
        return 0.0
    finite = array[np.isfinite(array)]
    return float(np.abs(finite.astype(np.float64)).max(initial=0.0))
