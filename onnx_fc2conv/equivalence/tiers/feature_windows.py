"""Tiers *larger sizes* and *feature windows*: the converted outputs on larger images.

Where the original, freed of its fixed size, computes an output of the same shape, the two must be
equal (*larger sizes*). Elsewhere cell p of the converted output must equal the original head on the
windows at p of the maps that the head reads (*feature windows*), and the maps come from the freed
original: the converted model gives nothing but the numbers that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import as_result
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.batches import to_reference_shape
from onnx_fc2conv.equivalence.running.larger import Enlarged, chosen_cells
from onnx_fc2conv.equivalence.running.roundings import moved_inputs
from onnx_fc2conv.equivalence.tracing.seam import Seam
from onnx_fc2conv.equivalence.tracing.windowed_head import WindowedHead
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_feature_windows", "check_same_sizes"]

_TIER = "feature windows"
_DRAWS = 8
"""Runs of the original that are rounded otherwise, before a difference counts."""


def check_same_sizes(claim: Claim) -> list[TierResult]:
    """Compare the outputs that the freed original computes in the same shape."""
    results: list[TierResult] = []
    for name in claim.seams.alike:
        comparison = _compared_alike(claim, name)
        if comparison.failed:
            comparison = _compared_alike(claim, name, _DRAWS)
        what = f"at {claim.larger.count_text}, as the original freed of its size computes it"
        results.append(as_result("larger sizes", name, comparison, what))
    return results


def _compared_alike(claim: Claim, name: str, draws: int = 0) -> Comparison:
    pair, larger, seams = claim.pair, claim.larger, claim.seams
    comparison = pair.comparison(name)
    arrays: list[Arrays] = []
    for image, got in zip(larger.images, larger.got, strict=True):
        expected = seams.freed.run(image.feeds, [name]).get(name)
        if expected is None:
            comparison.problems.append(f"at {image} only the converted model computes it")
            continue
        drawn = [
            seams.freed_otherwise.run(moved_inputs(image.feeds, pair.rng(12, draw)), [name])[name]
            for draw in range(draws)
        ]
        shaped = to_reference_shape(got[name], expected.shape)
        arrays.append(Arrays(str(image), expected, shaped, np.stack(drawn) if drawn else None))
    pair.compare({name: comparison}, {name: arrays})
    return comparison


def check_feature_windows(claim: Claim) -> list[TierResult]:
    """Compare every cell of the other outputs with the original head on its windows."""
    pair = claim.pair
    if not any(pair.growing.values()):
        why = "the converted model takes the native size only"
        return [_result(output, "skipped", why) for output in pair.outputs]
    if claim.larger_sizes == "none":
        return [_result("all outputs", "skipped", claim.relation.words)]
    claim.larger.shapes()  # the converted model has to run there
    results: list[TierResult] = []
    for output in (*claim.larger.names, *pair.missing):
        if output in claim.seams.alike:
            continue
        if output in pair.missing:
            results.append(_result(output, "failed", "the converted model has no such output"))
            continue
        try:
            results += _check(claim, output)
        except (RunError, InvalidModelError, ValueError) as error:
            results.append(_result(output, "failed", str(error)))
    return results


def _check(claim: Claim, output: str) -> list[TierResult]:
    """Compare an output by the first seam that holds.

    A head that pads, behind a part of the trunk that does not run on a larger image, is no function
    of windows: then another seam says something else of the original itself, and is taken instead.
    """
    meaning = claim.geometry.get(output)
    if not claim.larger.axes[output] and meaning is not None and 0 not in meaning.stride:
        return [_result(output, "failed", "it has no further cells on a larger image")]
    tried: list[_FeatureWindows] = []
    for seam in claim.seams.of(output):
        if not claim.larger.axes[output] and output not in claim.larger.reduced:
            return _maps_before(claim, output, seam)
        windows = _FeatureWindows(claim, output, seam)
        result = windows.result
        if result.status == "passed" and not any(map(windows.agrees, tried)):
            return [result]
        tried.append(windows)
    if tried:
        return [tried[0].result]
    why = "not traced: the original computes no map on a larger image over which it slides"
    return [_result(output, "skipped", why)]


def _maps_before(claim: Claim, output: str, seam: Seam) -> list[TierResult]:
    """Compare the maps of an output that the original computes at the native size only."""
    pair, larger, seams = claim.pair, claim.larger, claim.seams
    names = [m.name for m in seam.maps if m.name in seams.twins]
    comparison = pair.comparison(output)
    for image in larger.images:
        one = seams.freed.run(image.feeds, names)
        two = seams.maps(image.feeds, names, seams.twins)
        for name in one:
            comparison.add(f"{name} at {image}", one[name], two[name])
    why = "one cell, which the original head computes at the native size only"
    results = [_result(output, "skipped", why)]
    if comparison.elements:
        what = f"{', '.join(names)} at {larger.sizes_text}, as the original computes them"
        results.append(as_result(_TIER, f"maps before {output}", comparison, what))
    return results


class _FeatureWindows:
    """The feature windows of one output, by one of its seams."""

    def __init__(self, claim: Claim, output: str, seam: Seam) -> None:
        self.pair, self.larger, self.seams = claim.pair, claim.larger, claim.seams
        self.output, self.seam = output, seam
        self.head = WindowedHead(claim.pair, claim.pair.reference, output, seam)
        self._head_otherwise: WindowedHead | None = None
        meaning = claim.geometry.get(output)
        self.reduction = None if meaning is None else meaning.reduction

    def agrees(self, other: _FeatureWindows) -> bool:
        """Whether the original says the same by another seam, where both have windows."""
        comparison = self.pair.comparison(self.output)
        fine = [slice(None, None, every) for every in self.seam.every]
        for image, got in zip(self.larger.images, self.larger.got, strict=True):
            try:
                one, two = (windows.all_of(image, got) for windows in (self, other))
            except RunError:
                return False
            comparison.add(str(image), one, two[(slice(None), *fine)])
        return comparison.passed

    def all_of(self, image: Enlarged, got: Mapping[str, AnyArray]) -> AnyArray:
        """What the original says of all windows: [batch, *cells, numbers of a cell]."""
        maps = self._maps(image.feeds)
        cells = self._cells(image, got, maps)
        return self.head.scores(image.feeds, maps, cells).reshape(image.batch, *cells, -1)

    @cached_property
    def result(self) -> TierResult:
        """The comparison of all cells."""
        try:
            comparison, count = self._compared()
            if comparison.failed:  # more than rounding would do?
                comparison, count = self._compared(_DRAWS)
        except (RunError, InvalidModelError, ValueError) as error:
            return _result(self.output, "failed", str(error))
        maps = ", ".join(f"{m.name} {list(m.extent)}" for m in self.seam.maps)
        what = f"{count} cells at {self.larger.sizes_text}, each the head on its window of {maps}"
        if self.reduction is not None:
            what = f"the {self.reduction} over {what}"
        if set(self.seam.every) - {1}:
            what += f"; one in {'×'.join(map(str, self.seam.every))} cells"
        if self.seam.twins.keys() & {m.name for m in self.seam.maps}:
            what += " (maps of the converted model: the original's trunk has its size written in)"
        return as_result(_TIER, self.output, comparison, what)

    def _compared(self, draws: int = 0) -> tuple[Comparison, int]:
        comparison = self.pair.comparison(self.output)
        arrays: list[Arrays] = []
        count = 0
        for image, got in zip(self.larger.images, self.larger.got, strict=True):
            maps = self._maps(image.feeds)
            cells = self._cells(image, got, maps)
            dense, chosen = got[self.output], None
            if self.reduction is None:
                chosen = chosen_cells(self.pair, prod(cells))
                dense = self.larger.rows(self.output, dense, cells, chosen, self.seam.every)
            expected = self.head.scores(image.feeds, maps, cells, chosen)
            count += len(expected)
            expected = self._reduced(expected, image.batch)
            jittered = [
                self._reduced(self._otherwise(image.feeds, cells, chosen, draw), image.batch)
                for draw in range(draws)
            ]
            drawn = np.stack(jittered) if draws else None
            arrays.append(Arrays(f"{image} cell", expected, dense.reshape(expected.shape), drawn))
        self.pair.compare({self.output: comparison}, {self.output: arrays})
        return comparison, count

    def _reduced(self, cells: AnyArray, batch: int) -> AnyArray:
        """The mean or maximum over the cells of each image, if the output is that."""
        if self.reduction is None:
            return cells
        over = np.mean if self.reduction == "mean" else np.max
        return np.asarray(over(cells.reshape(batch, -1, cells.shape[-1]), axis=1))

    def _otherwise(
        self,
        feeds: Mapping[str, AnyArray],
        cells: Sequence[int],
        chosen: AnyArray | None,
        draw: int,
    ) -> AnyArray:
        """What the original says of the windows when everything is rounded otherwise."""
        moved = moved_inputs(feeds, self.pair.rng(12, draw))
        maps = self._maps(feeds)
        inner = [name for name in maps if name not in feeds and name not in self.seam.twins]
        maps |= self.seams.freed_otherwise.run(moved, inner)
        if self._head_otherwise is None:
            jittery = self.pair.jittery
            self._head_otherwise = WindowedHead(self.pair, jittery, self.output, self.seam)
        maps = moved_inputs(maps, self.pair.rng(12, draw))
        return self._head_otherwise.scores(moved, maps, cells, chosen)

    def _maps(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        names = [m.name for m in self.seam.maps]
        found = self.seams.maps(feeds, names, self.seam.twins)
        if lacking := set(names) - found.keys():
            raise RunError(f"the original does not compute {', '.join(lacking)} there")
        return found

    def _cells(
        self, image: Enlarged, got: Mapping[str, AnyArray], maps: Mapping[str, AnyArray]
    ) -> tuple[int, ...]:
        """The windows along each axis."""
        if self.reduction is not None:
            (only,) = {m.count(maps[m.name].shape) for m in self.seam.maps}
            return only
        return self.head.cells(self.larger.cells(self.output, image, got[self.output].shape), maps)


def _result(output: str, status: Status, why: str) -> TierResult:
    return TierResult(_TIER, output, status, why)
