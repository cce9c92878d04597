"""A search for inputs at the native size on which the two models differ.

Random inputs seldom reach where a fault shows: behind a saturated softmax only a tie of two classes
tells their scores apart, and a unit that is silent on noise says nothing of its weights. So inputs
are searched for, without gradients:

1. images of every scale and offset;
2. between two of similar scale, where the original's outputs change most: bisection finds ties;
3. from where the models differ most, relative to the tolerance: random changes, the best survive.

What differs there is compared again, with what rounding alone does to it measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.batches import run_in_batches, to_reference_shape
from onnx_fc2conv.equivalence.running.samples import KINDS, sample
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["search"]

_MOST, _LEAST = 640, 64
"""Inputs that are tried, and so few that trying them would say little."""
_PRODUCTS = 100_000_000
"""Products of one model that a search may cost: about a twentieth of a second on one core."""
_AT_ONCE = 16
_DRAWS = 16
_SUSPECTS = 8
"""Inputs that are compared again, at most: with rounding measured."""

Outputs = Mapping[str, AnyArray]


def search(pair: Pair, comparisons: Mapping[str, Comparison]) -> int:
    """Search for inputs on which the models differ, and add what is found to the comparisons.

    Returns:
        The number of inputs that were tried: none where a run takes long, or takes several images.
    """
    budget = min(_MOST, _PRODUCTS // max(1, pair.products))
    if budget < _LEAST or any(shape[:1] != (1,) for shape in pair.batched(1).values()):
        return 0
    found = _Search(pair, comparisons, budget // _AT_ONCE)
    with contextlib.suppress(RunError, ValueError):  # on numbers that the original is not made for
        found.run()
    return found.tried


@dataclass
class _Points:
    """Inputs, one along each first axis, and what the models make of them.

    Attributes:
        feeds: The inputs in float64.
        expected: The reference's outputs.
        score: How far the models differ, as a multiple of the tolerance.
    """

    feeds: dict[str, AnyArray]
    expected: Outputs
    score: AnyArray

    def take(self, rows: AnyArray) -> _Points:
        return _Points(
            {name: array[rows] for name, array in self.feeds.items()},
            {name: array[rows] for name, array in self.expected.items()},
            self.score[rows],
        )


class _Search:
    def __init__(self, pair: Pair, comparisons: Mapping[str, Comparison], rounds: int) -> None:
        self.pair = pair
        self.rounds = rounds
        self.rng = pair.rng(12)
        self.tried = 0
        self.names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
        self.comparisons = comparisons
        self.sessions = [pair.compared(model) for model in pair.models]
        self.suspects = 0

    def run(self) -> None:
        best = self._evaluate(self._random(), "a random image")
        ends = [best, best.take(np.roll(np.arange(_AT_ONCE), 1))]
        for number in range(1, self.rounds):
            if number % 5 == 0:
                found = self._evaluate(self._random(), "a random image")
            elif number > self.rounds * 2 // 3:
                found = self._evaluate(self._changed(best), "an image changed at random")
            else:
                halves = {n: (a + ends[1].feeds[n]) / 2 for n, a in ends[0].feeds.items()}
                found = self._evaluate(halves, "a tie")
                nearer = self._change(ends[0], found) >= self._change(found, ends[1])
                ends = [_chosen(nearer, ends[0], found), _chosen(nearer, found, ends[1])]
            best = _chosen(found.score > best.score, found, best)

    def _random(self) -> dict[str, AnyArray]:
        """Images with rising scales of 0.01 to 1000, and offsets of that size."""
        drawn: list[dict[str, AnyArray]] = []
        shapes = self.pair.batched(1)
        for number in range(_AT_ONCE):
            feeds = sample(self.pair.inputs, shapes, KINDS[number % 3], self.rng)
            scale = 10.0 ** (5 * (number + self.rng.random()) / _AT_ONCE - 2)
            offset = self.rng.normal()
            drawn.append({n: (a.astype(np.float64) + offset) * scale for n, a in feeds.items()})
        return {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}

    def _changed(self, points: _Points) -> dict[str, AnyArray]:
        """Images with noise, another scale or offset, or with a part of another one."""
        return {name: self._mutated(array) for name, array in points.feeds.items()}

    def _mutated(self, array: AnyArray) -> AnyArray:
        rng, column = self.rng, (len(array), *[1] * (array.ndim - 1))
        size = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True) + 1e-3
        some = rng.random(array.shape) < rng.choice([0.02, 0.3, 1.0], column)
        noise = array + size * some * rng.standard_normal(array.shape)
        moved = array * rng.lognormal(0, 0.5, column) + size * rng.normal(0, 0.2, column)
        mixed = np.where(some, array[rng.permutation(len(array))], array)
        kind = rng.integers(3, size=column)
        return np.choose(kind, [noise, moved, mixed])

    def _evaluate(self, feeds: dict[str, AnyArray], label: str) -> _Points:
        """Run both models; compare what differs by more than the tolerance once more."""
        fed = {i.name: _typed(feeds[i.name], i.dtype, i.largest) for i in self.pair.inputs}
        self.tried += _AT_ONCE
        one, two = self.sessions
        expected = run_in_batches(one, fed, list(self.names), self.pair.fixed_batch)
        try:
            found = run_in_batches(two, fed, list(self.names.values()), None)
        except (RunError, ValueError) as error:
            for name in self.names:
                self.comparisons[name].problems.append(f"on {label} it does not run: {error}")
            raise
        got = {n: to_reference_shape(found[t], expected[n].shape) for n, t in self.names.items()}
        score = np.zeros(_AT_ONCE)
        for name, array in expected.items():
            self.comparisons[name].elements += int(np.isfinite(array).sum())
            score = np.maximum(score, self._differences(array, got[name], name))
        for row in np.argsort(-score)[: 2 if self.suspects < _SUSPECTS else 0]:
            if score[row] > 1:
                self._compare({n: a[row : row + 1] for n, a in fed.items()}, label)
        return _Points(feeds, expected, score)

    def _differences(self, one: AnyArray, two: AnyArray, name: str) -> AnyArray:
        """Return, by sample, the largest difference as a multiple of the tolerance."""
        if one.shape != two.shape or one.dtype != two.dtype:
            return np.zeros(len(one))  # the native tier says so
        one, two = one.reshape(len(one), -1), two.reshape(len(one), -1)
        if not np.issubdtype(one.dtype, np.floating):
            return np.where((one != two).any(axis=1), 2.0, 0.0)
        with np.errstate(all="ignore"):
            largest = np.abs(one).max(axis=1).astype(np.float64)
            difference = np.abs(one.astype(np.float64) - two).max(axis=1)
            tolerance = self.comparisons[name].tolerance
            allowed = tolerance.relative(one.dtype) * largest + (tolerance.atol or 0.0)
            score: AnyArray = np.nan_to_num(difference / np.maximum(allowed, 1e-300), nan=0.0)
        return score

    def _change(self, one: _Points, two: _Points) -> AnyArray:
        """Return, by sample, how much the reference's outputs change between two points."""
        total = np.zeros(_AT_ONCE)
        for name, array in one.expected.items():
            a, b = (x.reshape(_AT_ONCE, -1).astype(np.float64) for x in (array, two.expected[name]))
            if not np.issubdtype(array.dtype, np.floating):
                total += (a != b).mean(axis=1)
                continue
            with np.errstate(all="ignore"):
                change = np.abs(a - b).max(axis=1) / (np.abs(a) + np.abs(b)).max(axis=1)
            total += np.nan_to_num(change)
        return total

    def _compare(self, feeds: dict[str, AnyArray], label: str) -> None:
        """Compare the outputs on one input, with what rounding does to them."""
        self.suspects += 1
        fixed, names = self.pair.fixed_batch, list(self.names)
        expected = run_in_batches(self.sessions[0], feeds, names, fixed)
        got = run_in_batches(self.sessions[1], feeds, list(self.names.values()), None)
        jittered = self.pair.jittered(feeds, names, _DRAWS)
        ends = [float(end) for array in feeds.values() for end in (array.min(), array.max())]
        label = f"{label}, pixels of {min(ends):.3g} to {max(ends):.3g}, number {self.tried}"
        for name, own in self.names.items():
            shaped = to_reference_shape(got[own], expected[name].shape)
            arrays = Arrays(label, expected[name], shaped, jittered[name])
            self.comparisons[name].add_all([arrays])


def _chosen(first: AnyArray, one: _Points, two: _Points) -> _Points:
    """Return the points of one where ``first``, else of the other."""

    def choose(a: AnyArray, b: AnyArray) -> AnyArray:
        return np.where(first.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return _Points(
        {name: choose(array, two.feeds[name]) for name, array in one.feeds.items()},
        {name: choose(array, two.expected[name]) for name, array in one.expected.items()},
        choose(one.score, two.score),
    )


def _typed(array: AnyArray, dtype: np.dtype[np.generic], largest: int | None) -> AnyArray:
    """Return the nearest numbers of the type, and of the rows of a table."""
    if dtype == np.bool_:
        return array > 0.5
    if np.issubdtype(dtype, np.integer):
        ends = np.iinfo(dtype.name)
        low, high = (ends.min, ends.max) if largest is None else (0, largest)
        # 2^63 - 1 is no number of float64, which rounds it up.
        return np.clip(np.rint(array), low, min(high, 2**63 - 1024)).astype(dtype)
    limit = float(np.finfo(dtype.name).max)
    return np.clip(array, -limit, limit).astype(dtype)
