"""The files of a scan: score maps, boxes as JSON and CSV, pictures.

COCO's format of detections (cocodataset.org, "Data format"): images, categories, and annotations
whose ``bbox`` is [x, y, width, height] in pixels; ``score`` is added to each.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.scanning.result import Scan
from onnx_fc2conv.scanning.sources import extra
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = [
    "ImageBoxes",
    "coco",
    "is_result",
    "map_name",
    "overlay_name",
    "table",
    "write_text",
    "write_tiff",
    "write_zarr",
]

_CHUNK = 512
"""Side of the chunks of a Zarr store, in cells."""

_COLUMNS = ("image", "label", "score", "x", "y", "width", "height", "scale")


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of one image.

    Attributes:
        name: The image's file name.
        scan: The scan of the image.
    """

    name: str
    scan: Scan


def map_name(stem: str, scale: float, ending: str = "npy") -> str:
    """File name of the score map of an image at a scale."""
    return f"{stem}.scores.{ending}" if scale == 1 else f"{stem}.scores@{scale:g}.{ending}"


def overlay_name(stem: str) -> str:
    """File name of the picture of an image."""
    return f"{stem}.overlay.png"


def is_result(name: str) -> bool:
    """Whether the name is that of a file that a scan writes."""
    return re.search(r"\.(overlay|scores(@[^@]+)?)\.(png|npy|tiff|zarr)$", name) is not None


def coco(images: Sequence[ImageBoxes]) -> str:
    """All boxes as JSON in COCO's format."""
    labels = sorted({label for image in images for label in image.scan.selection.labels})
    annotations: list[dict[str, object]] = []
    for number, image in enumerate(images, 1):
        for box in image.scan.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": box.label,
                    "bbox": [box.x, box.y, box.width, box.height],
                    "area": box.width * box.height,
                    "iscrowd": 0,
                    "score": box.score,
                    "scale": box.scale,
                }
            )
    found = {
        "images": [
            {
                "id": number,
                "file_name": image.name,
                "width": image.scan.image.shape[1],
                "height": image.scan.image.shape[0],
            }
            for number, image in enumerate(images, 1)
        ],
        "categories": [{"id": label, "name": str(label)} for label in labels],
        "annotations": annotations,
    }
    return json.dumps(found, indent=1) + "\n"


def table(images: Sequence[ImageBoxes]) -> str:
    """All boxes as CSV, with a line of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_rows(images))
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        ArgumentError: If it cannot be written, as where another program holds it open on Windows.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        # An image's name may not be valid text; its undecodable bytes are written as escapes.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error


def write_tiff(path: Path, scores: AnyArray) -> None:
    """A map [K, h, w] as a TIFF of K pages.

    Raises:
        ArgumentError: If tifffile is not installed.
    """
    tifffile = extra("tifffile", "writing a TIFF file")
    tifffile.imwrite(path, scores, photometric="minisblack", metadata={"axes": "CYX"})


def write_zarr(path: Path, scores: AnyArray) -> None:
    """A map [K, h, w] as a Zarr store, chunk by chunk.

    Raises:
        ArgumentError: If zarr is not installed.
    """
    zarr = extra("zarr", "writing a Zarr store")
    chunks = (1, *(min(_CHUNK, length) for length in scores.shape[1:]))
    try:
        stored = zarr.create_array(
            str(path), shape=scores.shape, dtype=scores.dtype, chunks=chunks, overwrite=True
        )
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error
    for label, plane in enumerate(scores):
        for top in range(0, scores.shape[1], _CHUNK):
            stored[label, top : top + _CHUNK] = np.array(plane[top : top + _CHUNK])


def _rows(images: Sequence[ImageBoxes]) -> Iterable[tuple[object, ...]]:
    for image in images:
        for box in image.scan.boxes:
            place = (box.x, box.y, box.width, box.height)
            yield (image.name, box.label, box.score, *place, box.scale)
