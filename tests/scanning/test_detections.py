"""Boxes: windows above a threshold, and one of those that overlap."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.scanning import Settings, prepare
from onnx_fc2conv.scanning.detections import Box, Candidates, Selection, candidates, suppress
from onnx_fc2conv.scanning.model import scan_model
from tests.nets import Array


@pytest.fixture(scope="module")
def geometry() -> Geometry:
    return scan_model("models/face25.onnx").geometry


ONE = Selection((1,), {1: 0.5}, iou=0.3)


def found(scores: Array, geometry: Geometry, selection: Selection = ONE) -> tuple[Box, ...]:
    size = (25 + 2 * (scores.shape[1] - 1), 25 + 2 * (scores.shape[2] - 1))
    return suppress(candidates(scores, geometry, selection, size=size, image=size), selection)


def test_a_cell_at_the_threshold_is_its_window(geometry: Geometry) -> None:
    scores = np.zeros((2, 40, 50))
    scores[1, 3, 7], scores[1, 30, 40], scores[0, 20, 20] = 0.5, 0.9, 1.0
    assert found(scores, geometry) == (
        Box(x=80, y=60, width=25, height=25, label=1, score=0.9),
        Box(x=14, y=6, width=25, height=25, label=1, score=0.5),
    )


def test_boxes_are_in_pixels_of_the_image_whatever_the_scale(geometry: Geometry) -> None:
    scores = np.zeros((2, 13, 13))
    scores[1, 2, 3] = 1
    boxes = candidates(scores, geometry, ONE, size=(50, 49), image=(200, 98), scale=0.25)
    np.testing.assert_allclose(boxes.corners, [[16, 12, 116, 62]])
    assert suppress(boxes, ONE)[0].scale == 0.25


def test_a_last_window_is_cut_where_the_image_ends(geometry: Geometry) -> None:
    scores = np.zeros((2, 3, 3))
    scores[1, 2, 2] = 1
    boxes = candidates(scores, geometry, ONE, size=(28, 28), image=(28, 28))
    np.testing.assert_array_equal(boxes.corners, [[4, 4, 28, 28]])


def test_an_object_has_one_box_and_with_agnostic_one_class(geometry: Geometry) -> None:
    scores = np.zeros((2, 60, 60))
    scores[1, 10:13, 10:13] = 0.6
    scores[1, 11, 11], scores[0, 11, 12] = 0.8, 0.7
    both = Selection((0, 1), {0: 0.5, 1: 0.5})
    assert [(b.label, b.score) for b in found(scores, geometry, both)] == [(1, 0.8), (0, 0.7)]
    one = found(scores, geometry, replace(both, agnostic=True))
    assert [(b.label, b.score) for b in one] == [(1, 0.8)]


@pytest.mark.parametrize(("iou", "seed"), [*product((0.0, 0.3, 0.7, 1.0), range(3))])
def test_suppression_is_the_greedy_one(iou: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 50, (80, 2))
    corners = np.concatenate([first, first + rng.uniform(5, 40, (80, 2))], axis=1)
    scores, labels = rng.permutation(80) / 80 - 0.5, rng.integers(0, 2, 80)
    boxes = Candidates(corners, scores, labels, np.ones(80))
    expected = []
    for label in (0, 1):
        kept: list[int] = []
        for index in np.argsort(-scores):
            if labels[index] == label and all(
                _iou(corners[index], corners[k]) <= iou for k in kept
            ):
                kept.append(int(index))
        expected += kept
    selection = Selection((0, 1), {0: -1.0, 1: -1.0}, iou=iou)
    assert sorted(b.score for b in suppress(boxes, selection)) == sorted(scores[expected])


def _iou(one: Array, other: Array) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return common / (areas - common)


def test_too_many_windows_are_an_error(geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_fc2conv.scanning.detections._MOST", 99)
    with pytest.raises(ArgumentError, match="raise --threshold"):
        found(np.ones((2, 10, 10)), geometry)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(background=(0, 1)), "no class is left"),
        (Settings(classes=(2,)), "no class 2; the model has 0 to 1"),
        (Settings(threshold={5: 0.1}), "no class 5"),
        (Settings(iou=1.5), "from 0 to 1"),
        (Settings(scales=(1, 1)), "different numbers above 0"),
        (Settings(scales=(0.5, -1)), "different numbers above 0"),
    ],
)
def test_what_cannot_be_asked_for(settings: Settings, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        prepare("models/face25.onnx", settings)
