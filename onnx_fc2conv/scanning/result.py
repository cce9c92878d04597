"""The result of scanning an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.scanning.detections import Box, Selection
from onnx_fc2conv.scanning.sources import ImageSource
from onnx_fc2conv.scanning.tiles import TilePlan
from onnx_fc2conv.views.maps.labels import AnyArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Level", "Scan"]


@dataclass(frozen=True)
class Level:
    """The map of an image at one scale.

    Attributes:
        scale: The scale.
        size: Height and width of the image there.
        plan: The tiles that it was computed in.
        scores: The map [K, h, w] of the model's outputs, probabilities or not.
    """

    scale: float
    size: tuple[int, int]
    plan: TilePlan
    scores: AnyArray


@dataclass(frozen=True)
class Scan:
    """The result of scanning an image.

    Attributes:
        image: The image.
        geometry: Geometry of the maps.
        levels: The map at each scale.
        selection: Which cells became boxes.
        boxes: The boxes that are left after non-maximum suppression, the best first.
    """

    image: ImageSource
    geometry: Geometry
    levels: tuple[Level, ...]
    selection: Selection
    boxes: tuple[Box, ...]

    @property
    def scores(self) -> AnyArray:
        """The map [K, h, w] at the first scale."""
        return self.levels[0].scores

    def overlay(self, *, largest: int = 2048) -> Image:
        """Draw the image with a heat map of the best class, and the boxes.

        Args:
            largest: Number of pixels of its longer side at most.

        Raises:
            ArgumentError: If Pillow is not installed.
        """
        from onnx_fc2conv.scanning.overlay import draw  # noqa: PLC0415 - Pillow may not be there

        return draw(self, largest)
