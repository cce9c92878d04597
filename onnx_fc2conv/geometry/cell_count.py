"""How many cells a map has along one axis, for an image of any length."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

__all__ = ["CellCount", "output_length"]

Stage = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class CellCount:
    """A number of cells as a function of the length of the image, in pixels.

    Each stage (a, b, d) turns n into floor((a·n + b) / d). A sliding layer is one stage with a = 1,
    and floors of quotients compose: floor((floor((n + b) / d) + b') / d') is
    floor((n + b + b'·d) / (d·d')). So the layers of a trunk are one stage, unless some layer makes
    several cells of each (Resize) and no later stride merges them again.

    Attributes:
        stages: The stages, applied to the length of the image in this order.
    """

    stages: tuple[Stage, ...] = ((1, 0, 1),)

    @classmethod
    def constant(cls, cells: int) -> CellCount:
        """Return a fixed number of cells, whatever the length of the image."""
        return cls(((0, cells, 1),))

    def __call__(self, length: int) -> int:
        """Number of cells of an image of this length, at which each layer has a cell."""
        for factor, shift, divisor in self.stages:
            length = (factor * length + shift) // divisor
        return length

    def then(self, factor: int, shift: int, divisor: int) -> CellCount:
        """Append a stage: floor((factor·n + shift) / divisor) of these n cells."""
        *before, (a, b, d) = self.stages
        if factor == 1:
            stage = _reduced(a, b + shift * d, d * divisor)
        elif d == 1:
            stage = _reduced(factor * a, factor * b + shift, divisor)
        else:
            before.append((a, b, d))
            stage = _reduced(factor, shift, divisor)
        if before and stage[0] == 1:
            return CellCount(tuple(before)).then(*stage)
        return CellCount((*before, stage))

    def slide(self, kernel: int, stride: int, dilation: int, pads: int) -> CellCount:
        """Append a sliding layer; ``pads`` is the sum of its padding at both ends."""
        return self.then(1, pads - (kernel - 1) * dilation - 1 + stride, stride)

    def shortest(self, cells: int) -> int:
        """Return the length of the shortest image with so many cells; 0 if any length has them."""
        for factor, shift, divisor in reversed(self.stages):
            if factor == 0:
                return 0
            cells = -((shift - divisor * cells) // factor)
        return cells

    @property
    def period(self) -> int:
        """A number of pixels by which the image can grow without any remainder changing."""
        return prod(divisor for _, _, divisor in self.stages)


def output_length(length: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    """Number of cells of a sliding layer: floor((length + pads - span) / stride) + 1.

    (ONNX Conv-11, MaxPool-12 with ``ceil_mode=0``; Dumoulin & Visin 2016, arXiv 1603.07285,
    relationships 6 and 15.)
    """
    return CellCount().slide(kernel, stride, dilation, pads)(length)


def _reduced(factor: int, shift: int, divisor: int) -> Stage:
    """The same floor with the smallest numbers."""
    common = gcd(factor, divisor)
    return factor // common, shift // common, divisor // common
