"""Tiles: crops of an image from which a model computes the very cells of the whole image's map.

A crop that begins at a multiple of the stride s, pixel t·s, has all layers' cells at the same
pixels as the whole image; its cell j is the image's cell t + j. The two are equal if cell j sees
none of the padding at the crop's borders, or that border is the image's own (`TileCells`):

- on the left for all j >= first, or if the crop begins where the image does;
- on the right if j·s + reach <= T, the length of the crop, or it ends where the image does.

So the halo is exact: beyond a cell's own stride, an unpadded model needs the rest of its window; a
padded model needs the reach of its padding too, rounded up to whole strides.

All tiles have one length T: it differs from the image's by a multiple of the stride, so that a last
tile moved back to end with the image still lies on the grid, and its layers leave over as many
pixels as the image's do. (Where branches fit together at certain lengths only, T also differs by a
multiple of their modulo.)
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.geometry import Geometry

__all__ = ["AxisPlan", "AxisTile", "Tile", "TilePlan", "plan_tiles"]


@dataclass(frozen=True)
class AxisTile:
    """One tile along one axis.

    Attributes:
        start: Its first pixel.
        cells: The cells of the image's map that it computes.
        inner: The same cells in the tile's own map.
    """

    start: int
    cells: slice
    inner: slice


@dataclass(frozen=True)
class AxisPlan:
    """The tiles along one axis: each cell is computed by one of them.

    Attributes:
        length: Length of every tile, in pixels.
        tiles: From the first pixel to the last.
    """

    length: int
    tiles: tuple[AxisTile, ...]


@dataclass(frozen=True)
class Tile:
    """One tile of an image.

    Attributes:
        pixels: Rows and columns of the image that are its input.
        cells: Rows and columns of the map that it computes.
        inner: The same cells in the tile's own map.
    """

    pixels: tuple[slice, slice]
    cells: tuple[slice, slice]
    inner: tuple[slice, slice]


@dataclass(frozen=True)
class TilePlan:
    """The tiles of an image.

    Attributes:
        rows: Tiles along the height.
        columns: Tiles along the width.
        map_size: Height and width of the map.
    """

    rows: AxisPlan
    columns: AxisPlan
    map_size: tuple[int, int]

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of every tile, in pixels."""
        return self.rows.length, self.columns.length

    def __len__(self) -> int:
        return len(self.rows.tiles) * len(self.columns.tiles)

    def __iter__(self) -> Iterator[Tile]:
        for row in self.rows.tiles:
            for column in self.columns.tiles:
                yield Tile(
                    (
                        slice(row.start, row.start + self.rows.length),
                        slice(column.start, column.start + self.columns.length),
                    ),
                    (row.cells, column.cells),
                    (row.inner, column.inner),
                )


def plan_tiles(geometry: Geometry, size: tuple[int, int], most_pixels: int) -> TilePlan:
    """Plan tiles of at most ``most_pixels`` that together give the map of the whole image.

    Args:
        geometry: Geometry of the map, which has one cell for each window.
        size: Height and width of the image.
        most_pixels: The most that one tile may have.

    Raises:
        ArgumentError: If the image is smaller than a window, the model does not compute at its
            size, or the smallest tile is larger than that.
        RefusedError: If the image takes more than one tile, and a cell depends on all of it.
    """
    try:
        map_size = geometry.output_size(size)
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    axes = [_Axis.of(geometry, axis, length) for axis, length in enumerate(size)]
    if math.prod(size) <= most_pixels:
        rows, columns = (axis.plan(axis.image) for axis in axes)
        return TilePlan(rows, columns, (map_size[0], map_size[1]))
    if geometry.tile_cells is None:
        raise RefusedError([_whole_image(geometry, size, most_pixels)])
    smallest = [axis.shortest() for axis in axes]
    if math.prod(smallest) > most_pixels:
        raise ArgumentError(
            f"the memory is enough for tiles of {most_pixels:,} pixels, and the smallest tile that "
            f"gives a cell has {smallest[0]}×{smallest[1]} = {math.prod(smallest):,}"
        )
    rows, columns = (
        axis.plan(longest) for axis, longest in zip(axes, _sides(axes, most_pixels), strict=True)
    )
    return TilePlan(rows, columns, (map_size[0], map_size[1]))


def _sides(axes: list[_Axis], most_pixels: int) -> tuple[int, int]:
    """The longest height and width of a tile: a square, unless the image or a window is longer."""
    height, width = axes
    rows = min(max(math.isqrt(most_pixels), height.shortest()), height.image)
    columns = min(max(most_pixels // rows, width.shortest()), width.image)
    return min(most_pixels // columns, height.image), columns


def _whole_image(geometry: Geometry, size: tuple[int, int], most_pixels: int) -> Refusal:
    """Refuse to tile an image that every cell depends on."""
    return Refusal(
        "tiles-of-whole-image",
        f"input {geometry.input}",
        f"each cell depends on the whole image ({geometry.why}), which has {size[0]}×{size[1]} "
        f"pixels; the memory is enough for {most_pixels:,}",
    )


@dataclass(frozen=True)
class _Axis:
    """Geometry along one axis of an image.

    Attributes:
        image: Length of the image.
        window: Length of a window.
        stride: Distance between windows.
        remainder: Pixels that the strides may leave over.
        first: As in `TileCells`.
        reach: Likewise.
        unit: Tiles are shorter than the image by a multiple of this.
    """

    image: int
    window: int
    stride: int
    remainder: int
    first: int
    reach: int
    unit: int

    @classmethod
    def of(cls, geometry: Geometry, axis: int, image: int) -> _Axis:
        inner = geometry.tile_cells
        return cls(
            image=image,
            window=geometry.window[axis],
            stride=geometry.stride[axis],
            remainder=geometry.remainder[axis],
            first=inner.first[axis] if inner else 0,
            reach=inner.reach[axis] if inner else image,
            unit=math.lcm(geometry.stride[axis], geometry.sizes[axis].modulo),
        )

    def cells(self, length: int) -> int:
        """Number of cells of an image or tile of this length."""
        return (length - self.window + self.remainder) // self.stride + 1

    def stop(self, length: int) -> int:
        """Return the first cell of a tile that sees padding at its end, if the image goes on."""
        return min(self.cells(length), (length - self.reach) // self.stride + 1)

    def is_enough(self, length: int) -> bool:
        """Whether tiles of this length give all cells; one of the image's length does."""
        return length == self.image or (length >= self.window and self.stop(length) > self.first)

    def shortest(self) -> int:
        """Length of the shortest tiles."""
        steps = range((self.image - self.window) // self.unit + 1)
        longest_first = bisect_left(steps, True, key=lambda k: not self.is_enough(self._length(k)))
        return self._length(longest_first - 1)

    def plan(self, longest: int) -> AxisPlan:
        """Plan the fewest tiles of at most this length, and make them as short as possible."""
        fewest = -(-(self.image - longest) // self.unit)
        tiles = self._tiles(self._length(fewest))
        steps = range(fewest, (self.image - self.shortest()) // self.unit + 1)
        more = bisect_left(
            steps, True, key=lambda k: len(self._tiles(self._length(k))) > len(tiles)
        )
        length = self._length(steps[more - 1])
        return AxisPlan(length, self._tiles(length))

    def _length(self, steps: int) -> int:
        return self.image - steps * self.unit

    def _tiles(self, length: int) -> tuple[AxisTile, ...]:
        """Return tiles of this length, each with the cells that earlier tiles do not compute."""
        total, first = self.cells(self.image), 0
        found: list[AxisTile] = []
        while first < total:
            start = min(max(0, first - self.first) * self.stride, self.image - length)
            before = start // self.stride
            stop = total if start == self.image - length else before + self.stop(length)
            found.append(AxisTile(start, slice(first, stop), slice(first - before, stop - before)))
            first = stop
        return tuple(found)
