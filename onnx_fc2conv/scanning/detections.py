"""Boxes: windows of the cells above a threshold, at most one for each object.

Non-maximum suppression is ONNX's own operator (NonMaxSuppression-11), run in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.graphs.writer import GraphWriter, Place
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Box", "Candidates", "Selection", "candidates", "suppress", "suppression"]

_ROWS = 1 << 22
"""Scores compared at once; a map may be larger than memory."""

_MOST = 1_000_000
"""Windows above the threshold beyond which suppression would take hours."""


@dataclass(frozen=True)
class Box:
    """A window of the image in which something was found, in the image's pixels.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: Extent to the right.
        height: Extent downwards.
        label: Index of the class.
        score: The model's score of that class.
        scale: The scale of the image at which it was found.
    """

    x: float
    y: float
    width: float
    height: float
    label: int
    score: float
    scale: float = 1.0


@dataclass(frozen=True)
class Selection:
    """Which cells become boxes.

    Attributes:
        labels: The wanted classes.
        thresholds: The lowest score of each.
        iou: Boxes that overlap a better one by more than this (intersection over union) go.
        agnostic: Whether boxes of all classes compete, not only those of one class: an
            object has one class.
    """

    labels: tuple[int, ...]
    thresholds: Mapping[int, float]
    iou: float = 0.3
    agnostic: bool = False


@dataclass(frozen=True)
class Candidates:
    """Windows above the threshold.

    Attributes:
        corners: float64 [n, 4]: y and x of the first corner, then of the second, as
            NonMaxSuppression has them.
        scores: [n].
        labels: int64 [n].
        scales: float64 [n].
    """

    corners: AnyArray
    scores: AnyArray
    labels: AnyArray
    scales: AnyArray

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return all windows together."""
        names = ("corners", "scores", "labels", "scales")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def candidates(  # noqa: PLR0913 - the map, and where it lies in the image
    scores: AnyArray,
    geometry: Geometry,
    selection: Selection,
    *,
    size: tuple[int, int],
    image: tuple[int, int],
    scale: float = 1.0,
) -> Candidates:
    """Return the windows of a map whose score is at least the threshold.

    Args:
        scores: The map, [K, h, w].
        geometry: Geometry of the map.
        selection: The classes and their thresholds.
        size: Height and width of the image that the map was computed from.
        image: Height and width of the original image, which the boxes refer to.
        scale: The scale to record: the first size over the second.

    Raises:
        ArgumentError: If there are too many for non-maximum suppression.
    """
    cells = [_above(scores[label], selection.thresholds[label]) for label in selection.labels]
    if sum(len(found) for found in cells) > _MOST:
        raise ArgumentError(
            f"more than {_MOST:,} windows reach the threshold; raise --threshold, or leave a class "
            "out with --background"
        )
    found = np.concatenate(cells)
    labels = np.repeat(np.array(selection.labels, np.int64), [len(each) for each in cells])
    first = np.array(geometry.offset) + found * np.array(geometry.stride)
    corners = np.concatenate([first, first + np.array(geometry.window)], axis=1)
    corners = corners * np.tile(np.array(image) / np.array(size), 2)
    return Candidates(
        corners=np.clip(corners, 0, np.tile(image, 2)),
        scores=scores[labels, found[:, 0], found[:, 1]],
        labels=labels,
        scales=np.full(len(found), scale),
    )


def suppress(found: Candidates, selection: Selection) -> tuple[Box, ...]:
    """Return the boxes that no better one overlaps, the best first."""
    if not len(found.scores):
        return ()
    groups = np.zeros_like(found.labels) if selection.agnostic else found.labels
    session = Session(_suppression(selection.iou))
    kept = [
        index
        for group in np.unique(groups)
        for index in _kept(session, found, np.flatnonzero(groups == group))
    ]
    boxes = (_box(found, index) for index in kept)
    return tuple(sorted(boxes, key=lambda b: (-b.score, b.y, b.x, b.label, b.scale)))


def suppression(at: Place, boxes: ir.Value, scores: ir.Value, iou: float) -> ir.Value:
    """A NonMaxSuppression of boxes [1, n, 4] by their scores [1, K, n].

    Every box of a class may stay, unless its score is -inf or no number: thresholds have been
    applied before.

    Returns:
        [D, 3]: sample, class and place of each box that stays.
    """
    most, lowest = np.iinfo(np.int64).max, np.finfo(np.float32).min
    limits = ([int(most)], np.array([iou], np.float32), [float(lowest)])
    return at.node("NonMaxSuppression", boxes, scores, *limits)


def _suppression(iou: float) -> ir.Model:
    boxes = ir.val("boxes", ir.DataType.FLOAT, [1, "n", 4])
    scores = ir.val("scores", ir.DataType.FLOAT, [1, "K", "n"])
    graph = ir.Graph([boxes, scores], [], nodes=[], opset_imports={"": 11}, name="suppression")
    model = ir.Model(graph, ir_version=8)
    selected = suppression(GraphWriter(model).at_end(), boxes, scores, iou)
    selected.type, selected.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(["kept", 3])
    graph.outputs.append(selected)
    return model


def _kept(session: Session, found: Candidates, members: AnyArray) -> Iterable[int]:
    """Return the members that stay."""
    feeds = {
        "boxes": found.corners[members].astype(np.float32)[None],
        "scores": found.scores[members].astype(np.float32)[None, None],
    }
    (selected,) = session.run(feeds).values()
    return (int(index) for index in members[selected[:, 2]])


def _above(plane: AnyArray, threshold: float) -> AnyArray:
    """Return rows and columns [n, 2] of the cells that reach the threshold."""
    rows = max(1, _ROWS // plane.shape[1])
    return np.concatenate(
        [
            np.argwhere(plane[top : top + rows] >= threshold) + np.array((top, 0))
            for top in range(0, len(plane), rows)
        ]
    )


def _box(found: Candidates, index: int) -> Box:
    top, left, bottom, right = found.corners[index].tolist()
    return Box(
        x=left,
        y=top,
        width=right - left,
        height=bottom - top,
        label=int(found.labels[index]),
        score=float(found.scores[index]),
        scale=float(found.scales[index]),
    )
