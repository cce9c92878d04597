"""Images from files of many kinds, read by slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.scanning.pyramid import resized
from onnx_fc2conv.scanning.sources import ArraySource, MappedSource, open_image
from tests.nets import Array

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
Write = Callable[[Path, Array], Any]


def _zarr(path: Path, pixels: Array) -> None:
    zarr.create_array(
        str(path), shape=pixels.shape, dtype=pixels.dtype, chunks=(16, 16, 3)[: pixels.ndim]
    )[...] = pixels


def _png(path: Path, pixels: Array) -> None:
    Image.fromarray(pixels).save(path)


def _tiles(path: Path, pixels: Array) -> None:
    tifffile.imwrite(path, pixels, tile=(16, 16), compression="zlib")


def _pages(path: Path, pixels: Array) -> None:
    tifffile.imwrite(path, pixels, photometric="minisblack")


KINDS: list[tuple[str, Write, Array, type]] = [
    ("a.png", _png, RGB, ArraySource),
    ("a.png", _png, RGB[..., 0], ArraySource),
    ("a.png", _png, RGB[..., 0].astype(np.uint16) * 200, ArraySource),
    ("a.npy", np.save, RGB, MappedSource),
    ("a.npy", np.save, RGB[..., 0].astype(np.float32), MappedSource),
    ("a.tif", tifffile.imwrite, RGB, MappedSource),
    ("a.tiff", _tiles, RGB, ArraySource),
    ("a.zarr", _zarr, RGB, MappedSource),
    ("a.zarr", _zarr, RGB[..., 0], MappedSource),
]


@pytest.mark.parametrize(("name", "write", "pixels", "kind"), KINDS)
def test_a_part_of_an_image(
    tmp_path: Path, name: str, write: Write, pixels: Array, kind: type
) -> None:
    write(tmp_path / name, pixels)
    source = open_image(tmp_path / name)
    assert isinstance(source, kind)
    assert source.shape == (40, 60, 1 if pixels.ndim == 2 else 3)
    expected = pixels.reshape(source.shape)[3:20, 50:60]
    np.testing.assert_array_equal(source.read(slice(3, 20), slice(50, 60)), expected)
    assert source.dtype == pixels.dtype


def test_pillow_reads_upright_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([RGB, RGB[..., 0]]))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "a.png", exif=exif)
    source = open_image(tmp_path / "a.png")
    everything = source.read(slice(None), slice(None))
    np.testing.assert_array_equal(everything, np.rot90(RGB, -1))


def _text(path: Path) -> None:
    path.write_text("no image")


def _truncated(path: Path) -> None:
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:300])


BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    ("a.png", lambda _: None, "cannot read .*a.png: No such file"),
    ("a.png", Path.mkdir, "is a folder, not an image"),
    ("a.png", _text, "no image that Pillow knows"),
    ("a.png", _truncated, "cannot read .*a.png: "),
    ("a.npy", _text, "cannot read .*a.npy: "),
    ("a.tif", _text, "cannot read .*a.tif: "),
    ("a.zarr", Path.mkdir, "holds no Zarr array"),
    ("a.npy", lambda p: np.save(p, np.zeros((2, 3, 4, 5))), r"shape \[2, 3, 4, 5\]"),
    ("a.npy", lambda p: np.save(p, np.zeros((0, 5))), r"shape \[0, 5\]"),
    ("a.npy", lambda p: np.save(p, np.zeros((5, 5), complex)), "of type complex128"),
    (
        "a.tif",
        lambda p: tifffile.imwrite(p, np.zeros((4, 9, 9)), photometric="minisblack"),
        "an image has YX or YXS",
    ),
]


@pytest.mark.parametrize(("name", "make", "reason"), BAD)
def test_what_is_no_image_is_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], Any], reason: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(ArgumentError, match=reason) as caught:
        open_image(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module"), [("a.png", "PIL"), ("a.tif", "tifffile"), ("a.zarr", "zarr")]
)
def test_a_missing_package_is_named_with_the_extra(
    tmp_path: Path, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()
    for loaded in [module, "PIL.Image", "PIL.ImageOps"]:
        monkeypatch.setitem(__import__("sys").modules, loaded, None)
    with pytest.raises(ArgumentError, match=r'not installed: pip install "onnx-fc2conv\[scan\]"'):
        open_image(tmp_path / name)


@pytest.mark.parametrize("scale", [0.31, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_scaled_in_strips_is_the_image_scaled_at_once(
    monkeypatch: pytest.MonkeyPatch, scale: float, dtype: type
) -> None:
    image = RGB.astype(dtype)
    results = []
    for rows, memory in ((1000, 1 << 27), (7, 0)):  # in memory, and in a temporary file
        monkeypatch.setattr("onnx_fc2conv.scanning.pyramid._STRIP", rows)
        monkeypatch.setattr("onnx_fc2conv.scanning.pyramid._IN_MEMORY", memory)
        small = resized(ArraySource(image), scale)
        assert small.shape == (round(40 * scale), round(60 * scale), 3)
        assert small.dtype == dtype
        results.append(small.read(slice(None), slice(None)).astype(np.float64))
    np.testing.assert_allclose(*results, atol=1 if dtype != np.float32 else 1e-3)
    assert abs(results[0].mean() - image.mean()) < 3
