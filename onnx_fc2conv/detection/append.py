"""detector(): a converted model with the pre- and postprocessing of `scan`, in one graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.detection.boxes import write_boxes
from onnx_fc2conv.detection.pixels import write_pixels
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.reading import ModelSource
from onnx_fc2conv.geometry import GEOMETRY_KEY
from onnx_fc2conv.graphs.writer import GraphWriter
from onnx_fc2conv.scanning.model import ScanModel, scan_model
from onnx_fc2conv.scanning.prepared import Settings, as_preprocessing, as_thresholds
from onnx_fc2conv.scanning.preprocessing import PREPROCESS_KEY, Preprocessing

__all__ = ["DETECTOR_KEY", "append_detector", "detector"]

DETECTOR_KEY = "fc2conv.detector"
"""Key in the metadata of a model."""

_OLDEST = 11
"""The first opset with all operators that are appended (Range, NonMaxSuppression)."""


def detector(  # noqa: PLR0913 - the options of scan, all keyword-only
    model: ModelSource,
    *,
    preprocess: Preprocessing | str | None = None,
    classes: Sequence[int] | None = None,
    background: Sequence[int] = (),
    threshold: float | Mapping[int, float] = 0.5,
    iou: float = 0.3,
    agnostic: bool = False,
    output: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> ir.Model:
    """Return a model from images of any size to the boxes that `scan` finds, in one file.

    Its input is ``image``, uint8 [H, W, C]; its outputs are ``boxes`` (float32 [D, 4]: x and y of
    the first corner, then of the second, in pixels), ``scores`` (float32 [D]) and ``classes``
    (int64 [D]), the best first. `onnx_fc2conv.detection.check_detector` compares it with `scan`.

    Args:
        model: A converted model, or an original one that is converted on the fly; never changed.
        preprocess: As for `scan`, like all further arguments.
        classes: Indices of the classes to find. Default: all.
        background: Indices of classes not to find, such as the background.
        threshold: The lowest score of a box, for all classes or by class.
        iou: A box that overlaps a better one of its class by more than this is dropped.
        agnostic: Let boxes of all classes compete: an object has one class.
        output: The output to read, where there are several.
        input_shapes: As for `convert`.

    Raises:
        RefusedError: If the model cannot be converted, or gives no map of windows.
        ArgumentError: If an argument does not fit the model, or its opset is older than 11.
        InvalidModelError: If the model is not valid.

    Example:
        >>> found = detector("models/face25.onnx", background=[0], threshold=0.9)
        >>> [value.name for value in found.graph.outputs]
        ['boxes', 'scores', 'classes']
    """
    settings = Settings(
        preprocess=as_preprocessing(preprocess),
        classes=None if classes is None else tuple(classes),
        background=tuple(background),
        threshold=as_thresholds(threshold),
        iou=iou,
        agnostic=agnostic,
    )
    return append_detector(scan_model(model, input_shapes=input_shapes, output=output), settings)


def append_detector(scanning: ScanModel, settings: Settings) -> ir.Model:
    """Append a scan's pre- and postprocessing to a copy of its model.

    Raises:
        ArgumentError: As `detector`.
    """
    preprocessing = scanning.preprocessing.overridden(settings.preprocess)
    channels = 3 if preprocessing.order(scanning.channels) else scanning.channels
    preprocessing.check(channels, scanning.channels)
    selection = settings.selection(scanning.classes)
    model = scanning.model.clone()
    graph = model.graph
    own = next(value for value in graph.inputs if value.name == scanning.input)
    scores = next(value for value in graph.outputs if value.name == scanning.output)
    opset = graph.opset_imports[""]
    if opset < _OLDEST:
        raise ArgumentError(
            f"a detector needs operators of opset {_OLDEST}; the model is of opset {opset}: "
            "export it at a newer one"
        )
    writer = GraphWriter(model, "detector")
    image = ir.val("image", ir.DataType.UINT8, ["height", "width", _channels(channels)])
    pixels = write_pixels(writer.before(graph[0]), image, scanning, preprocessing)
    own.replace_all_uses_with(pixels)
    graph.inputs[graph.inputs.index(own)] = image
    at = writer.at_end()
    found = write_boxes(at, scores, image, scanning.classes, scanning.geometry, selection)
    graph.outputs[:] = found
    for value, (name, dtype, shape) in zip(found, _OUTPUTS, strict=True):
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
        _rename(writer, value, name)
    _rename(writer, image, "image")
    RemoveUnusedNodesPass()(model)
    for key in (GEOMETRY_KEY, PREPROCESS_KEY):  # they speak of another input and output
        model.metadata_props.pop(key, None)
    model.metadata_props[DETECTOR_KEY] = _described(scanning, preprocessing, settings)
    return model


_OUTPUTS: tuple[tuple[str, ir.DataType, tuple[int | str, ...]], ...] = (
    ("boxes", ir.DataType.FLOAT, ("detections", 4)),
    ("scores", ir.DataType.FLOAT, ("detections",)),
    ("classes", ir.DataType.INT64, ("detections",)),
)


def _rename(writer: GraphWriter, value: ir.Value, name: str) -> None:
    """Give a tensor this name; what had it gets another."""
    graph = writer.graph
    for other in (*graph.inputs, *(v for n in graph for v in n.outputs)):
        if other.name == name and other is not value:
            other.name = writer.names.fresh(f"{name}.inner")
    value.name = name


def _channels(count: int) -> int | str:
    """Return the dim of an image's channels: free where gray and color convert into each other."""
    return "channels" if count == 3 else count


def _described(scanning: ScanModel, preprocessing: Preprocessing, settings: Settings) -> str:
    """Describe the detector as JSON, for people and programs that find the file."""
    selection = settings.selection(scanning.classes)
    geometry = scanning.geometry
    said = {key: value for key, value in asdict(preprocessing).items() if value is not None}
    return json.dumps(
        {
            "schema": 1,
            "preprocess": said,
            "window": geometry.window,
            "stride": geometry.stride,
            "offset": geometry.offset,
            "verdict": geometry.verdict,
            "thresholds": {str(label): t for label, t in selection.thresholds.items()},
            "iou": selection.iou,
            "agnostic": selection.agnostic,
        }
    )
