"""Tier *image windows*: every cell of a map is the original model on a crop of the image.

Cell p equals the whole original model on the crop at p·stride where no layer pads or sees the whole
image; elsewhere the deviation is measured, not asserted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import as_result
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.larger import Enlarged, chosen_cells, crops
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tiers.claims import wrong_window
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_image_windows", "windows_of"]

_TIER = "image windows"
_DRAWS = 8
"""Runs of the original that are rounded otherwise, before a difference counts."""

_ENOUGH = 3
"""Crops from which a deviation is estimated, where the models are slow."""


def check_image_windows(claim: Claim, *, measure: bool = True) -> list[TierResult]:
    """Compare the cells of every output whose geometry is known with crops of the image.

    Args:
        claim: The models, and the geometry to hold them to.
        measure: Whether cells that need not equal crops are compared too, to report how far off
            they are.
    """
    if not any(claim.pair.growing.values()):
        return []
    results: list[TierResult] = []
    for output in (*claim.larger.names, *claim.pair.missing):
        windows = windows_of(claim, output)
        if isinstance(windows, TierResult):
            results.append(windows)
        elif windows.meaning.windows_exact or measure:
            results.append(windows.check())
    return results


def windows_of(claim: Claim, output: str) -> _ImageWindows | TierResult:
    """The windows of an output, or why there are none."""

    def told(status: Status, why: str) -> TierResult:
        return TierResult(_TIER, output, status, why)

    pair, meaning = claim.pair, claim.geometry.get(output)
    if output in pair.missing:
        return told("failed", "the converted model has no such output")
    if meaning is None:
        return told("skipped", "where its cells lie in the image is not known")
    if 0 in meaning.stride:
        return told("skipped", f"one cell for an image of any size: {meaning.why}")
    if output in claim.seams.alike:
        return told("skipped", "a map of the original, which computes it at any size: no windows")
    images = [name for name, axes in pair.growing.items() if axes]
    if len(images) != 1:
        return told("skipped", "there are several image inputs")
    if (wrong := wrong_window(pair, meaning)) is not None:
        return told("failed", wrong)
    return _ImageWindows(claim, output, meaning)


@dataclass(frozen=True, eq=False)
class _ImageWindows:
    """The cells of one output, and the original model on their crops."""

    claim: Claim
    output: str
    meaning: Geometry

    def check(self) -> TierResult:
        """Compare them; where windows are not exact, only say how far they are apart."""
        pair, asserted = self.claim.pair, self.meaning.windows_exact
        comparison = pair.comparison(self.output)
        try:
            arrays = self._arrays(_ENOUGH if pair.is_heavy and not asserted else None)
        except (RunError, ValueError) as error:
            return TierResult(_TIER, self.output, "failed", str(error))
        pair.compare({self.output: comparison}, {self.output: arrays})
        if asserted and comparison.failed:  # more than rounding would do?
            comparison = pair.comparison(self.output)
            arrays = self._arrays(None, _DRAWS)
            pair.compare({self.output: comparison}, {self.output: arrays})
        if not asserted and not comparison.problems:
            return _measured(self.output, comparison, arrays)
        total = sum(len(array.converted) for array in arrays)
        what = (
            f"{total} cells at {self.claim.larger.sizes_text}, each the original model on its crop"
        )
        return as_result(_TIER, self.output, comparison, what)

    def _arrays(self, most: int | None, draws: int = 0) -> list[Arrays]:
        """The original's scores of the crops, and the cells; ``most`` of them, of one image.

        Raises:
            RunError: If a model does not run, or the cells are not as many as the crops.
        """
        pair, larger = self.claim.pair, self.claim.larger
        pairs = list(zip(larger.images, larger.got, strict=True))[: None if most is None else 1]
        # Only now the original: two large models are not in memory together.
        original = pair.compared(pair.reference)
        at_once = 1 if pair.is_heavy and pair.fixed_batch is None else pair.fixed_batch
        found: list[Arrays] = []
        for image, got in pairs:
            cells = larger.cells(self.output, image, got[self.output].shape)
            chosen = chosen_cells(pair, int(np.prod(cells)), most)
            feeds = self._crops(image, cells, chosen)
            expected = run_in_batches(original, feeds, [self.output], at_once)[self.output]
            rows = larger.rows(self.output, got[self.output], cells, chosen)
            drawn = pair.jittered(feeds, [self.output], draws)[self.output] if draws else None
            expected = expected.reshape(rows.shape)
            found.append(Arrays(f"{image} cell", expected, rows, drawn))
        return found

    def _crops(
        self, image: Enlarged, cells: Sequence[int], chosen: AnyArray | None
    ) -> dict[str, AnyArray]:
        """The inputs of the original model for every cell, or for those that were chosen."""
        pair, name = self.claim.pair, self.meaning.input
        axes = pair.growing[name]
        array = self._with_noise_beyond(image.feeds[name], axes)
        positions = list(np.ndindex(*cells))
        if chosen is not None:
            positions = [positions[number] for number in chosen]
        cut = crops(array, axes, self.meaning.window, self.meaning.stride, positions)
        count = len(cut) // image.batch
        return {
            own: cut if own == name else pair.repeated(own, other, count)
            for own, other in image.feeds.items()
        }

    def _with_noise_beyond(self, array: AnyArray, axes: Sequence[int]) -> AnyArray:
        """Extend the image by random pixels beyond its end, which must not change a score.

        If the strides of the layers leave pixels of the native size over, the last crops reach over
        the edge of the image with such pixels only.
        """
        shape = list(array.shape)
        for axis, rest in zip(axes, self.meaning.remainder, strict=True):
            shape[axis] += rest
        pair = self.claim.pair
        (own,) = (i for i in pair.inputs if i.name == self.meaning.input)
        kind = pair.kinds_of(("normal",))[0]
        wider = sample([own], {own.name: tuple(shape)}, kind, pair.rng(4))[own.name]
        wider[tuple(slice(length) for length in array.shape)] = array
        return wider


def _measured(output: str, comparison: Comparison, arrays: Sequence[Arrays]) -> TierResult:
    """Report how far the cells are from the original's scores of their crops."""
    relative: list[AnyArray] = []
    agreeing = 0
    for array in arrays:
        one, two = array.reference.astype(np.float64), array.converted.astype(np.float64)
        finite = np.isfinite(one).all(axis=1)
        one, two = one[finite], two[finite]
        relative.append(np.abs(one - two).max(axis=1) / (np.abs(one).max(axis=1) + 1e-12))
        agreeing += int((one.argmax(axis=1) == two.argmax(axis=1)).sum())
    differences = np.concatenate(relative)
    detail = (
        f"cells are not the crops' scores: over {len(differences)} windows of random images the "
        f"median relative difference is {float(np.median(differences)):.2g}, the largest score "
        f"agrees in {agreeing} of them"
    )
    return TierResult(
        _TIER, output, "measured", detail, comparison.elements, comparison.worst, None
    )
