"""Comparing what two models compute, element by element."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import ml_dtypes
import numpy as np

from onnx_fc2conv.equivalence.comparing.spread import ErrorSpread
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["FACTOR", "Arrays", "Comparison", "Tolerance", "largest_magnitude"]


class Arrays(NamedTuple):
    """What two models give for the same samples.

    Attributes:
        label: What they are of, for reports.
        reference: The reference's array; axis 0 is samples, axis 1 channels.
        converted: The converted model's, of the same shape.
        jittered: The reference's where all is rounded otherwise (`rounding_otherwise`): of the same
            shape, or several of them on another first axis.
    """

    label: str
    reference: AnyArray
    converted: AnyArray
    jittered: AnyArray | None = None


FACTOR = 4.0
"""How many times the jitter of an output channel two right models may be apart."""

_CONDITIONED = 0.01
"""Where rounding moves numbers by more than this share, comparing them says little."""

_EPSILONS = 128.0
_EPSILONS_OF_HALVES = 32.0
"""float16 has so few digits that 128 units in the last place would be an eighth of the value."""
_EPSILONS_OF_BFLOATS = 8.0
"""bfloat16 has three bits fewer still."""
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Tolerance:
    """Two numbers agree if ``|a - b| ≤ atol + rtol·|a|``, a being the reference.

    By default they agree if they differ by no more than rounding does: the errors of a sum scale
    with its largest terms, so that each channel of an output has a tolerance of its own, by its
    largest magnitude; and where the model makes large errors of small ones (differences of almost
    equal numbers, functions of large ones), `FACTOR` times what other roundings do to the channel.

    Attributes:
        rtol: Relative tolerance; by default 128 units in the last place of the output's type
            (1.5e-5 in float32), 32 of float16 (3.1e-2), 8 of bfloat16 (6.3e-2).
        atol: Absolute tolerance; by default the larger of ``rtol`` times the channel's largest
            magnitude over the compared samples and `FACTOR` times its largest jitter.
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


@dataclass
class Comparison:
    """The running totals of a comparison, and its worst element.

    Attributes:
        tolerance: The tolerance.
        elements: Number of elements compared.
        failed: Number of elements outside the tolerance.
        worst: Largest absolute difference, of those outside the tolerance if there are any.
        magnitude: Largest magnitude of the reference in the channel with the worst difference.
        required_rtol: The smallest rtol that would have passed, with the default atol if none is
            given.
        problems: Why arrays cannot be compared (shape, NaN, missing output); any of them fails.
        where: Where the worst difference is.
        not_finite: Number of elements that are the same NaN or Inf in both models. They are not
            among the elements: a model may be undefined on an input, and be right.
        undecided: Number of elements, not among the others, that rounding changes in the reference
            itself: whole numbers (the index of the best of equal scores), or whether it is finite.
        shaken: By channel, the share of its largest magnitude by which rounding moves it, on those
            samples where that is least; 0 where that is hardly noticeable.
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
    undecided: int = 0
    shaken: AnyArray = field(default_factory=lambda: np.zeros(0))
    spread: ErrorSpread = field(default_factory=ErrorSpread)

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it agrees."""
        return self.elements > 0 and not self.differs

    @property
    def differs(self) -> bool:
        """Whether anything does not agree."""
        return self.failed > 0 or bool(self.problems)

    @property
    def moved_by_rounding(self) -> float:
        """The share of the output that rounding moves or decides; 0 where it hardly does."""
        undecided = self.undecided / max(self.undecided + self.elements, 1)
        shaken = float(self.shaken.max(initial=0.0))
        return max(shaken, undecided if undecided > _CONDITIONED else 0.0)

    def add(self, label: str, reference: AnyArray, converted: AnyArray) -> None:
        """Compare two arrays of the same shape; anything else is a problem."""
        self.add_all([Arrays(label, reference, converted)])

    def add_all(self, arrays: Sequence[Arrays], floor: float = 0.0) -> None:
        """Compare arrays of the same channels, which share their scales of rounding errors.

        Without jitter the scale is one, that of the largest number of all, ``floor`` at least: a
        channel may be the small difference of large terms.
        """
        groups: dict[int, list[_Numbers]] = defaultdict(list)
        for each in arrays:
            label, one, two = each[:3]
            if one.shape != two.shape:
                self._problem(f"{label}: shape {list(two.shape)}, not {list(one.shape)}")
            elif one.dtype != two.dtype:
                self._problem(f"{label}: type {two.dtype}, not {one.dtype}")
            elif one.size == 0:
                self._problem(f"{label}: nothing to compare, it is empty")
            else:
                numbers = _Numbers(each)
                groups[numbers.one.shape[1]].append(numbers)
        for group in groups.values():
            largest = np.max([numbers.largest for numbers in group], axis=0)
            if not any(numbers.is_jittered for numbers in group):
                largest = np.full_like(largest, max(largest.max(), floor))
            jitter = np.max([numbers.jitter for numbers in group], axis=0)
            factor = FACTOR if self.tolerance.rtol is None else 0.0  # the user has decided
            shares = jitter / np.where(largest > 0, largest, np.inf)
            noticeable = max(_CONDITIONED, self.tolerance.relative(group[0].dtype))
            shares = np.where(shares > noticeable, shares, 0.0)
            known = self.shaken if self.shaken.size == shares.size else np.inf
            self.shaken = np.minimum(known, shares)
            for numbers in group:
                self._add(numbers, largest[:, None], factor * jitter[:, None])

    def _add(self, numbers: _Numbers, largest: AnyArray, jitter: AnyArray) -> None:
        compared = int(numbers.compared.sum())
        self.elements += compared
        self.undecided += int((~numbers.decided).sum())
        self.not_finite += int((numbers.decided & ~numbers.compared).sum())
        for text in numbers.problems:
            self._problem(text)
        if not compared:
            return
        size, difference = np.abs(numbers.one), numbers.difference
        rtol, atol = self.tolerance.relative(numbers.dtype), self.tolerance.atol
        if not np.issubdtype(numbers.dtype, np.floating):
            failed = numbers.differs
            self.required_rtol = float("inf") if failed.any() else self.required_rtol
        else:
            self.spread.add(difference[numbers.compared], size[numbers.compared])
            allowed = np.maximum(rtol * largest, jitter) if atol is None else atol
            with np.errstate(invalid="ignore"):
                failed = difference > allowed + rtol * size
            self._require(difference, size, largest, jitter)
        self._locate(numbers, failed)
        self.failed += int(failed.sum())

    def _locate(self, numbers: _Numbers, failed: AnyArray) -> None:
        """Remember the worst difference and where it is."""
        shown = np.where(failed, numbers.difference, 0.0) if failed.any() else numbers.difference
        is_first = not self.where or (failed.any() and not self.failed)
        if not is_first and (shown.max() <= self.worst or (self.failed and not failed.any())):
            return
        self.worst = float(shown.max())
        place = np.unravel_index(int(shown.argmax()), shown.shape)
        self.magnitude = float(numbers.largest[place[1]])
        position = np.unravel_index(int(shown.argmax()), numbers.shape)
        self.where = f"{numbers.label}{[int(axis) for axis in position]}"

    def _require(
        self, difference: AnyArray, size: AnyArray, largest: AnyArray, jitter: AnyArray
    ) -> None:
        atol = self.tolerance.atol
        with np.errstate(divide="ignore", invalid="ignore"):
            if atol is None:
                needed = np.minimum(difference / (size + largest), (difference - jitter) / size)
                needed = np.where(difference <= jitter, 0.0, needed)
            else:
                needed = np.where(difference <= atol, 0.0, (difference - atol) / size)
        self.required_rtol = max(self.required_rtol, float(needed.max()))

    def _problem(self, text: str) -> None:
        if text not in self.problems and len(self.problems) < 5:
            self.problems.append(text)


class _Numbers:
    """The numbers of two arrays as [samples, channels, positions], in float64.

    Attributes:
        one: The reference's.
        is_jittered: Whether it was measured what rounding does.
        decided: Which of them rounding leaves as they are: whole numbers, and what is finite.
        compared: Which of those are finite in both models.
        difference: The absolute differences of those that are compared, else 0.
        differs: Which of those are not exactly equal.
        largest: The reference's largest magnitude, by channel.
        jitter: How far rounding moves the reference at most, by channel.
        problems: What is NaN or Inf in one model only.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.label, reference, converted, jittered = arrays
        self.shape, self.dtype = reference.shape, reference.dtype
        self.is_jittered = jittered is not None
        if self.dtype == BFLOAT16:  # NumPy does not count it among its floating-point types
            self.dtype = np.dtype(np.float32)
        layout = (*self.shape[:2], -1) if reference.ndim > 1 else (1, 1, -1)
        one, two = (a.astype(np.float64).reshape(layout) for a in (reference, converted))
        draws = reference[None] if jittered is None else jittered.reshape(-1, *self.shape)
        draws = draws.astype(np.float64).reshape(-1, *one.shape)
        finite = np.isfinite(one)
        if np.issubdtype(self.dtype, np.floating):
            self.decided = (np.isfinite(draws) == finite).all(axis=0)
        else:
            self.decided = (draws == one).all(axis=0)
        self.one, self.compared = one, self.decided & finite & np.isfinite(two)
        differs = (reference != converted).reshape(layout) & self.decided
        self.differs = differs & self.compared
        with np.errstate(invalid="ignore"):
            self.difference = np.where(self.compared, np.abs(one - two), 0.0)
            moved = np.where(self.compared, np.abs(draws - one), 0.0)
        self.largest = np.where(self.compared, np.abs(one), 0.0).max(axis=(0, 2))
        self.jitter = moved.max(axis=(0, 1, 3))
        other = differs & ~self.compared & ~(np.isnan(one) & np.isnan(two))
        bad = {
            name: int((~np.isfinite(array) & other).sum())
            for name, array in (("the reference", one), ("the converted model", two))
        }
        self.problems = [
            f"{self.label}: {count} of {one.size} values of {name} are NaN or Inf, and not in the "
            "other model"
            for name, count in bad.items()
            if count
        ]


def largest_magnitude(array: AnyArray) -> float:
    """The largest finite magnitude."""
    if not np.issubdtype(array.dtype, np.floating):
        return 0.0
    finite = array[np.isfinite(array)]
    return float(np.abs(finite.astype(np.float64)).max(initial=0.0))
