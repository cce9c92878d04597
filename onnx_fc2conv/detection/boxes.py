"""`candidates` and `suppress` in ONNX: from a map of scores to boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.detection.graph_writer import GraphWriter
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.scanning.detections import Selection, suppression_nodes
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["THRESHOLDS", "stored_thresholds", "write_boxes"]

THRESHOLDS = "thresholds"
"""Name of the constant, behind ``detector.``: float32 [1, classes that are looked for, 1]."""


@dataclass(frozen=True)
class _Cells:
    """The map, row by row.

    Attributes:
        count: Number n of its cells, a scalar.
        corners: float32 [n, 4], the windows: x and y of the first corner, then of the second.
        scores: float32 [1, L, n] of the classes that are looked for.
        low: bool, likewise: whether the score is below the threshold.
    """

    count: ir.Value
    corners: ir.Value
    scores: ir.Value
    low: ir.Value


def write_boxes(  # noqa: PLR0913 - the map, and where it lies in the image
    writer: GraphWriter,
    scores: ir.Value,
    image: ir.Value,
    classes: int,
    geometry: Geometry,
    selection: Selection,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The boxes [D, 4], their scores [D] and classes [D], the best first.

    Args:
        writer: Where nodes go.
        scores: The map [1, K, h, w] or [1, h, w].
        image: [H, W, C], of which the size is taken.
        classes: Number K of channels of the map.
        geometry: What its cells mean.
        selection: The classes and their thresholds.
    """
    # onnxruntime computes float16 in float32, and would leave out two casts that follow each other.
    rounded = writer.node("Reshape", scores, [1, classes, -1])
    flat = writer.cast(rounded, ir.DataType.FLOAT)
    wanted = writer.node("Gather", flat, selection.labels, axis=1)
    assert scores.dtype is not None
    thresholds = writer.constant(stored_thresholds(selection, scores.dtype.numpy()), THRESHOLDS)
    count = writer.node("Gather", writer.node("Shape", flat), np.array(2))
    corners = _windows(writer, scores, count, image, geometry)
    cells = _Cells(count, corners, wanted, writer.node("Less", wanted, thresholds))
    choose = _of_all_classes if selection.agnostic else _of_each_class
    labels, places = choose(writer, cells, selection.iou)
    index = writer.node("Add", writer.node("Mul", labels, count), places)
    found = writer.node("Gather", writer.node("Reshape", wanted, [-1]), index)
    best, order = _sorted(writer, found)
    boxes = writer.node("Gather", corners, writer.node("Gather", places, order))
    numbers = writer.constant(np.array(selection.labels, np.int64), "classes")
    return boxes, best, writer.node("Gather", numbers, writer.node("Gather", labels, order))


def stored_thresholds(selection: Selection, dtype: np.dtype[Any]) -> AnyArray:
    """float32 [1, L, 1], rounded as NumPy does that compares a map of this type with a number."""
    lowest = np.array([selection.thresholds[label] for label in selection.labels])
    rounded = lowest if dtype.kind in "iu" else lowest.astype(dtype)
    array: AnyArray = rounded.astype(np.float32)[None, :, None]
    return array


def _windows(
    writer: GraphWriter, scores: ir.Value, count: ir.Value, image: ir.Value, geometry: Geometry
) -> ir.Value:
    """[n, 4]: the window of every cell, cut where the image ends.

    Cells are counted in integers; pixels are float32, exact up to 16,777,216.
    """
    width = writer.node("Gather", writer.node("Shape", scores), [-1])
    cells = writer.node("Range", np.array(0), count, np.array(1))
    rows = writer.node("Div", cells, width)
    columns = writer.node("Sub", cells, writer.node("Mul", rows, width))
    both = (writer.node("Reshape", axis, [-1, 1]) for axis in (columns, rows))
    places = writer.cast(writer.node("Concat", *both, axis=1), ir.DataType.FLOAT)
    stride, offset, window = (
        [float(value) for value in values[::-1]]
        for values in (geometry.stride, geometry.offset, geometry.window)
    )
    first = writer.node("Add", writer.node("Mul", places, stride), offset)
    second = writer.node("Add", first, window)
    corners = writer.node("Concat", first, second, axis=1)
    size = writer.node("Gather", writer.node("Shape", image), [1, 0, 1, 0])
    limits = writer.cast(size, ir.DataType.FLOAT)
    return writer.node("Min", writer.node("Max", corners, [0.0]), limits)


def _of_each_class(writer: GraphWriter, cells: _Cells, iou: float) -> tuple[ir.Value, ir.Value]:
    """Which class (its place among those looked for) and cell each box is that stays, [D]."""
    nothing = [-np.inf]
    high = writer.node("Where", cells.low, nothing, cells.scores)
    selected = _suppressed(writer, writer.unsqueezed(cells.corners, 0), high, iou)
    label, place = (writer.node("Gather", selected, np.array(c), axis=1) for c in (1, 2))
    return label, place


def _of_all_classes(writer: GraphWriter, cells: _Cells, iou: float) -> tuple[ir.Value, ir.Value]:
    """The same where boxes of all classes compete: those above the threshold, in one row."""
    high = writer.node("NonZero", writer.node("Not", cells.low))
    labels, places = (writer.node("Gather", high, np.array(axis)) for axis in (1, 2))
    scores = writer.node("GatherND", cells.scores, writer.node("Transpose", high, perm=(1, 0)))
    corners = writer.unsqueezed(writer.node("Gather", cells.corners, places), 0)
    rows = writer.unsqueezed(writer.unsqueezed(scores, 0), 0)
    selected = _suppressed(writer, corners, rows, iou)
    index = writer.node("Gather", selected, np.array(2), axis=1)
    return writer.node("Gather", labels, index), writer.node("Gather", places, index)


def _suppressed(writer: GraphWriter, corners: ir.Value, scores: ir.Value, iou: float) -> ir.Value:
    """[D, 3]: sample, class and place of each box that stays."""
    node, constants = suppression_nodes(corners, scores, iou)
    writer.adopt(node, constants)
    return node.outputs[0]


def _sorted(writer: GraphWriter, scores: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The scores from the highest to the lowest, and where they were."""
    node = ir.node("TopK", [scores, writer.node("Shape", scores)], {"axis": 0}, num_outputs=2)
    writer.adopt(node)
    best, order = node.outputs
    return best, order
