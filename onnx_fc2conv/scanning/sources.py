"""Images as arrays that are read by slices: images larger than memory stay on the disk.

A file is mapped for each read and unmapped after it: the pages of an open mapping would count
as this process's memory.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["ArraySource", "ImageSource", "MappedSource", "extra", "open_image"]


class ImageSource(Protocol):
    """An image that is read by slices."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        ...

    def read(self, rows: slice, columns: slice) -> AnyArray:
        """The pixels [rows, columns, channels], a copy or a view."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """An image in memory.

    Attributes:
        pixels: [height, width, channels].
    """

    pixels: AnyArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.pixels.shape
        return height, width, channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.pixels.dtype

    def read(self, rows: slice, columns: slice) -> AnyArray:
        """The pixels [rows, columns, channels]."""
        return self.pixels[rows, columns]


@dataclass(frozen=True)
class MappedSource:
    """An image in a file or store, opened anew for each read.

    Attributes:
        open: Gives the stored array, [height, width] or [height, width, channels].
        shape: Height, width, channels.
        dtype: Type of the pixels.
    """

    open: Callable[[], Any]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def read(self, rows: slice, columns: slice) -> AnyArray:
        """A copy of the pixels [rows, columns, channels]."""
        pixels = np.array(self.open()[rows, columns])
        return pixels.reshape(*pixels.shape[:2], self.shape[2])


def open_image(image: str | os.PathLike[str] | AnyArray) -> ImageSource:
    """Open an image from a file (PNG, JPEG, TIFF, .npy, .zarr) or an array.

    An .npy file, a .zarr store and a TIFF without compression are read where they lie, whatever
    their size; other files are decoded into memory. An array is [height, width] or [height, width,
    channels], of numbers.

    Raises:
        ArgumentError: If it cannot be read or is no image, or its reader is not installed; one line
            that names the file.
    """
    if isinstance(image, np.ndarray):
        height, width, channels = _shape("the array", image.shape, image.dtype)
        return ArraySource(image.reshape(height, width, channels))
    path = Path(image)
    reader = _READERS.get(path.suffix.lower(), _open_picture)
    try:
        if path.is_dir() and reader is not _open_zarr:
            raise ArgumentError(f"{path} is a folder, not an image")
        path.stat()
        return reader(path)
    except OSError as error:
        raise ArgumentError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, EOFError, KeyError) as error:
        raise ArgumentError(f"cannot read {path}: {_first_line(error)}") from error


def extra(module: str, what: str) -> Any:
    """Import a module that the extra ``scan`` installs.

    Raises:
        ArgumentError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"PIL": "Pillow"}.get(module.partition(".")[0], module.partition(".")[0])
        raise ArgumentError(
            f'{what} takes {package}, which is not installed: pip install "onnx-fc2conv[scan]"'
        ) from error


def _open_npy(path: Path) -> ImageSource:
    def mapped() -> Any:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    return _mapped(path, mapped)


def _open_zarr(path: Path) -> ImageSource:
    zarr = extra("zarr", "reading a .zarr store")
    try:
        array = zarr.open_array(str(path), mode="r")
    except Exception as error:
        raise ArgumentError(f"{path} holds no Zarr array: {_first_line(error)}") from error
    return _mapped(path, lambda: array)


def _open_tiff(path: Path) -> ImageSource:
    """Open a TIFF: mapped if its pixels lie in the file uncompressed, else decoded.

    Raises:
        ArgumentError: If tifffile is not installed, or the TIFF has more axes than an image.
    """
    tifffile = extra("tifffile", "reading a TIFF file")
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, plainly = series.axes, series.dataoffset is not None
            if axes not in ("YX", "YXS"):
                raise ArgumentError(f"{path} has the axes {axes}; an image has YX or YXS")
            pixels = None if plainly else series.asarray()
    except tifffile.TiffFileError as error:
        raise ArgumentError(f"cannot read {path}: {_first_line(error)}") from error
    if pixels is not None:
        return open_image(pixels)
    return _mapped(path, lambda: tifffile.memmap(path, mode="r"))


def _open_picture(path: Path) -> ImageSource:
    """Open what Pillow reads, turned upright, as RGB or gray of 8, 16 or 32 bits."""
    image, ops = (extra(f"PIL.{name}", "reading an image") for name in ("Image", "ImageOps"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image.DecompressionBombWarning)
            with image.open(path) as opened:
                upright = ops.exif_transpose(opened)
                if upright.mode == "LA":
                    upright = upright.convert("L")
                elif upright.mode not in ("L", "RGB", "F") and not upright.mode.startswith("I"):
                    upright = upright.convert("L" if upright.mode == "1" else "RGB")
                pixels = np.asarray(upright)
    except image.DecompressionBombError as error:
        raise ArgumentError(
            f"{path} is larger than Pillow decodes; store it as TIFF, .npy or .zarr"
        ) from error
    except image.UnidentifiedImageError as error:
        raise ArgumentError(f"{path} is no image that Pillow knows") from error
    return open_image(pixels)


def _mapped(path: Path, opened: Callable[[], Any]) -> MappedSource:
    array = opened()
    return MappedSource(opened, _shape(str(path), array.shape, array.dtype), array.dtype)


def _shape(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """Height, width, channels.

    Raises:
        ArgumentError: If an array of this shape or type is no image.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        raise ArgumentError(
            f"{name} has the shape {list(shape)}; an image has [height, width] or [height, width, "
            "channels]"
        )
    if dtype.kind not in "uif":
        raise ArgumentError(f"{name} is of type {dtype}; an image has numbers")
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__


_READERS: dict[str, Callable[[Path], ImageSource]] = {
    ".npy": _open_npy,
    ".zarr": _open_zarr,
    ".tif": _open_tiff,
    ".tiff": _open_tiff,
}
