"""What is done to pixels, declared once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.errors import ArgumentError, InvalidModelError
from onnx_fc2conv.scanning.preprocessing import (
    PREPROCESS_KEY,
    Preprocessing,
    read_preprocessing,
    write_preprocessing,
)
from tests.nets import Net

PIXEL = np.array([[[10, 20, 30]]], np.uint8)
FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("text", "channels", "pixels", "expected"),
    [
        ("", 3, PIXEL, [10 / 255, 20 / 255, 30 / 255]),
        ("", 3, PIXEL.astype(np.uint16), [10 / 65535, 20 / 65535, 30 / 65535]),
        ("", 3, PIXEL.astype(np.float32), [10, 20, 30]),
        ("channels=bgr scale=1 mean=1,2,3", 3, PIXEL, [29, 18, 7]),
        ("mean=0.5 std=0.25", 3, PIXEL, [(v / 255 - 0.5) / 0.25 for v in (10, 20, 30)]),
        ("scale=1 std=2,4,5", 3, PIXEL, [5, 5, 6]),
        ("", 1, PIXEL, [(0.299 * 10 + 0.587 * 20 + 0.114 * 30) / 255]),
        ("scale=1/2", 1, PIXEL[..., :1], [5]),
        ("scale=1", 3, PIXEL[..., :1], [10, 10, 10]),
        ("scale=1", 5, np.arange(5.0).reshape(1, 1, 5), [0, 1, 2, 3, 4]),
    ],
)
def test_pixels_become_inputs(
    text: str, channels: int, pixels: np.ndarray, expected: list[float]
) -> None:
    how = Preprocessing.parse(text)
    how.check(pixels.shape[2], channels)
    found = how.apply(pixels, channels, FLOAT)
    assert found.dtype == FLOAT
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5)


def test_an_input_of_bytes_gets_bytes() -> None:
    found = Preprocessing().apply(PIXEL, 3, np.dtype(np.uint8))
    np.testing.assert_array_equal(found[:, 0, 0], [10, 20, 30])


@pytest.mark.parametrize(
    ("text", "image", "model", "reason"),
    [
        ("", 4, 3, r"4 channels, the model takes 3 \(rgb\)"),
        ("", 3, 5, "3 channels, the model takes 5"),
        ("channels=gray", 3, 3, "takes 3 .gray"),
        ("mean=1,2", 3, 3, "mean has 2 numbers, and the model 3"),
    ],
)
def test_what_does_not_fit(text: str, image: int, model: int, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        Preprocessing.parse(text).check(image, model)


@pytest.mark.parametrize(
    "text",
    [
        "rgb",
        "size=3",
        "mean=a",
        "channels=hsv",
        "std=0",
        "scale=0",
        "scale=1,2",
        "mean=1/0",
        "mean=nan",
        "mean=1 mean=2",
    ],
)
def test_what_is_not_written_right(text: str) -> None:
    with pytest.raises(ArgumentError):
        Preprocessing.parse(text)


def test_the_model_remembers_and_the_command_line_overrides() -> None:
    net = Net()
    model = ir.from_proto(net.model(net.head(net.trunk())))
    assert read_preprocessing(model) == Preprocessing()
    how = Preprocessing.parse("channels=bgr mean=1,2,3 scale=1/255")
    write_preprocessing(model, how)
    assert read_preprocessing(model) == how
    changed = how.overridden(Preprocessing(mean=(7.0,)))
    assert changed == Preprocessing("bgr", 1 / 255, (7.0,))


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "size": 3}'])
def test_metadata_that_cannot_be_read(text: str) -> None:
    net = Net()
    model = ir.from_proto(net.model(net.head(net.trunk())))
    model.metadata_props[PREPROCESS_KEY] = text
    with pytest.raises(InvalidModelError, match=r"fc2conv\.preprocess cannot be read"):
        read_preprocessing(model)
