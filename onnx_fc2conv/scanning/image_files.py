"""The images that the arguments of a command name: files, folders and patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.scanning.outputs import is_result

__all__ = ["image_files"]

_ENDINGS = (".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".zarr")


def image_files(named: Sequence[Path]) -> list[Path]:
    """The images, each once.

    A folder means the images in it, in the order of their names, without hidden files and results
    of an earlier scan. A pattern (``*.png``) is expanded: the shells of Windows leave that to
    programs. The name of an existing file is not a pattern.

    Raises:
        ArgumentError: If a folder has no image, or nothing matches a pattern.
    """
    return list(dict.fromkeys(file for path in named for file in _files(path)))


def _files(path: Path) -> Iterator[Path]:
    if path.exists() or not any(character in str(path) for character in "*?["):
        yield from _in_folder(path)
        return
    found = sorted(glob(str(path)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise ArgumentError(f"no image matches {path}")
    for name in found:
        yield from _in_folder(Path(name))


def _in_folder(path: Path) -> Iterator[Path]:
    """Yield the images of a folder, or the path itself if it is none."""
    if not path.is_dir() or path.suffix.lower() == ".zarr":
        yield path
        return
    images = [
        file
        for file in sorted(path.iterdir())
        if file.suffix.lower() in _ENDINGS
        and not file.name.startswith(".")
        and not is_result(file.name)
    ]
    if not images:
        raise ArgumentError(f"{path} has no images ({', '.join(_ENDINGS)})")
    yield from images
