"""Alignment: elements of several views that an operator brings together, as channels × positions.

An elementwise operator combines element d of one view with element d of another. It can work on
whole maps if the two elements always lie at the same position: then channel ``channels[0][t]`` of
the first map meets channel ``channels[1][t]`` of the second, for each channel t of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from onnx_fc2conv.views.maps.labels import AnyArray, IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, LabelSpace

__all__ = ["Alignment", "NotAligned", "alignments"]


class NotAligned(ValueError):  # noqa: N818 - an outcome that the caller turns into a refusal
    """Elements of different positions meet."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """Elements of which each operand draws on one map.

    Attributes:
        sources: The map of each operand.
        channels: For each operand, the channel of its map that channel t of the result shows, [T].
        extent: Spatial extent of the alignment: that of the largest map.
        where: Which elements of the views these are, as row-major positions; [n].
        elements: Which elements of the alignment, row-major (T, *extent); [n].
    """

    sources: tuple[FeatureMap, ...]
    channels: tuple[IntArray, ...]
    extent: tuple[int, ...]
    where: IntArray
    elements: IntArray

    @property
    def size(self) -> int:
        """Number of elements of the alignment."""
        return self.channels[0].size * prod(self.extent)

    @cached_property
    def is_covered(self) -> bool:
        """Whether the views show every element of the alignment."""
        return np.unique(self.elements).size == self.size

    @cached_property
    def shows_all_channels(self) -> bool:
        """Whether the alignment is the only operand's map, channel by channel."""
        channels = self.channels[0]
        return (
            len(self.sources) == 1
            and channels.size == self.sources[0].channels
            and bool((channels == np.arange(channels.size)).all())
        )

    def spread(self, array: AnyArray) -> AnyArray:
        """Spread a constant with a value for each element of the views to [T, *extent].

        An element that no view shows gets the value of another element of its channel.
        """
        values = array.reshape(-1)[self.where]
        positions = prod(self.extent)
        table = np.empty(self.size, values.dtype)
        channels = self.elements // positions
        any_of = np.zeros(self.channels[0].size, values.dtype)
        any_of[channels] = values
        table[:] = np.repeat(any_of, positions)
        table[self.elements] = values
        return table.reshape(-1, *self.extent)

    def widened(self) -> Alignment:
        """The alignment of all channels of the only operand's map, shown or not."""
        (source,), (channels,) = self.sources, self.channels
        if np.unique(channels).size != channels.size:
            return self
        positions = prod(self.extent)
        elements = channels[self.elements // positions] * positions + self.elements % positions
        everything = np.arange(source.channels, dtype=np.int64)
        return Alignment(self.sources, (everything,), self.extent, self.where, elements)


def alignments(
    space: LabelSpace, indices: Sequence[IntArray], constants: Sequence[AnyArray]
) -> list[Alignment]:
    """The alignments of operands that show elements ``indices``, one of the result's shape each.

    Args:
        space: Says which map an element belongs to.
        indices: Element labels of each operand.
        constants: Arrays of the same shape. An element that meets several values of a constant
            gets a channel for each.

    Raises:
        NotAligned: If elements of different positions meet.
    """
    flat = [index.reshape(-1) for index in indices]
    maps = [space.maps(index) for index in flat]
    numbers = np.stack(
        [
            np.searchsorted([m.first_label for m in found], index, side="right") - 1
            for found, index in zip(maps, flat, strict=True)
        ]
    )
    made: list[Alignment] = []
    for combination in np.unique(numbers, axis=1).T:
        (where,) = np.nonzero((numbers == combination[:, None]).all(axis=0))
        sources = tuple(found[n] for found, n in zip(maps, combination, strict=True))
        local = [
            index[where] - source.first_label for index, source in zip(flat, sources, strict=True)
        ]
        values = [constant.reshape(-1)[where] for constant in constants]
        made.append(_alignment(sources, local, where, values))
    return made


def _alignment(
    sources: tuple[FeatureMap, ...],
    local: list[IntArray],
    where: IntArray,
    constants: list[AnyArray],
) -> Alignment:
    extent, at = _positions(sources, local)
    keys = [
        elements // (source.size // source.channels)
        for elements, source in zip(local, sources, strict=True)
    ]
    channels, of = _numbered(keys)
    elements = of * prod(extent) + at
    if not all(_is_function(elements, values) for values in constants):
        channels, of = _numbered([*keys, _occurrence(elements)])
        elements = of * prod(extent) + at
    return Alignment(sources, tuple(channels[: len(sources)]), extent, where, elements)


def _positions(
    sources: tuple[FeatureMap, ...], local: list[IntArray]
) -> tuple[tuple[int, ...], IntArray]:
    """The extent of the alignment, and the position of each element in it."""
    if len({len(source.extent) for source in sources}) > 1:
        raise NotAligned("combines maps of different rank")
    extent = tuple(max(lengths) for lengths in zip(*(s.extent for s in sources), strict=True))
    where = [np.zeros_like(local[0]) for _ in extent]
    known = [False] * len(extent)
    for source, elements in zip(sources, local, strict=True):
        coordinates = np.unravel_index(elements, source.per_sample_shape)[1:]
        for axis, length in enumerate(source.extent):
            if length == 1:
                continue
            if length != extent[axis]:
                listed = " and ".join(str(list(s.extent)) for s in sources)
                raise NotAligned(f"combines maps of sizes {listed}")
            if known[axis] and not np.array_equal(where[axis], coordinates[axis]):
                names = " and ".join(s.name for s in sources)
                raise NotAligned(f"combines different positions of {names}")
            where[axis], known[axis] = coordinates[axis], True
    if not extent:
        return extent, np.zeros_like(local[0])
    return extent, np.ravel_multi_index(tuple(where), extent).astype(np.int64)


def _numbered(keys: list[IntArray]) -> tuple[list[IntArray], IntArray]:
    """Return the distinct combinations of keys, in order, and the index of each element's."""
    if len(keys) == 1:
        found, of = np.unique(keys[0], return_inverse=True)
        return [found], of.reshape(-1)
    together, of = np.unique(np.stack(keys), axis=1, return_inverse=True)
    return list(together), of.reshape(-1)


def _is_function(elements: IntArray, values: AnyArray) -> bool:
    """Whether one element always has the same value."""
    order = np.argsort(elements, kind="stable")
    same = elements[order][1:] == elements[order][:-1]
    return bool((values[order][1:] == values[order][:-1])[same].all())


def _occurrence(elements: IntArray) -> IntArray:
    """Count the earlier occurrences of each element."""
    order = np.argsort(elements, kind="stable")
    ordered = elements[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    first = np.maximum.accumulate(np.where(starts, np.arange(elements.size), 0))
    count = np.empty_like(elements)
    count[order] = np.arange(elements.size) - first
    return count
