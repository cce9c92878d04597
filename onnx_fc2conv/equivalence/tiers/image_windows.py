"""Tier *image windows*: every cell of a map is the original model on a crop of the image.

Cell p equals the whole original model on the crop at p·stride where no layer pads or sees the whole
image; elsewhere the deviation is measured, not asserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.larger import (
    Enlarged,
    cells,
    chosen_cells,
    crops,
    enlarged,
    sizes_text,
    take,
)
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_image_windows"]

_TIER = "image windows"
_ASSERTED = ("image-like", "normal", "uniform")
_MEASURED = ("image-like",) * 3

_ENOUGH = 4
"""Crops per image from which a deviation is estimated, where the models are slow."""


def check_image_windows(  # noqa: PLR0913 - which windows, in the words of the geometry
    pair: Pair,
    output: str,
    strides: Mapping[str, Sequence[int]],
    *,
    asserted: bool,
    extent: Sequence[int] = (),
    reach: Sequence[int] = (),
) -> list[TierResult]:
    """Compare every cell with the original model on the crop of the image at p·stride.

    An output that is a feature map of the original has several cells for each crop.

    Args:
        pair: The models.
        output: Name of the output.
        strides: By input, the distance in pixels between neighboring windows per growing axis.
        asserted: Whether the cells must be equal; otherwise the deviation is only reported.
        extent: Number of cells of one crop, along each axis; by default 1.
        reach: Exclusive bound on the pixels that the strides leave over at the end of a crop, per
            growing axis; by default the strides.
    """
    images = {name: axes for name, axes in pair.growing.items() if axes}
    if output in pair.missing:
        why = "the converted model has no such output"
        return [TierResult(_TIER, output, "failed", why)]
    if len(images) != 1:
        why = "there are several image inputs" if images else "the converted model takes no other"
        return [TierResult(_TIER, output, "skipped", why)]
    ((image, axes),) = images.items()
    stride = strides[image]
    if len(axes) != len(stride):
        why = f"axes {list(axes)} of {image} are free, but its windows move along {len(stride)}"
        return [TierResult(_TIER, output, "failed", why)]
    windows = _ImageWindows(
        pair,
        output,
        image,
        stride,
        tuple(extent) or (1,) * len(stride),
        tuple(reach) or tuple(stride),
    )
    most = _ENOUGH if pair.is_heavy and not asserted else None
    try:
        arrays = windows.arrays(strides, pair.kinds_of(_ASSERTED if asserted else _MEASURED), most)
    except (RunError, ValueError) as error:
        return [TierResult(_TIER, output, "failed", str(error))]
    comparisons = {name: pair.comparison(name) for name in arrays}
    pair.compare(comparisons, arrays)
    if not asserted and not comparisons[output].problems:
        return [_measured(output, comparisons[output], arrays[output])]
    total = sum(len(dense) for _, _, dense in arrays[output])
    what = f"{total} cells at {sizes_text(pair)}, each the original model on its crop"
    return [as_result(_TIER, pair.subject(name), c, what) for name, c in comparisons.items()]


@dataclass(frozen=True, eq=False)
class _ImageWindows:
    """The cells of one output (and its logits), and the original model on their crops.

    Attributes:
        pair: The models.
        output: Name of the output.
        image: Name of the image input.
        stride: Pixels between neighboring windows, per growing axis.
        extent: Number of cells of one window, per growing axis.
        reach: Exclusive bound on the pixels by which a last window may leave the image, likewise.
        names: The compared tensors: converted names by reference names.
    """

    pair: Pair
    output: str
    image: str
    stride: Sequence[int]
    extent: tuple[int, ...]
    reach: Sequence[int]
    names: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        logits = self.pair.logits.get(self.output)
        names = {self.output: self.output} | (dict([logits]) if logits is not None else {})
        object.__setattr__(self, "names", names)

    def arrays(
        self, strides: Mapping[str, Sequence[int]], kinds: Sequence[str], most: int | None = None
    ) -> dict[str, list[Arrays]]:
        """Return the original's scores of the crops, and the cells, by name; ``most`` per image.

        Raises:
            RunError: If a model does not run, or the cells are not as many as the crops.
        """
        pair = self.pair
        images = list(enlarged(pair, strides, kinds))
        got = self._run_converted(images)
        # Only then the original: two large models are not in memory together.
        original = pair.compared(pair.reference)
        at_once = 1 if pair.is_heavy and pair.fixed_batch is None else pair.fixed_batch
        found: dict[str, list[Arrays]] = {name: [] for name in self.names}
        for image, dense_of in zip(images, got, strict=True):
            grid = self._grid(image, dense_of[self.output].shape)
            chosen = chosen_cells(pair, int(np.prod(grid)), most)
            feeds = self._crops(image, grid, chosen)
            expected = run_in_batches(original, feeds, list(self.names), at_once)
            for name in self.names:
                dense = self._cells(dense_of[name], image.batch, grid)
                if dense is None:
                    raise RunError(self._other_cells(image, dense_of[name].shape))
                dense = take(dense, image.batch, chosen)
                label = f"{image} cell"
                found[name].append((label, expected[name].reshape(len(dense), -1), dense))
        return found

    def _run_converted(self, images: Sequence[Enlarged]) -> list[dict[str, AnyArray]]:
        """The map of each image (and its logits), by the names of the reference."""
        own = list(dict.fromkeys(self.names.values()))
        converted = self.pair.compared(self.pair.converted)
        found: list[dict[str, AnyArray]] = []
        for image in images:
            got = converted.run(image.feeds, own)
            found.append({name: got[two] for name, two in self.names.items()})
        return found

    def _grid(self, image: Enlarged, shape: Sequence[int]) -> tuple[int, ...]:
        """The cells of the output along each axis.

        There may be more than crops: if the strides of the layers leave pixels of the native
        size over, the last crops reach over the edge of the image with such pixels only.
        """
        native = self.pair.native[self.image]
        array = image.feeds[self.image]
        sizes = [array.shape[axis] - native[axis] for axis in self.pair.growing[self.image]]
        given = shape[max(0, len(shape) - len(sizes)) :]
        grid = tuple(count - own + 1 for count, own in zip(given, self.extent, strict=False))
        fits = len(grid) == len(sizes) and all(
            size // step + 1 <= count <= (size + reach - 1) // step + 1
            for count, size, step, reach in zip(grid, sizes, self.stride, self.reach, strict=True)
        )
        if not fits:
            raise RunError(self._other_cells(image, shape))
        return grid

    def _cells(self, array: AnyArray, batch: int, grid: tuple[int, ...]) -> AnyArray | None:
        """The cells of each window, [batch·windows, …], in the order of `crops`."""
        if set(self.extent) == {1}:
            return cells(array, batch, grid)
        rank = len(grid)
        at_end = tuple(range(array.ndim - rank, array.ndim))
        view = np.lib.stride_tricks.sliding_window_view(array, self.extent, at_end)
        return np.moveaxis(view, at_end, range(1, 1 + rank)).reshape(batch * prod(grid), -1)

    @staticmethod
    def _other_cells(image: Enlarged, shape: Sequence[int]) -> str:
        return f"at {image} the output has shape {list(shape)}, which is not a cell for each crop"

    def _crops(
        self, image: Enlarged, grid: Sequence[int], chosen: AnyArray | None
    ) -> dict[str, AnyArray]:
        """The inputs of the original model for every cell, or for those that were chosen."""
        axes = self.pair.growing[self.image]
        native = [self.pair.native[self.image][axis] for axis in axes]
        array = self._with_noise_beyond(image.feeds[self.image], axes)
        positions = list(np.ndindex(*grid))
        if chosen is not None:
            positions = [positions[number] for number in chosen]
        cut = crops(array, axes, native, self.stride, positions)
        count = len(cut) // image.batch
        return {
            name: cut if name == self.image else self.pair.repeated(name, other, count)
            for name, other in image.feeds.items()
        }

    def _with_noise_beyond(self, array: AnyArray, axes: Sequence[int]) -> AnyArray:
        """Extend the image by random pixels beyond its end, which must not change a score."""
        shape = list(array.shape)
        for axis, reach in zip(axes, self.reach, strict=True):
            shape[axis] += reach
        (own,) = (i for i in self.pair.inputs if i.name == self.image)
        rng = self.pair.rng(4)
        wider = sample([own], {self.image: tuple(shape)}, self.pair.kinds_of(("normal",))[0], rng)[
            self.image
        ]
        wider[tuple(slice(length) for length in array.shape)] = array
        return wider


def _measured(output: str, comparison: Comparison, arrays: Sequence[Arrays]) -> TierResult:
    """Report how far the cells are from the original's scores of their crops."""
    relative: list[AnyArray] = []
    agreeing = 0
    for _, expected, dense in arrays:
        one, two = expected.astype(np.float64), dense.astype(np.float64)
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
