"""Patches: rows that are windows of a map on a regular grid.

    V[n, r, d] = M[n, channel[list[r], d], cell[r] · stride - begin + tap[d] · dilation],
    0 outside the map

A linear layer of such rows is a strided, dilated and padded Conv of M, however the patches are
written: im2col by a Gather (Ma & Lu 2017, Algorithm 1; `conv2fc`), a patch embedding by Reshape and
Transpose (Dosovitskiy et al.: An Image is Worth 16x16 Words, 2021), a column of slices. Elements
that are known to be zero count as padding.

The hyperparameters are read from the labels, and hold only if they reproduce every label.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.views.layers.kernel import Part
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView

__all__ = ["Patches", "patches"]

_PADDING = -1


@dataclass(frozen=True, eq=False)
class Patches:
    """Rows that are windows of a map.

    Attributes:
        part: The part that the Conv reads; a list of elements for each group of channels.
        which: The list that each row reads, of the shape of the rows.
        at: The row-major cell of the Conv's output for each row, of the same shape.
    """

    part: Part
    which: IntArray
    at: IntArray


def patches(view: FeatureView, rows: IntArray) -> Patches | None:
    """Read the rows as patches of the only map that the view draws on besides zeros.

    Args:
        view: The view.
        rows: Element labels [*rows, D].

    Returns:
        The patches; None if the rows are anything else, or channels at each position.
    """
    source = _padded_map(view)
    if source is None or rows.size == 0:
        return None
    flat = rows.reshape(-1, rows.shape[-1]) - source.first_label
    flat = np.where((flat >= 0) & (flat < source.size), flat, _PADDING)
    if _at_each_position(flat, source):
        return None
    found = _placed(flat, source)
    if found is None:
        return None
    corners, offsets, channels = found
    grid = [
        _axis(length, corners[:, axis], offsets[:, axis])
        for axis, length in enumerate(source.extent)
    ]
    axes = [axis for axis in grid if axis is not None]
    if len(axes) < len(grid):
        return None
    window = SlidingWindow(
        source.extent,
        tuple(axis.kernel for axis in axes),
        tuple(axis.stride for axis in axes),
        tuple(axis.dilation for axis in axes),
        tuple(axis.begin for axis in axes),
        tuple(axis.end for axis in axes),
    )
    count = prod(window.output_extent)
    cells = np.ravel_multi_index(tuple(axis.cells for axis in axes), window.output_extent)
    taps = np.ravel_multi_index(tuple(axis.taps for axis in axes), window.kernel)
    shifts, which = np.unique(corners[:, -1], return_inverse=True)
    shown = np.unique(which * count + cells).size
    if count == 1 or shown < count * len(shifts):
        return None
    if not _gives(window, source, cells, taps, channels + corners[:, -1:], flat):
        return None
    elements = (channels + shifts[:, None]) * prod(window.kernel) + taps
    part = Part(source, window.kernel, elements, sliding=window)
    shape = rows.shape[:-1]
    return Patches(part, which.reshape(shape), cells.reshape(shape).astype(np.int64))


def _padded_map(view: FeatureView) -> FeatureMap | None:
    """Return the only map that the view draws on besides zeros; None if there is none."""
    features = [source for source in view.maps if source.constant is None]
    constants = [source.constant for source in view.maps if source.constant is not None]
    if len(features) != 1 or any(values.any() for values in constants):
        return None
    (source,) = features
    # A deferred scale was not applied to the zeros, and single cells have no neighbors. The zero
    # of integers may be another number.
    zeros_only = source.dtype.is_floating_point() or not constants
    fits = source.deferred is None and not source.one_per_window and source.extent
    return source if fits and zeros_only else None


def _at_each_position(rows: IntArray, source: FeatureMap) -> bool:
    """Whether the rows [R, D] are channels of one position each, and there is one for each."""
    positions = prod(source.extent)
    at = rows % positions
    same = rows.min() != _PADDING and bool((at == at[:, :1]).all())
    return same and np.unique(at[:, 0]).size == positions


def _placed(rows: IntArray, source: FeatureMap) -> tuple[IntArray, IntArray, IntArray] | None:
    """Locate each row [R] and each of its elements [D], as far as one row shows them.

    Starts at the row that shows most elements; where all rows reach over the border, their common
    elements locate the others.

    Returns:
        Per row the position of its window and its first channel [R, rank + 1], per element the
        position [D, rank] in the window, and the channel [D]; None if one is undetermined.
    """
    inside = rows != _PADDING
    shape = (source.channels, *source.extent)

    def coordinates(elements: IntArray) -> IntArray:
        return np.stack(np.unravel_index(elements, shape), axis=-1).astype(np.int64)

    start = int(inside.sum(axis=1).argmax())
    known = inside[start]
    if not known.any():
        return None
    offsets = np.zeros((rows.shape[1], len(shape)), np.int64)
    offsets[known] = coordinates(rows[start, known])
    while True:
        shown = inside & known
        first = shown.argmax(axis=1)
        reached = shown[np.arange(len(rows)), first]
        corners = np.zeros((len(rows), len(shape)), np.int64)
        corners[reached] = coordinates(rows[reached, first[reached]]) - offsets[first[reached]]
        if known.all() or not reached.any():
            break
        shown = inside & reached[:, None] & ~known
        first = shown.argmax(axis=0)
        (new,) = np.nonzero(shown[first, np.arange(rows.shape[1])])
        if not new.size:
            break
        offsets[new] = coordinates(rows[first[new], new]) - corners[first[new]]
        known = known.copy()
        known[new] = True
    if not (known.all() and reached.all()):
        return None
    return np.roll(corners, -1, axis=1), offsets[:, 1:], offsets[:, 0]


@dataclass(frozen=True, eq=False)
class _Axis:
    """The hyperparameters along one axis, the cell of each row and the tap of each element."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    cells: IntArray
    taps: IntArray


def _axis(length: int, corners: IntArray, offsets: IntArray) -> _Axis | None:
    """Return the sliding window along one axis; None if there is none.

    A single cell shows no stride: the kernel then takes the whole axis, like that of a layer of a
    whole window.
    """
    first = int(offsets.min())
    starts = np.unique(corners + first)
    taps = offsets - first
    if len(starts) == 1:
        taps = taps + starts[0]
        if taps.min() < 0 or taps.max() >= length:
            return None
        return _Axis(length, 1, 1, 0, 0, np.zeros_like(corners), taps)
    stride, begin = int(starts[1] - starts[0]), -int(starts[0])
    dilation = gcd(*map(int, np.unique(taps))) or 1
    kernel = int(taps.max()) // dilation + 1
    if begin < 0 or (np.diff(starts) != stride).any():
        return None
    end = _end(length + begin, (kernel - 1) * dilation + 1, stride, len(starts), begin)
    if end is None:
        return None
    cells = (corners + first - starts[0]) // stride
    return _Axis(kernel, stride, dilation, begin, end, cells, taps // dilation)


def _end(length: int, span: int, stride: int, cells: int, begin: int) -> int | None:
    """Return end padding that gives so many cells; None if no padding does.

    The native size may fit several. Prefer one equal to the leading padding, as most layers have
    it, else the least.
    """
    least = (cells - 1) * stride + span - length
    if least <= begin < least + stride:
        return begin
    return max(0, least) if least + stride > 0 else None


def _gives(  # noqa: PLR0913 - a hypothesis and what it has to explain
    window: SlidingWindow,
    source: FeatureMap,
    cells: IntArray,
    taps: IntArray,
    channels: IntArray,
    rows: IntArray,
) -> bool:
    """Whether the window reads exactly these elements, and padding where the rows have it.

    ``channels`` has the channel of each element of each row [R, D].
    """
    positions = prod(source.extent)
    read = window.positions()[cells[:, None], taps]
    made = np.where(read == positions, _PADDING, read + channels * positions)
    return bool((made == rows).all())
