"""Images larger than the native size, and the windows in them and in their feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = [
    "Enlarged",
    "cells",
    "check_sizes",
    "chosen_cells",
    "crops",
    "enlarged",
    "head_steps",
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


def larger_sizes(
    native: Sequence[int], stride: Sequence[int], step: Sequence[int] | None = None
) -> list[tuple[int, ...]]:
    """Return three sizes above the native one: not square, odd, with and without a remainder.

    With a ``step``, they exceed the native size by multiples of it.
    """
    rank = len(native)
    steps = [max(1, s) for s in stride]
    cycle = [(1, 3), (2, 1), (3, 2)]
    sizes: list[tuple[int, ...]] = []
    for n, (first, second) in enumerate(cycle):
        grown = [(first, second)[axis % 2] + (axis > 1) for axis in range(rank)]
        size = [native[a] + grown[a] * steps[a] for a in range(rank)]
        if n:  # odd numbers of pixels, so that strides leave remainders
            size = [length + (length + 1) % 2 for length in size]
        if step is not None:
            size = [
                length + (own - length) % by
                for length, own, by in zip(size, native, step, strict=True)
            ]
        sizes.append(tuple(size))
    return sizes


def sizes_text(pair: Pair) -> str:
    """Return the number of larger sizes, as the report words it."""
    count = len(pair.sizes) or len(_BATCHES)
    return f"{count} larger size{'s' if count > 1 else ''}"


def check_sizes(pair: Pair) -> None:
    """Check before any work that the models can take the sizes that the user chose.

    Raises:
        ArgumentError: If they cannot.
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
    """Yield the image inputs at three larger sizes or the user's own, one as a batch of two.

    Args:
        pair: The models.
        strides: Pixels between neighboring cells, per growing axis of each input.
        kinds: The kind of image at each size; they recur where there are more sizes.
    """
    images = {name: axes for name, axes in pair.growing.items() if axes}
    first = next(iter(images))
    options = {
        name: pair.sizes
        or larger_sizes(
            [pair.native[name][axis] for axis in axes], strides[name], pair.size_steps.get(name)
        )
        for name, axes in images.items()
    }
    batches = (1,) if pair.unbatched else _BATCHES
    for number in range(len(options[first])):
        kind, batch = kinds[number % len(kinds)], batches[number % len(batches)]
        shapes = pair.batched(batch)
        for name, axes in images.items():
            shape = list(shapes[name])
            for axis, length in zip(axes, options[name][number], strict=True):
                shape[axis] = length
            shapes[name] = tuple(shape)
        feeds = sample(pair.inputs, shapes, kind, pair.rng(2, number))
        yield Enlarged(feeds, options[first][number], batch)


def head_steps(grid: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the stride of the head over the windows of a map, per axis.

    It is 1, except where each cell of the map was repeated: then the number of repeats.

    Args:
        grid: Number of windows of the map, at a size that leaves no remainder: the first one.
        shape: Shape of the output there.
    """
    made = shape[len(shape) - len(grid) :]
    if len(made) < len(grid):
        return (1,) * len(grid)
    return tuple(
        (windows - 1) // (cells_of - 1)
        if 1 < cells_of <= windows and (windows - 1) % (cells_of - 1) == 0
        else 1
        for windows, cells_of in zip(grid, made, strict=True)
    )


def windows(
    array: AnyArray, extent: Sequence[int], count: int, steps: Sequence[int] = ()
) -> AnyArray:
    """All windows of native extent of a map [batch, …]: [batch·cells, *extent], row-major.

    A map that does not grow with the image is repeated for the ``count`` cells.

    Args:
        array: The map.
        extent: Its native extent, channels included.
        count: Number of windows.
        steps: Distance between neighboring windows per axis that grows; 1 if it is empty.
    """
    if tuple(array.shape[1:]) == tuple(extent):
        return np.repeat(array, count, axis=0)
    axes = tuple(range(1, array.ndim))
    view = np.lib.stride_tricks.sliding_window_view(array, tuple(extent), axes)
    grown = [axis for axis in axes if array.shape[axis] != extent[axis - 1]]
    every = [slice(None)] * array.ndim
    for axis, step in zip(grown, steps, strict=False):
        every[axis] = slice(None, None, step)
    view = view[tuple(every)]
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


def chosen_cells(pair: Pair, count: int, most: int | None = None) -> AnyArray | None:
    """Choose the cells to compare if there are too many: the first, the last and random others.

    ``most`` is the limit if the user sets none.

    Returns:
        Their indices in rising order; None for all.
    """
    wanted = most if pair.max_windows is None else pair.max_windows
    if wanted is None or count <= wanted:
        return None
    corners = [0, count - 1][:wanted]
    others = pair.rng(6, count).permutation(np.arange(1, count - 1))[: wanted - len(corners)]
    return np.sort(np.concatenate([corners, others])).astype(np.int64)


def take(rows: AnyArray, batch: int, chosen: AnyArray | None) -> AnyArray:
    """Return the chosen cells of rows [batch·cells, …], as `cells` and `windows` give them."""
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
