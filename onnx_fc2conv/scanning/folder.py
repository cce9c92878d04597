"""Scanning files into a folder, where an interrupted scan can resume."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.runtime.session import runtime_version
from onnx_fc2conv.scanning.journal import Journal
from onnx_fc2conv.scanning.outputs import (
    ImageBoxes,
    coco,
    map_name,
    overlay_name,
    table,
    write_text,
    write_tiff,
    write_zarr,
)
from onnx_fc2conv.scanning.prepared import PreparedScan, Progress
from onnx_fc2conv.scanning.result import Scan
from onnx_fc2conv.scanning.score_maps import FileMap
from onnx_fc2conv.scanning.sources import ImageSource, open_image

__all__ = ["MapFormat", "ScanFolder"]

MapFormat = Literal["tiff", "zarr"]

_BOXES = ("boxes.json", "boxes.csv")


@dataclass
class ScanFolder:
    """The folder that scans are written to.

    Attributes:
        path: The folder; created if missing.
        overwrite: Whether its files may be replaced.
        resume: Whether an interrupted scan continues.
        formats: Formats that score maps are written in beside .npy.
    """

    path: Path
    overwrite: bool = False
    resume: bool = False
    formats: Sequence[MapFormat] = ()
    _journals: list[Journal] = field(default_factory=list)
    _images: list[ImageBoxes] = field(default_factory=list)

    def check(self, images: Sequence[Path], scales: Sequence[float]) -> None:
        """Check before any work that results may be written.

        Raises:
            ArgumentError: If two images would be written to one file, or a file exists that may
                not be replaced.
        """
        stems: dict[str, Path] = {}
        for image in images:
            other = stems.setdefault(image.stem, image)
            if other != image:
                raise ArgumentError(
                    f"{other} and {image} would both be written to "
                    f"{map_name(image.stem, scales[0])}; scan them into two folders"
                )
        there = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ArgumentError(f"cannot write {self.path}: {there} is no folder to write to")
        if self.overwrite:
            return
        begun = [stem for stem in stems if self._journal_path(stem).exists()]
        if begun and not self.resume:
            raise ArgumentError(
                f"{self.path} has an interrupted scan of {begun[0]}: --resume goes on with it, "
                "--overwrite begins anew"
            )
        for name in self._names(stems, begun, scales):
            if (self.path / name).exists():
                raise ArgumentError(f"{self.path / name} exists already; --overwrite replaces it")

    def scan(
        self, prepared: PreparedScan, image: Path, progress: Progress | None = None
    ) -> tuple[Scan, tuple[Path, ...]]:
        """Scan one image; return the scan and the files written.

        Raises:
            ArgumentError: If the image cannot be scanned, or is not the one of the interrupted
                scan.
            RefusedError: If it cannot be tiled.
        """
        source = open_image(image)
        journal = Journal(self._journal_path(image.stem), _job(prepared, source, image))
        self._check_names(journal, image)
        files: list[Path] = []

        def map_of(level: int, scale: float, shape: tuple[int, int, int]) -> FileMap:
            files.append(self.path / map_name(image.stem, scale))
            if not journal.done:
                files[-1].unlink(missing_ok=True)
            return FileMap(files[-1], shape, journal, level)

        prepared.plans(source)  # a bad image leaves nothing behind
        self.path.mkdir(parents=True, exist_ok=True)
        if self.resume and journal.path.exists():
            journal.resume()
        else:
            journal.start()
        found = prepared.run(source, map_of, progress)
        self._journals.append(journal)
        self._images.append(ImageBoxes(image.name, found))
        files += self._write(found, image.stem)
        return found, tuple(files)

    def finish(self) -> tuple[Path, ...]:
        """Write the boxes of all images; return the files."""
        paths = tuple(self.path / name for name in _BOXES)
        if self._images:
            for path, text in zip(paths, (coco(self._images), table(self._images)), strict=True):
                write_text(path, text)
        for journal in self._journals:
            journal.finish()
        return paths if self._images else ()

    def _write(self, found: Scan, stem: str) -> Iterator[Path]:
        """The picture, and the maps in other formats."""
        picture = self.path / overlay_name(stem)
        found.overlay().save(picture)
        yield picture
        for name in self.formats:
            for level in found.levels:
                path = self.path / map_name(stem, level.scale, name)
                (write_tiff if name == "tiff" else write_zarr)(path, level.scores)
                yield path

    def _check_names(self, journal: Journal, image: Path) -> None:
        """Check that no other image of this run has results of the same names, ignoring case.

        Raises:
            ArgumentError: If there is one.
        """
        if not journal.path.exists():
            return
        for other, begun in zip(self._images, self._journals, strict=True):
            if begun.path.samefile(journal.path):
                raise ArgumentError(
                    f"{image} and {other.name} would both be written to {begun.path.stem}.*: case "
                    "does not count there; scan them into two folders"
                )

    def _journal_path(self, stem: str) -> Path:
        return self.path / f"{stem}.journal"

    def _names(
        self, stems: Sequence[str] | dict[str, Path], begun: Sequence[str], scales: Sequence[float]
    ) -> Iterator[str]:
        """Yield the result files of images without an interrupted scan."""
        if not begun:
            yield from _BOXES
        for stem in stems:
            if stem in begun:
                continue
            yield from (map_name(stem, scale) for scale in scales)
            yield overlay_name(stem)
            yield from (map_name(stem, s, ending) for s in scales for ending in self.formats)


def _job(prepared: PreparedScan, source: ImageSource, image: Path) -> dict[str, Any]:
    """Return everything that must be the same for a scan to resume."""
    scanning, status = prepared.scanning, image.stat()
    return {
        "model": scanning.digest,
        "output": scanning.output,
        "image": [str(image.absolute()), status.st_size, status.st_mtime_ns],
        "pixels": [*source.shape, str(source.dtype)],
        "preprocessing": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(prepared.preprocessing).items()
        },
        "scales": list(prepared.scales),
        "memory": [list(plan.tile_size) for plan in prepared.plans(source)],
        "onnxruntime": runtime_version(),
    }
