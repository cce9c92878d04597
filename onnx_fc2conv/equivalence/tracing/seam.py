"""The seam of an output: the tensors of the original whose windows its head reads.

It is found by running. The original, freed of its fixed size, runs on a larger image. A tensor that
has grown there by a cell for each further cell of the converted output is a map that these slide
over, and what the original computes from the last such maps on is the head. No operator is looked
up, and nothing is asked of the code that converted the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.tracing.structure import constants, operands
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Growth", "Seam", "SlidingMap", "find_seam", "grown_axes"]

_SHAPES = ("Shape", "Size")


@dataclass(frozen=True)
class SlidingMap:
    """A tensor of the original that grows with the image.

    Attributes:
        name: Its name.
        extent: Its native shape, without samples: the window that the head reads.
        axes: The axes that grow, counted in the extent.
        steps: Along each of them, the cells from one window to the next.
        every: Along each of them, the cells of the output from one window to the next: 1 but for an
            output of a denser grid (``--stride``).
    """

    name: str
    extent: tuple[int, ...]
    axes: tuple[int, ...]
    steps: tuple[int, ...]
    every: tuple[int, ...]

    def count(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The windows along each axis of a larger map of this shape."""
        return tuple(
            (shape[1 + axis] - self.extent[axis]) // step + 1
            for axis, step in zip(self.axes, self.steps, strict=True)
        )

    def windows(self, array: AnyArray, cells: Sequence[int]) -> AnyArray:
        """The windows of a larger map.

        Args:
            array: The map [samples, …].
            cells: Number of windows wanted along each axis that grows.

        Returns:
            [samples, *cells, *extent], a view.
        """
        at = tuple(1 + axis for axis in self.axes)
        native = tuple(self.extent[axis] for axis in self.axes)
        view = np.lib.stride_tricks.sliding_window_view(array, native, at)
        picked = [slice(None)] * view.ndim
        for axis, step, count in zip(at, self.steps, cells, strict=True):
            picked[axis] = slice(0, (count - 1) * step + 1, step)
        view = view[tuple(picked)]
        # The axes of the windows stand last: they belong where the map has them.
        view = np.moveaxis(view, at, range(1, 1 + len(at)))
        last = range(view.ndim - len(at), view.ndim)
        return np.moveaxis(view, last, [1 + len(at) + axis for axis in self.axes])


@dataclass(frozen=True)
class Seam:
    """What the head of an output reads.

    Attributes:
        maps: The maps that its cells slide over.
        sized: Tensors whose shape alone is read.
        inputs: Further inputs of the model that it reads: they have no windows.
        twins: Tensors of the converted model, for maps that the original does not compute on a
            larger image.
    """

    maps: tuple[SlidingMap, ...]
    sized: tuple[str, ...]
    inputs: tuple[str, ...]
    twins: Mapping[str, str] = field(default_factory=dict)

    @property
    def every(self) -> tuple[int, ...]:
        """Along each axis, the cells of the output from one compared cell to the next."""
        return tuple(map(max, zip(*(m.every for m in self.maps), strict=True)))


@dataclass(frozen=True)
class Growth:
    """Shapes at the native size and at a larger one.

    Attributes:
        native: Shapes of the original's tensors at the native size, samples first.
        larger: Shapes of those that grow with the image, at the larger size.
        cells: Further cells of the converted output there, along each axis of its map; None where
            it has none: then every tensor that grows is such a map.
    """

    native: Mapping[str, tuple[int, ...]]
    larger: Mapping[str, tuple[int, ...]]
    cells: tuple[int, ...] | None

    def map_of(self, name: str) -> SlidingMap | None:
        """The tensor as a map that the cells slide over; None if it is none."""
        native, larger = self.native.get(name), self.larger.get(name)
        if native is None or larger is None:
            return None
        grown = grown_axes(native, larger)
        further = [larger[axis] - native[axis] for axis in grown]
        if not further or min(further) < 1:
            return None
        ratios = [(1, 1)] * len(further)
        if self.cells is not None:
            if len(further) != len(self.cells):
                return None
            pairs = zip(further, self.cells, strict=True)
            ratios = [(many // own, 1) if many >= own else (1, own // many) for many, own in pairs]
            exact = zip(ratios, further, self.cells, strict=True)
            if any(many * fine != own * step for (step, fine), many, own in exact):
                return None
        steps, every = zip(*ratios, strict=True)
        return SlidingMap(name, native[1:], tuple(axis - 1 for axis in grown), steps, every)


def grown_axes(native: Sequence[int], larger: Sequence[int]) -> tuple[int, ...]:
    """The axes, samples aside, along which a tensor is larger; none if it is another tensor."""
    if len(native) != len(larger) or native[:1] != larger[:1]:
        return ()
    lengths = enumerate(zip(native, larger, strict=True))
    return tuple(n for n, (own, length) in lengths if own != length)


def find_seam(
    model: ir.Model, output: ir.Value, growth: Growth, *, denser: bool = False
) -> Seam | None:
    """Follow an output of the original back to the last maps that its cells slide over.

    Args:
        model: The original.
        output: Its output.
        growth: Shapes on a larger image.
        denser: Whether maps with fewer windows than the output has cells will do.

    Returns:
        None where it goes back to an image over which the cells do not slide pixel by pixel: the
        original as a whole is no head.
    """
    fixed = constants(model.graph)
    maps: dict[str, SlidingMap] = {}
    sized: list[str] = []
    inputs: list[str] = []
    queue, seen = [output], {output}
    for value in queue:
        name, node = value.name or "", value.producer()
        if value in fixed:
            continue
        found = growth.map_of(name)
        if found is not None and node is None and set(found.steps) != {1}:
            return None
        if found is not None and (denser or set(found.every) == {1}):
            maps[name] = found
        elif node is None and name in growth.larger:
            return None
        elif node is None:
            inputs.append(name)
        elif node.op_type in _SHAPES and node.inputs[0] is not None:
            source = node.inputs[0].name or ""
            sized.append(source)
        else:
            more = [v for v in operands(node) if v not in seen]
            seen.update(more)
            queue += more
    alone = tuple(name for name in dict.fromkeys(sized) if name not in maps)
    return Seam(tuple(maps.values()), alone, tuple(inputs)) if maps else None
