"""A detector file finds, in plain onnxruntime, what scan finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnx_fc2conv
from onnx_fc2conv import ArgumentError, RefusedError
from onnx_fc2conv.detection import append_detector, check_detector
from onnx_fc2conv.detection.append import DETECTOR_KEY
from onnx_fc2conv.scanning import Preprocessing, Settings
from onnx_fc2conv.scanning.model import ScanModel, scan_model
from tests.nets import Array, Net

ROOT = Path(__file__).parents[2]
FACE = {"background": [0], "threshold": 0.9}


def detect(model: ir.Model, image: Array) -> tuple[Array, Array, Array]:
    """In plain onnxruntime, with its defaults."""
    text = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(text, providers=["CPUExecutionProvider"])
    boxes, scores, classes = session.run(None, {"image": image})
    assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int64)
    return boxes, scores, classes


@pytest.mark.parametrize("channels", ["RGB", "L"])
def test_the_face_of_the_astronaut(channels: str) -> None:
    data, pillow = pytest.importorskip("skimage.data"), pytest.importorskip("PIL.Image")
    photo = pillow.fromarray(data.astronaut()).convert(channels).resize((128, 128))
    pixels = np.asarray(photo).reshape(128, 128, -1)
    model = onnx_fc2conv.detector("models/face25.onnx", **FACE)
    boxes, scores, classes = detect(model, pixels)
    (face,) = onnx_fc2conv.scan("models/face25.onnx", pixels, **FACE).boxes
    corners = [face.x, face.y, face.x + face.width, face.y + face.height]
    np.testing.assert_array_equal(boxes, [corners])
    np.testing.assert_array_equal(classes, [1])
    np.testing.assert_allclose(scores, [face.score], rtol=1e-5)


@pytest.mark.parametrize("agnostic", [False, True])
def test_nothing_is_an_empty_list(agnostic: bool) -> None:
    model = onnx_fc2conv.detector("models/face25.onnx", threshold=2, agnostic=agnostic)
    found = detect(model, np.zeros((40, 50, 3), np.uint8))
    assert [array.shape for array in found] == [(0, 4), (0,), (0,)]


def two_layers(net: Net) -> ir.Model:
    return net.ir_model(net.op("Softmax", net.head(net.trunk(), 5), axis=1))


def channels_last() -> ir.Model:
    net = Net(image=(8, 10, 3))
    y = net.op("Transpose", net.x, perm=[0, 3, 1, 2], shape=(3, 8, 10))
    y = net.op("Conv", y, net.random(4, 3, 3, 3), strides=[2, 3], shape=(4, 3, 3))
    return net.ir_model(net.head(y, 3))


def no_channels() -> ir.Model:
    net = Net(image=(8, 10))
    y = net.op("Unsqueeze", net.x, np.array([1]), shape=(1, 8, 10))
    y = net.op("Conv", y, net.random(4, 1, 3, 3), shape=(4, 6, 8))
    return net.ir_model(net.head(y, 3))


def padded() -> ir.Model:
    """Its last window reaches out of the image, for lack of pixels to stride over."""
    net = Net(image=(3, 8, 8))
    y = net.op("Conv", net.x, net.random(4, 3, 3, 3), pads=[1] * 4, strides=[2, 2])
    y = net.op("Relu", replace(y, shape=(4, 4, 4)))
    return net.ir_model(net.head(replace(y, shape=(4, 4, 4)), 2))


NETS: Mapping[str, Callable[[], ir.Model]] = {
    "opset 11": lambda: two_layers(Net(opset=11, image=(3, 8, 10))),
    "opset 12": lambda: two_layers(Net(opset=12, image=(1, 8, 10))),
    "opset 18": lambda: two_layers(Net(opset=18, image=(3, 8, 10), batch=1)),
    "float16": lambda: two_layers(Net(dtype=ir.DataType.FLOAT16, image=(3, 8, 10))),
    "two channels": lambda: two_layers(Net(image=(2, 8, 10))),
    "channels last": channels_last,
    "no channels": no_channels,
    "padded": padded,
}
SETTINGS: Mapping[str, Settings] = {
    "default": Settings(),
    "agnostic": Settings(agnostic=True, threshold={None: 0.1}),
    "a threshold for each": Settings(threshold={None: 0.2, 1: 0.3}, background=(0,), iou=0.6),
    "nothing overlaps": Settings(classes=(1,), threshold={None: -9.0}, iou=0),
    "preprocessed": Settings(Preprocessing(scale=0.01, mean=(0.5,), std=(0.3,))),
}


@pytest.mark.parametrize(
    ("net", "settings"),
    [(net, "agnostic") for net in NETS] + [("opset 18", settings) for settings in SETTINGS],
)
def test_it_finds_what_scan_finds(net: str, settings: str) -> None:
    scanning = scan_model(NETS[net]())
    model = append_detector(scanning, SETTINGS[settings])
    results = check_detector(model, scanning, SETTINGS[settings])
    assert [result.status for result in results] == ["passed"] * 2, results
    assert results[1].elements > 3
    shape = (30, 41, 2 if net == "two channels" else 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    _, scores, _ = detect(model, pixels)
    np.testing.assert_array_equal(scores, np.sort(scores)[::-1])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_channels_each_with_its_mean(order: Any) -> None:
    how = Preprocessing(channels=order, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    scanning = scan_model(two_layers(Net(image=(3, 8, 10))))
    model = append_detector(scanning, Settings(how))
    assert all(r.status == "passed" for r in check_detector(model, scanning, Settings(how)))
    other = Settings(Preprocessing(mean=(0.6, 0.5, 0.4), std=(0.4, 0.3, 0.2)))
    assert any(r.status == "failed" for r in check_detector(model, scanning, other))


def face() -> tuple[ScanModel, ir.Model]:
    scanning = scan_model("models/face25.onnx")
    return scanning, append_detector(scanning, Settings(background=(0,)))


def stored(model: ir.Model, like: Array) -> list[ir.Value]:
    """The constants that the detector has with this content."""
    return [
        value
        for name, value in model.graph.initializers.items()
        if name.startswith("detector.")
        and value.const_value is not None
        and np.array_equal(value.const_value.numpy(), like)
    ]


@pytest.mark.parametrize(
    ("what", "like", "wrong"),
    [
        ("stride", [2.0, 2.0], [2.0, 1.0]),
        ("offset", [0.0, 0.0], [0.0, 1.0]),
        ("window", [25.0, 25.0], [26.0, 25.0]),
        ("iou", [0.3], [0.6]),
        ("scale", [1 / 255], [1 / 254]),
        ("class", [1], [0]),
    ],
)
def test_a_wrong_constant_is_found(what: str, like: list[float], wrong: list[float]) -> None:
    scanning, model = face()
    dtype = np.int64 if what == "class" else np.float32
    places = stored(model, np.array(like, dtype))
    assert places
    for value in places:
        value.const_value = ir.tensor(np.array(wrong, dtype), name=value.name)
    results = check_detector(model, scanning, Settings(background=(0,)))
    assert "failed" in {result.status for result in results}


def test_it_says_in_its_metadata_what_it_does() -> None:
    scanning, model = face()
    assert set(model.metadata_props) & {"fc2conv.geometry", "fc2conv.preprocess"} == set()
    said = json.loads(model.metadata_props[DETECTOR_KEY])
    assert (said["window"], said["stride"], said["iou"]) == ([25, 25], [2, 2], 0.3)
    assert said["thresholds"] == {"1": 0.5}
    assert scanning.output in {value.name for value in scanning.model.graph.outputs}  # unchanged


def test_an_image_of_other_channels_is_an_error_of_onnxruntime() -> None:
    _, model = face()
    with pytest.raises(Exception, match="Expand"):
        detect(model, np.zeros((40, 40, 4), np.uint8))


def test_an_old_opset_lacks_the_operators() -> None:
    with pytest.raises(ArgumentError, match="needs operators of opset 11"):
        onnx_fc2conv.detector(two_layers(Net(opset=9, image=(3, 8, 10))))


def test_one_vector_for_the_whole_image_is_refused() -> None:
    reduced = onnx_fc2conv.convert("models/face25.onnx", reduce="mean").model
    assert reduced is not None
    with pytest.raises(RefusedError, match="no-map"):
        onnx_fc2conv.detector(reduced)
