"""Receptive fields, one spatial axis at a time, in exact integers.

A cell ``i`` of a feature map is computed from the input pixels ``start + i·stride`` up to, not
including, ``start + i·stride + size``. A sliding layer with kernel k, stride s, dilation d and
leading padding p turns (stride S, start t, size r) into

    S' = S·s        t' = t - p·S        r' = r + (k-1)·d·S

(Araujo, Norris, Sim: *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019,
doi 10.23915/distill.00021; with the start of the field instead of its center, which keeps
everything integer, and with dilation.) Where a layer makes several cells of each, the fields of
neighboring cells are not shifts of one another; only those of every ``repeats``-th cell are.

A cell is *clean* if nothing on its way to the pixels is padding: it then has the same value
wherever its pixels lie, in a crop or in a larger image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, lcm

from onnx_fc2conv.geometry.cell_count import CellCount

__all__ = ["AxisField", "Misaligned"]


_PIXELS = CellCount()


class Misaligned(ValueError):  # noqa: N818 - an outcome that the caller turns into a refusal
    """Two branches with different strides are combined."""


@dataclass(frozen=True, slots=True)
class AxisField:
    """The receptive field of a feature map along one spatial axis, in input pixels.

    Attributes:
        stride: Distance between neighboring cells; 0 when the single cell sees the whole axis
            (global pooling), whatever its length.
        pixels: First pixel, and one past the last, that a cell sees, for the first ``repeats``
            cells: one, except in a map whose cells have been subdivided. Negative where padding
            reaches out of the image.
        cells: Number of cells of an image of any length.
        first_clean: The first cell that sees no padding before the image.
        clean_ends: The smallest of these is the first cell that sees padding behind the image.
        meets: Cell counts of branches that are combined: where they differ, the model does
            not compute.
    """

    stride: int = 1
    pixels: tuple[tuple[int, int], ...] = ((0, 1),)
    cells: CellCount = _PIXELS
    first_clean: int = 0
    clean_ends: frozenset[CellCount] = frozenset({_PIXELS})
    meets: frozenset[frozenset[CellCount]] = frozenset()

    @property
    def repeats(self) -> int:
        """Number of cells by which the map shifts when the image shifts by the fewest pixels."""
        return len(self.pixels)

    @property
    def start(self) -> int:
        """First pixel of cell 0 (of the hull of all cells, if they have been subdivided)."""
        return min(first - i * self.stride for i, (first, _) in enumerate(self.pixels))

    @property
    def size(self) -> int:
        """Number of pixels that a cell sees, from its first one to its last."""
        return max(end - i * self.stride for i, (_, end) in enumerate(self.pixels)) - self.start

    @property
    def span(self) -> int:
        """Length of the shortest image that has a cell; negative if padding alone makes one."""
        return self.cells.shortest(1)

    @property
    def padded(self) -> bool:
        """Whether some cell sees padding, at some length of the image."""
        return self.first_clean > 0 or self.clean_ends != frozenset({self.cells})

    def seen_by(self, cell: int) -> tuple[int, int]:
        """First pixel, and one past the last, that this cell sees."""
        shifts, which = divmod(cell, self.repeats)
        first, end = self.pixels[which]
        by = shifts * self.repeats * self.stride
        return first + by, end + by

    def clean(self, length: int) -> range:
        """The cells that see no padding, of an image of this length."""
        return range(self.first_clean, min(end(length) for end in self.clean_ends))

    def slide(
        self, kernel: int, stride: int = 1, dilation: int = 1, pad: int = 0, end_pad: int = 0
    ) -> AxisField:
        """The field after a layer with this kernel, stride, dilation, leading and end padding."""
        if (kernel, stride, pad, end_pad) == (1, 1, 0, 0):
            return self
        cells = self.cells.slide(kernel, stride, dilation, pad + end_pad)
        ends = {end.slide(kernel, stride, dilation, pad) for end in self.clean_ends}
        if end_pad < 0:
            ends.add(cells)
        taps = (kernel - 1) * dilation + 1
        return AxisField(
            self.stride * stride,
            tuple(
                self._hull(range(first, first + taps, dilation))
                for first in range(-pad, self.repeats * stride - pad, stride)
            )[: self.repeats // gcd(self.repeats, stride)],
            cells,
            max(0, -(-(self.first_clean + pad) // stride)),
            _least(ends),
            self.meets,
        )

    def take_blocks(self, block: int) -> AxisField:
        """The field of a layer of blocks of so many cells, which fails if cells are left over."""
        made = self.slide(block, block)
        whole = made.cells.then(block, 0, 1)
        return replace(made, meets=made.meets | {frozenset({self.cells, whole})})

    def _hull(self, cells: range) -> tuple[int, int]:
        """The pixels from the first to the last that these cells see."""
        if self.repeats == 1:
            return self.seen_by(cells[0])[0], self.seen_by(cells[-1])[1]
        firsts, ends = zip(*map(self.seen_by, cells), strict=True)
        return min(firsts), max(ends)

    def spread(self, factor: int) -> AxisField:
        """The field after a layer that makes ``factor`` cells of each; the stride is a multiple."""
        return AxisField(
            self.stride // factor,
            tuple(field for field in self.pixels for _ in range(factor)),
            self.cells.then(factor, 0, 1),
            self.first_clean * factor,
            _least({end.then(factor, 0, 1) for end in self.clean_ends}),
            self.meets,
        )

    def counted(self, cells: CellCount, first_clean: int, ends: set[CellCount]) -> AxisField:
        """The field with exact counts, where not all cells of a block see the same.

        Args:
            cells: Number of cells.
            first_clean: The first cell that sees no padding before the image; may be negative.
            ends: The smallest is the first cell that sees padding behind the image, if any does.
        """
        clean_ends = _least({*ends, cells})
        return replace(self, cells=cells, first_clean=max(0, first_clean), clean_ends=clean_ends)

    def pool_globally(self, extent: int) -> AxisField:
        """The field of the only cell of a global pooling; ``extent`` cells at the native size."""
        one = CellCount.constant(1)
        hull = self._hull(range(extent))
        return AxisField(0, (hull,), one, clean_ends=frozenset({one}), meets=self.meets)

    def join(self, other: AxisField) -> AxisField:
        """The field of a layer that combines cell i of both branches.

        A branch with one cell for the whole image is combined with every cell of the other: what
        it sees is not part of the field.

        Raises:
            Misaligned: If both branches slide, with different strides.
        """
        meets = self.meets | other.meets
        if self.stride != other.stride:
            if 0 not in (self.stride, other.stride):
                raise Misaligned(f"strides {self.stride} and {other.stride}")
            return replace(self if self.stride else other, meets=meets)
        hulls = []
        for cell in range(lcm(self.repeats, other.repeats)):
            (first, end), (first_2, end_2) = self.seen_by(cell), other.seen_by(cell)
            hulls.append((min(first, first_2), max(end, end_2)))
        if self.stride and self.cells != other.cells:
            meets |= {frozenset({self.cells, other.cells})}
        return AxisField(
            self.stride,
            tuple(hulls),
            max(self.cells, other.cells, key=lambda cells: (cells.shortest(1), cells.stages)),
            max(self.first_clean, other.first_clean),
            _least({*self.clean_ends, *other.clean_ends}),
            meets,
        )


def _least(counts: set[CellCount]) -> frozenset[CellCount]:
    """Return the counts that may be the smallest at some length."""
    found: dict[tuple[object, ...], CellCount] = {}
    for count in counts:
        *before, (factor, shift, divisor) = count.stages
        alike = (*before, factor, divisor)
        if alike not in found or shift < found[alike].stages[-1][1]:
            found[alike] = count
    return frozenset(found.values())
