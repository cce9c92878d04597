"""A folder of images as samples.

An image is made gray or RGB for a model of one or three channels, center-cropped to the
proportions of the native size, resized to it (bilinear), and divided by 255 to floats in 0..1; an
integer input gets 0..255. No mean is subtracted and no standard deviation divided out: store
samples that need this in an ``.npz`` file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.inputs import image_axes
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["image_files", "read_images"]

_ENDINGS = (".png", ".jpg", ".jpeg")
_MODES = {1: "L", 3: "RGB"}


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, in the order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)


def read_images(files: Sequence[Path], pair: Pair) -> dict[str, AnyArray]:
    """The images as samples of the models' only input.

    Raises:
        ArgumentError: If Pillow is missing, or the input is no image of one or three channels.
        OSError: If a file is no image.
    """
    (own,) = pair.inputs
    native = pair.native[own.name]
    found = {value.name: axes for value, axes in image_axes(pair.reference.graph).items()}
    axes = found.get(own.name, (0, None))
    channels, spatial = axes[1], [axis for axis in axes[2:] if axis is not None]
    mode = _MODES.get(1 if channels is None else native[channels])
    if len(spatial) != 2 or axes[0] is None or mode is None:
        raise ArgumentError(
            f"images do not fit the input {own.name!r} of shape {list(native)}: it does not "
            "have two spatial axes and one or three channels"
        )
    height, width = (native[axis] for axis in spatial)
    rows = np.stack([_pixels(file, mode, (width, height)) for file in files])
    samples: AnyArray = rows.transpose(0, 3, 1, 2)
    if channels is None:
        samples = samples[:, 0]
    samples = samples.transpose(np.argsort([axis for axis in axes if axis is not None]))
    if np.issubdtype(own.dtype, np.floating):
        samples = samples / 255
    return {own.name: samples.astype(own.dtype)}


def _pixels(file: Path, mode: str, size: tuple[int, int]) -> AnyArray:
    """The image as [H, W, C] of whole numbers in 0..255."""
    ops, image = _pillow("ImageOps"), _pillow("Image")
    with image.open(file) as opened:
        upright = ops.exif_transpose(opened).convert(mode)
        box = _centered(upright.size, size)
        fitted = upright.crop(box).resize(size, image.Resampling.BILINEAR)
    pixels: AnyArray = np.asarray(fitted, np.uint8).reshape(size[1], size[0], -1)
    return pixels


def _centered(image: tuple[int, int], native: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box about the center that has the proportions of the native size."""
    scale = min(image[0] / native[0], image[1] / native[1])
    width, height = (max(1, round(length * scale)) for length in native)
    left, top = (image[0] - width) // 2, (image[1] - height) // 2
    return left, top, left + width, top + height


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise ArgumentError(
            "images are read with Pillow, which is not installed: "
            'pip install "onnx-fc2conv[images]"'
        ) from error
