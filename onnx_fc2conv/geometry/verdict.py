"""The verdict: how map cells relate to the original on crops, and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CleanCells", "ReceptiveField", "SizeRule", "TileCells", "Verdict"]

Verdict = Literal["windows exact", "border effect", "whole image", "misaligned"]
"""How the cells of an output relate to the original model on crops.

- ``windows exact``: cell p is the original model on the crop at offset + p·stride, bit for bit but
  for the order of sums, for every cell and every input size.
- ``border effect``: some layer pads; in a crop it sees padding where in a larger image it sees the
  neighboring pixels, so that the two differ.
- ``whole image``: some layer mixes all positions; a cell depends on the whole image.
- ``misaligned``: only some cells belong to a window of the image.
"""


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that can change a cell, per spatial axis.

    Attributes:
        start: First pixel of cell 0; negative where padding reaches out of the image.
        size: Number of pixels, from the first to the last.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]


@dataclass(frozen=True)
class CleanCells:
    """Cells of the feature maps that the first fully connected layer reads, inside one window.

    Attributes:
        clean: Number that see no padding in the crop: a larger image gives them the same values.
        total: Number of all.
    """

    clean: int
    total: int


@dataclass(frozen=True)
class TileCells:
    """The cells of a tile (a crop at whole strides) that equal the whole image's, per spatial axis.

    The others see padding where the image has pixels. A receptive field does not say so: a layer
    that crops and a later one that pads put padding where the tile itself has pixels.

    Attributes:
        first: The first such cell, counted in the tile; 0 if none sees padding before the image.
        reach: Cell i is such a cell if i·stride + reach is at most the length of the tile.
    """

    first: tuple[int, ...]
    reach: tuple[int, ...]


@dataclass(frozen=True)
class SizeRule:
    """The lengths of the image, along one axis, at which the model computes.

    Attributes:
        modulo: Divisor of the length beyond the window.
        remainders: The remainders at which all branches have equally many cells; others fail.
    """

    modulo: int = 1
    remainders: tuple[int, ...] = (0,)
