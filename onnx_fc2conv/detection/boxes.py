"""`candidates` and `suppress` in ONNX: from a map of scores to boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.graphs.writer import Place
from onnx_fc2conv.scanning.detections import Selection, suppression
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["THRESHOLDS", "stored_thresholds", "write_boxes"]

THRESHOLDS = "detector.thresholds"
"""Name of the constant: float32 [1, classes that are looked for, 1]."""


@dataclass(frozen=True)
class _Cells:
    """The map, row by row.

    Attributes:
        count: Number n of its cells, a scalar.
        corners: float32 [n, 4], the windows: x and y of the first corner, then of the second.
        scores: float32 [1, L, n] of the wanted classes.
        low: bool, likewise: whether the score is below the threshold.
    """

    count: ir.Value
    corners: ir.Value
    scores: ir.Value
    low: ir.Value


def write_boxes(  # noqa: PLR0913 - the map, and where it lies in the image
    at: Place,
    scores: ir.Value,
    image: ir.Value,
    classes: int,
    geometry: Geometry,
    selection: Selection,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Write nodes for the boxes [D, 4], their scores [D] and classes [D], the best first.

    Args:
        at: Where nodes go.
        scores: The map [1, K, h, w] or [1, h, w].
        image: The image [H, W, C], read for its size.
        classes: Number K of channels of the map.
        geometry: Geometry of the map.
        selection: The classes and their thresholds.
    """
    # onnxruntime computes float16 in float32, and would leave out two casts that follow each other.
    rounded = at.node("Reshape", scores, [1, classes, -1])
    flat = at.cast(rounded, ir.DataType.FLOAT)
    wanted = at.node("Gather", flat, selection.labels, axis=1)
    assert scores.dtype is not None
    lowest = stored_thresholds(selection, scores.dtype.numpy())
    thresholds = at.writer.constant(THRESHOLDS, lowest)
    count = at.node("Gather", at.node("Shape", flat), np.array(2))
    corners = _windows(at, scores, count, image, geometry)
    cells = _Cells(count, corners, wanted, at.node("Less", wanted, thresholds))
    choose = _of_all_classes if selection.agnostic else _of_each_class
    labels, places = choose(at, cells, selection.iou)
    index = at.node("Add", at.node("Mul", labels, count), places)
    found = at.node("Gather", at.node("Reshape", wanted, [-1]), index)
    best, order = _sorted(at, found)
    boxes = at.node("Gather", corners, at.node("Gather", places, order))
    numbers = at.writer.constant("detector.classes", np.array(selection.labels, np.int64))
    return boxes, best, at.node("Gather", numbers, at.node("Gather", labels, order))


def stored_thresholds(selection: Selection, dtype: np.dtype[Any]) -> AnyArray:
    """Return float32 [1, L, 1], rounded as NumPy rounds a number to compare it with this type."""
    lowest = np.array([selection.thresholds[label] for label in selection.labels])
    rounded = lowest if dtype.kind in "iu" else lowest.astype(dtype)
    array: AnyArray = rounded.astype(np.float32)[None, :, None]
    return array


def _windows(
    at: Place, scores: ir.Value, count: ir.Value, image: ir.Value, geometry: Geometry
) -> ir.Value:
    """Return [n, 4]: the window of every cell, clipped to the image.

    Cells are counted in integers; pixels are float32, exact up to 16,777,216.
    """
    width = at.node("Gather", at.node("Shape", scores), [-1])
    cells = at.node("Range", np.array(0), count, np.array(1))
    rows = at.node("Div", cells, width)
    columns = at.node("Sub", cells, at.node("Mul", rows, width))
    both = (at.node("Reshape", axis, [-1, 1]) for axis in (columns, rows))
    places = at.cast(at.node("Concat", *both, axis=1), ir.DataType.FLOAT)
    stride, offset, window = (
        [float(value) for value in values[::-1]]
        for values in (geometry.stride, geometry.offset, geometry.window)
    )
    first = at.node("Add", at.node("Mul", places, stride), offset)
    second = at.node("Add", first, window)
    corners = at.node("Concat", first, second, axis=1)
    size = at.node("Gather", at.node("Shape", image), [1, 0, 1, 0])
    limits = at.cast(size, ir.DataType.FLOAT)
    return at.node("Min", at.node("Max", corners, [0.0]), limits)


def _of_each_class(at: Place, cells: _Cells, iou: float) -> tuple[ir.Value, ir.Value]:
    """Which class (its place among those looked for) and cell each box is that stays, [D]."""
    nothing = [-np.inf]
    high = at.node("Where", cells.low, nothing, cells.scores)
    selected = suppression(at, at.unsqueeze(cells.corners, [0]), high, iou)
    label, place = (at.node("Gather", selected, np.array(c), axis=1) for c in (1, 2))
    return label, place


def _of_all_classes(at: Place, cells: _Cells, iou: float) -> tuple[ir.Value, ir.Value]:
    """The same where boxes of all classes compete: those above the threshold, in one row."""
    high = at.node("NonZero", at.node("Not", cells.low))
    labels, places = (at.node("Gather", high, np.array(axis)) for axis in (1, 2))
    scores = at.node("GatherND", cells.scores, at.node("Transpose", high, perm=(1, 0)))
    corners = at.unsqueeze(at.node("Gather", cells.corners, places), [0])
    rows = at.unsqueeze(scores, [0, 1])
    selected = suppression(at, corners, rows, iou)
    index = at.node("Gather", selected, np.array(2), axis=1)
    return at.node("Gather", labels, index), at.node("Gather", places, index)


def _sorted(at: Place, scores: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The scores from the highest to the lowest, and where they were."""
    node = ir.node("TopK", [scores, at.node("Shape", scores)], {"axis": 0}, num_outputs=2)
    at.put(node)
    best, order = node.outputs
    return best, order
