"""A picture of a scan: the image, a heat map of the scores, the boxes."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_fc2conv.scanning.detections import Box
from onnx_fc2conv.scanning.pyramid import resized
from onnx_fc2conv.scanning.result import Level, Scan
from onnx_fc2conv.scanning.sources import ArraySource, ImageSource, extra
from onnx_fc2conv.views.maps.labels import AnyArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw"]

_SMALL = 400
"""Longer side below which a picture is enlarged by a whole factor, so that labels can be read."""

_COLORS = np.array([(0, 0, 60), (110, 20, 140), (230, 60, 70), (255, 180, 30), (255, 255, 160)])
"""Colors of the heat map, from the lowest score to the highest, in equal steps."""

_OPACITY = 0.65
"""Opacity of the highest score; the lowest is transparent."""


def draw(scan: Scan, largest: int) -> Image:
    """The picture.

    Raises:
        ArgumentError: If Pillow is not installed.
    """
    image, drawing = (extra(f"PIL.{name}", "a picture") for name in ("Image", "ImageDraw"))
    font = extra("PIL.ImageFont", "a picture").load_default(size=15)
    height, width = scan.image.shape[:2]
    factor = _factor(max(height, width), largest)
    base = _visible(scan.image, factor)
    heat = _heat(scan, base.shape[:2])[..., None]
    steps = np.linspace(0, 1, len(_COLORS))
    color = np.stack([np.interp(heat[..., 0], steps, c) for c in _COLORS.T], axis=-1)
    opacity = _OPACITY * heat
    pixels = np.rint(base * (1 - opacity) + color * opacity).astype(np.uint8)
    picture: Image = image.fromarray(pixels)
    canvas = drawing.Draw(picture)
    across, down = base.shape[1] / width, base.shape[0] / height
    for box in reversed(scan.boxes):  # the best on top
        _draw_box(canvas, font, box, (across, down))
    return picture


def _factor(side: int, largest: int) -> float:
    """Return the scale from the image's pixels to the picture's."""
    if side > largest:
        return largest / side
    return max(1, min(-(-_SMALL // side), largest // side))


def _visible(source: ImageSource, factor: float) -> AnyArray:
    """The image as float [h, w, 3] of 0..255."""
    if factor > 1:
        times = int(factor)
        everything = source.read(slice(None), slice(None))
        small: ImageSource = ArraySource(everything.repeat(times, 0).repeat(times, 1))
    else:
        small = resized(source, factor)
    pixels = small.read(slice(None), slice(None)).astype(np.float32)
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    if source.dtype != np.uint8:
        low, high = np.nanmin(pixels), np.nanmax(pixels)
        pixels = (pixels - low) * (255 / max(high - low, np.finfo(np.float32).tiny))
    shown: AnyArray = np.nan_to_num(pixels)
    return shown


def _heat(scan: Scan, size: tuple[int, int]) -> AnyArray:
    """The best score of any class and scale at each pixel, [h, w], from 0 to 1.

    A cell colors one stride about the center of its window.
    """
    heat = np.full(size, np.nan, np.float32)
    for level in scan.levels:
        rows, columns = (_nearest(scan, level, axis, size[axis]) for axis in (0, 1))
        inside = np.ix_(rows >= 0, columns >= 0)
        there = np.ix_(rows[rows >= 0], columns[columns >= 0])
        for label in scan.selection.labels:
            heat[inside] = np.fmax(heat[inside], level.scores[label][there])
    if np.isnan(heat).all():
        return np.zeros(size, np.float32)
    low, high = np.nanmin(heat), np.nanmax(heat)
    if low >= 0 and high <= 1:  # probabilities
        low, high = np.float32(0), np.float32(1)
    scaled = (heat - low) / max(high - low, np.finfo(np.float32).tiny)
    filled: AnyArray = np.nan_to_num(scaled, nan=0.0)
    return filled


def _nearest(scan: Scan, level: Level, axis: int, length: int) -> AnyArray:
    """For each pixel of the picture along an axis, the cell with the nearest center; -1 if none."""
    geometry = scan.geometry
    pixels = (np.arange(length) + 0.5) * (level.size[axis] / length)
    middle = geometry.offset[axis] + geometry.window[axis] / 2
    cells = np.floor((pixels - middle) / geometry.stride[axis] + 0.5).astype(int)
    cells[(cells < 0) | (cells >= level.scores.shape[1 + axis])] = -1
    return cells


def _draw_box(canvas: Any, font: Any, box: Box, factors: tuple[float, float]) -> None:
    across, down = factors
    left, top = box.x * across, box.y * down
    right, bottom = (box.x + box.width) * across, (box.y + box.height) * down
    color = _color(box.label)
    canvas.rectangle((left, top, right - 1, bottom - 1), outline=color, width=2)
    text = f"{box.label}: {box.score:.3g}"
    x0, y0, x1, y1 = canvas.textbbox((0, 0), text, font=font)
    above = top - (y1 - y0) - 4
    corner = (left, above if above >= 0 else top)
    canvas.rectangle((*corner, corner[0] + x1 - x0 + 6, corner[1] + y1 - y0 + 4), fill=color)
    canvas.text((corner[0] + 3 - x0, corner[1] + 2 - y0), text, fill=(0, 0, 0), font=font)


def _color(label: int) -> tuple[int, int, int]:
    """A bright color for each class; neighboring numbers differ by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((0.2 + label * 0.381966) % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
