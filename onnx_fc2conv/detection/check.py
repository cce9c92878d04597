"""Tier *detector*: the file finds what `scan` finds with the converted model, box by box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.detection.boxes import THRESHOLDS, stored_thresholds
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.geometry import Geometry, SizeRule
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.scanning.detections import Box, Selection, candidates, suppress
from onnx_fc2conv.scanning.model import ScanModel
from onnx_fc2conv.scanning.prepared import PreparedScan, Settings
from onnx_fc2conv.scanning.result import Scan
from onnx_fc2conv.scanning.sources import ArraySource
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_detector"]

_TIER = "detector"

_GROWTH = ((0.0, 0.0), (0.3, 0.8), (1.2, 0.5), (1.5, 2.1))
"""Growth of the images beyond one window, in windows, down and to the right."""

_SHARE = (0.1, 0.3)
"""The shares of a class's cells between which the lowered threshold lies, at the widest gap."""

_RTOL = 1.5e-5
"""Relative to an image's largest score of a class: 128 ulps of float32, as in other tiers."""


def check_detector(
    detector: ModelSource, scanning: ScanModel, settings: Settings, *, seed: int = 0
) -> tuple[TierResult, ...]:
    """Compare a detector with `scan` on random images: the native size and three larger ones.

    The detector's own thresholds may leave nothing to compare. So the second comparison lowers them
    in both, until a tenth to a third of the windows of each class are above them; everything else
    in the file runs as it is.

    Args:
        detector: The model of `append_detector`, as it was written.
        scanning: The converted model.
        settings: The settings of the detector.
        seed: Seed of the random images.

    Returns:
        One result with the thresholds as they are, one with lowered ones.
    """
    model = as_model(detector)
    prepared = PreparedScan(scanning, settings)
    scans = [prepared.run(ArraySource(pixels)) for pixels in _images(scanning, prepared, seed)]
    expected = [scan.boxes for scan in scans]
    own = _compared(Session(model), scans, expected, "its own thresholds")
    lowered = replace(prepared.selection, thresholds=_lowered(scans, prepared.selection))
    _set_thresholds(model, stored_thresholds(lowered, scans[0].scores.dtype))
    expected = [_boxes(scan, lowered) for scan in scans]
    return own, _compared(Session(model), scans, expected, "lowered thresholds")


def _images(scanning: ScanModel, prepared: PreparedScan, seed: int) -> list[AnyArray]:
    """Random images uint8 [H, W, C] of the sizes to compare at, color and gray in turns."""
    rng = np.random.default_rng((seed, 5))
    known = prepared.preprocessing.order(scanning.channels) is not None
    channels = (3, 1) if known else (scanning.channels,)
    sizes = (_size(scanning.geometry, growth) for growth in _GROWTH)
    return [
        rng.integers(0, 256, (*size, channels[number % len(channels)]), dtype=np.uint8)
        for number, size in enumerate(sizes)
    ]


def _size(geometry: Geometry, growth: Sequence[float]) -> tuple[int, int]:
    """Return a window's size grown by this many windows, rounded up to one that the model takes."""
    height, width = (
        _fitting(rule, window, math.ceil(window * more))
        for rule, window, more in zip(geometry.sizes, geometry.window, growth, strict=True)
    )
    return height, width


def _fitting(rule: SizeRule, window: int, more: int) -> int:
    """Return the first length at least ``more`` beyond a window at which branches fit together."""
    rest = next(r for r in range(more, more + rule.modulo) if r % rule.modulo in rule.remainders)
    return window + rest


def _boxes(scan: Scan, selection: Selection) -> tuple[Box, ...]:
    """Return the boxes of maps that have been computed."""
    size = scan.levels[0].size
    found = candidates(scan.scores, scan.geometry, selection, size=size, image=size)
    return suppress(found, selection)


def _compared(
    session: Session, scans: Sequence[Scan], expected: Sequence[tuple[Box, ...]], subject: str
) -> TierResult:
    """Run the detector on all images; fail at the first on which it finds other boxes."""
    if session.not_loaded is not None:
        why = f"onnxruntime does not run it: {session.not_loaded}"
        return TierResult(_TIER, subject, "failed", why)
    count, worst, sizes = 0, 0.0, list[str]()
    for scan, boxes in zip(scans, expected, strict=True):
        pixels = scan.image.read(slice(None), slice(None))
        size, count = "×".join(map(str, pixels.shape[:2])), count + len(boxes)
        try:
            made = session.run({"image": pixels})
        except RunError as error:
            return TierResult(_TIER, subject, "failed", f"it does not run at {size}: {error}")
        corners, scores = _sorted(made["boxes"], made["scores"], made["classes"])
        own_corners, own_scores = _sorted(*_arrays(boxes))
        if not np.array_equal(corners, own_corners):
            why = f"at {size} it finds {_named(corners)}; scan {_named(own_corners)}"
            return TierResult(_TIER, subject, "failed", why, count)
        off = float(np.abs(scores - own_scores).max(initial=0))
        worst = max(worst, off)
        largest = np.abs(scan.scores).max(axis=(1, 2))[corners[:, 4].astype(np.int64)]
        if not np.all(np.abs(scores - own_scores) <= _RTOL * largest.astype(np.float32)):
            why = f"at {size} a score differs from scan's by {off:.3g}"
            return TierResult(_TIER, subject, "failed", why, count, worst)
        sizes.append(size)
    what = f"{count} boxes with their scores and classes are those of scan, at {', '.join(sizes)}"
    return TierResult(_TIER, subject, "passed", what, count, worst)


def _arrays(boxes: Sequence[Box]) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Corners [D, 4], scores [D] and classes [D], as a detector gives them."""
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
    return (
        np.array(corners, np.float32).reshape(-1, 4),
        np.array([box.score for box in boxes], np.float32),
        np.array([box.label for box in boxes], np.int64),
    )


def _sorted(boxes: AnyArray, scores: AnyArray, classes: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return boxes with classes [D, 5] and their scores, in an order that ties do not change."""
    rows = np.concatenate([boxes, classes[:, None]], axis=1)
    order = np.lexsort(rows.T)
    return rows[order], scores[order]


def _named(rows: AnyArray) -> str:
    first = f", the first {rows[0, :4].tolist()} of class {int(rows[0, 4])}" if len(rows) else ""
    return f"{len(rows)} boxes{first}"


def _lowered(scans: Sequence[Scan], selection: Selection) -> dict[int, float]:
    """Return, by class, a threshold that some windows reach, far from any score."""
    return {
        label: _gap(np.sort(np.concatenate([scan.scores[label].ravel() for scan in scans]))[::-1])
        for label in selection.labels
    }


def _gap(descending: AnyArray) -> float:
    """Return the middle of the widest gap between the scores of the first windows."""
    first, last = (int(share * (len(descending) - 1)) for share in _SHARE)
    steps = descending[first : last + 1] - descending[first + 1 : last + 2]
    place = first + int(np.argmax(steps))
    upper, lower = float(descending[place]), float(descending[min(place + 1, len(descending) - 1)])
    middle = float(np.float32((upper + lower) / 2))
    return middle if lower < middle <= upper else upper


def _set_thresholds(model: ir.Model, thresholds: AnyArray) -> None:
    """Put other thresholds into a detector."""
    tensor = ir.tensor(thresholds, name=THRESHOLDS)
    model.graph.initializers[THRESHOLDS].const_value = tensor
