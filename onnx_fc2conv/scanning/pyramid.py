"""An image at several scales: a window of one size finds objects of several."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path

import numpy as np

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.scanning.sources import ArraySource, ImageSource, MappedSource, extra
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_scales", "resized", "scaled_size"]

_STRIP = 512
"""Rows resized at once."""

_IN_MEMORY = 1 << 27
"""Bytes above which a resized image goes to a temporary file."""

_REACH = 2
"""Reach of bilinear resizing, in pixels of the smaller of two images."""


def check_scales(scales: tuple[float, ...]) -> None:
    """Check that these are valid scales.

    Raises:
        ArgumentError: If there is none, one that is not positive, or one twice.
    """
    if not scales or len(set(scales)) < len(scales) or not all(0 < s <= 16 for s in scales):
        raise ArgumentError(
            f"scales are different numbers above 0, up to 16, not {','.join(map(str, scales))}"
        )


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width at a scale, in whole pixels."""
    height, width = (max(1, round(length * scale)) for length in size)
    return height, width


def resized(source: ImageSource, scale: float) -> ImageSource:
    """Resize the image: bilinear, over as many pixels as one of the result covers (Pillow).

    It is computed in strips, always the same ones, and kept in a temporary file if it is large.

    Raises:
        ArgumentError: If Pillow is not installed.
    """
    if scale == 1:
        return source
    height, width = scaled_size(source.shape[:2], scale)
    shape = (height, width, source.shape[2])
    target: AnyArray
    if int(np.prod(shape)) * source.dtype.itemsize <= _IN_MEMORY:
        target = np.empty(shape, source.dtype)
        _fill(target, source)
        return ArraySource(target)
    folder = tempfile.mkdtemp(prefix="fc2conv-")
    path = Path(folder, "level.npy")
    small = MappedSource(partial(np.lib.format.open_memmap, path, "r"), shape, source.dtype)
    weakref.finalize(small, shutil.rmtree, folder, ignore_errors=True)
    _fill(np.lib.format.open_memmap(path, "w+", source.dtype, shape), source)
    return small


def _fill(target: AnyArray, source: ImageSource) -> None:
    image = extra("PIL.Image", "scaling an image")
    height, width = target.shape[:2]
    length, breadth = source.shape[:2]
    ratio = length / height
    around = int(_REACH * max(1.0, ratio)) + 1
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        first = max(0, int(top * ratio) - around)
        last = min(length, int(bottom * ratio) + around + 1)
        strip = source.read(slice(first, last), slice(0, breadth))
        box = (0, top * ratio - first, breadth, min(bottom * ratio - first, last - first))
        for channel in range(target.shape[2]):
            plane = image.fromarray(_readable(strip[..., channel]))
            done = plane.resize((width, bottom - top), image.Resampling.BILINEAR, box)
            target[top:bottom, :, channel] = _rounded(np.asarray(done), target)


def _readable(plane: AnyArray) -> AnyArray:
    """Convert a plane to a type that Pillow resizes."""
    return np.ascontiguousarray(plane, np.uint8 if plane.dtype == np.uint8 else np.float32)


def _rounded(plane: AnyArray, target: AnyArray) -> AnyArray:
    return np.rint(plane) if target.dtype.kind in "ui" else plane
