"""Images larger than the native size, and the windows in them and in their feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.samples import sample
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.labels import AnyArray

__all__ = [
    "Enlarged",
    "cells",
    "check_sizes",
    "chosen_cells",
    "crops",
    "enlarged",
    "larger_sizes",
    "sizes_text",
    "take",
    "windows",
]

_BATCHES = (1, 2, 1)


@dataclass(frozen=True, eq=False)
class Enlarged:
    """Images that are larger than the native size.

    Attributes:
        feeds: All inputs of the models by name.
        size: Spatial size of the first image input.
        batch: Number of images.
    """

    feeds: Mapping[str, AnyArray]
    size: tuple[int, ...]
    batch: int

    def __str__(self) -> str:
        return "×".join(map(str, self.size))


def larger_sizes(native: Sequence[int], stride: Sequence[int]) -> list[tuple[int, ...]]:
    """Three sizes above the native one: not square, odd, with and without a remainder."""
    rank = len(native)
    steps = [max(1, s) for s in stride]
    cycle = [(1, 3), (2, 1), (3, 2)]
    sizes: list[tuple[int, ...]] = []
    for n, (first, second) in enumerate(cycle):
        grown = [(first, second)[axis % 2] + (axis > 1) for axis in range(rank)]
        size = [native[a] + grown[a] * steps[a] for a in range(rank)]
        if n:  # odd numbers of pixels, so that strides leave remainders
            size = [length + (length + 1) % 2 for length in size]
        sizes.append(tuple(size))
    return sizes


def sizes_text(pair: Pair) -> str:
    """At how many sizes a pair is compared, for the report."""
    count = len(pair.sizes) or len(_BATCHES)
    return f"{count} larger size{'s' if count > 1 else ''}"


def check_sizes(pair: Pair) -> None:
    """Find out before any work whether the models can take the sizes that the user chose.

    Raises:
        ArgumentError: If not.
    """
    images = {name: axes for name, axes in pair.growing.items() if axes}
    for size in pair.sizes:
        text = "×".join(map(str, size))
        if not images:
            raise ArgumentError(f"size {text}: the converted model takes its native size only")
        for name, axes in images.items():
            native = tuple(pair.native[name][axis] for axis in axes)
            own = "×".join(map(str, native))
            if len(size) != len(native):
                raise ArgumentError(f"size {text} is not one of {name!r}, whose size is {own}")
            if any(length < least for length, least in zip(size, native, strict=True)):
                raise ArgumentError(f"size {text} is smaller than the native size {own}")


def enlarged(
    pair: Pair, strides: Mapping[str, Sequence[int]], kinds: Sequence[str]
) -> Iterator[Enlarged]:
    """The image inputs at three larger sizes or the user's own, one of them as a batch of two.

    Args:
        pair: The models.
        strides: Pixels between neighboring cells, per growing axis of each input.
        kinds: The kind of image at each size; they recur where there are more sizes.
    """
    images = {name: axes for name, axes in pair.growing.items() if axes}
    first = next(iter(images))
    options = {
        name: pair.sizes or larger_sizes([pair.native[name][axis] for axis in axes], strides[name])
        for name, axes in images.items()
    }
    for number in range(len(options[first])):
        kind, batch = kinds[number % len(kinds)], _BATCHES[number % len(_BATCHES)]
        shapes = pair.batched(batch)
        for name, axes in images.items():
            shape = list(shapes[name])
            for axis, length in zip(axes, options[name][number], strict=True):
                shape[axis] = length
            shapes[name] = tuple(shape)
        feeds = sample(pair.inputs, shapes, kind, pair.rng(2, number))
        yield Enlarged(feeds, options[first][number], batch)


def windows(array: AnyArray, extent: Sequence[int], count: int) -> AnyArray:
    """All windows of native extent of a map [batch, …]: [batch·cells, *extent], row-major.

    A map that does not grow with the image is the same for each of the ``count`` cells.
    """
    if tuple(array.shape[1:]) == tuple(extent):
        return np.repeat(array, count, axis=0)
    axes = tuple(range(1, array.ndim))
    view = np.lib.stride_tricks.sliding_window_view(array, tuple(extent), axes)
    return view.reshape(-1, *extent)


def cells(array: AnyArray, batch: int, grid: Sequence[int]) -> AnyArray | None:
    """A map [batch, K, *grid] as [batch·cells, K]; None if it has other numbers of cells."""
    rank = len(grid)
    if array.ndim < rank + 1 or array.shape[0] != batch:
        return None
    if tuple(array.shape[array.ndim - rank :]) != tuple(grid):
        return None
    count = int(np.prod(grid))
    return array.reshape(batch, -1, count).transpose(0, 2, 1).reshape(batch * count, -1)


def chosen_cells(pair: Pair, count: int) -> AnyArray | None:
    """The cells to compare where there are more than the user wants: the corners and some others.

    Returns:
        Their numbers in rising order; None for all.
    """
    wanted = pair.max_windows
    if wanted is None or count <= wanted:
        return None
    corners = [0, count - 1][:wanted]
    others = pair.rng(6, count).permutation(np.arange(1, count - 1))[: wanted - len(corners)]
    return np.sort(np.concatenate([corners, others])).astype(np.int64)


def take(rows: AnyArray, batch: int, chosen: AnyArray | None) -> AnyArray:
    """Of rows [batch·cells, …], as `cells` and `windows` give them, those of the chosen cells."""
    if chosen is None:
        return rows
    kept: AnyArray = rows.reshape(batch, -1, *rows.shape[1:])[:, chosen]
    return kept.reshape(-1, *rows.shape[1:])


def crops(
    image: AnyArray,
    axes: Sequence[int],
    native: Sequence[int],
    stride: Sequence[int],
    positions: Iterable[Sequence[int]],
) -> AnyArray:
    """The crops of native size at these multiples of the stride: [batch·positions, …]."""
    found: list[AnyArray] = []
    for cell in positions:
        window = [slice(None)] * image.ndim
        for axis, position, own, step in zip(axes, cell, native, stride, strict=True):
            window[axis] = slice(position * step, position * step + own)
        found.append(image[tuple(window)])
    return np.stack(found, axis=1).reshape(-1, *found[0].shape[1:])
