"""Trunks: padding, strides, branches, layouts, and what cannot slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.pipeline import convert
from tests.nets import Net, Tensor, conv, i64, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
    converted_model,
)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op_type", ["Conv", "MaxPool", "AveragePool"])
def test_auto_pad_is_frozen(op_type: str, stride: int, auto_pad: str) -> None:
    net = Net(image=(3, 8, 9))
    height, width = (
        -(-n // stride) if auto_pad != "VALID" else (n - 3) // stride + 1 for n in (8, 9)
    )
    weights = (net.random(3, 3, 3, 3),) if op_type == "Conv" else ()
    y = net.op(
        op_type,
        net.x,
        *weights,
        auto_pad=auto_pad,
        strides=[stride, stride],
        kernel_shape=[3, 3],
        shape=(3, height, width),
    )
    exact = auto_pad == "VALID"
    conversion = assert_slides(net.model(net.head(y)), exact=exact)
    node = next(node for node in converted_model(conversion).graph if node.op_type == op_type)
    if exact:
        return
    assert "auto_pad" not in node.attributes
    expected = {
        (1, "SAME_UPPER"): (1, 1, 1, 1),
        (1, "SAME_LOWER"): (1, 1, 1, 1),
        (2, "SAME_UPPER"): (0, 1, 1, 1),
        (2, "SAME_LOWER"): (1, 1, 0, 1),
    }
    assert tuple(node.attributes.get_ints("pads", ())) == expected[stride, auto_pad]


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("opset", [11, 19, 22])
def test_ceil_mode_is_frozen(op_type: str, opset: int) -> None:
    net = Net(opset=opset, image=(3, 8, 9))
    y = net.op(
        op_type, net.x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, shape=(3, 4, 4), name="p"
    )
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    node = next(node for node in converted_model(conversion).graph if node.name == "p")
    assert node.attributes.get_int("ceil_mode", 0) == 0
    assert tuple(node.attributes.get_ints("pads", ())) == (0, 0, 1, 0)


def test_ceil_mode_without_effect_at_the_native_size() -> None:
    net = Net(image=(3, 8, 10))
    y = net.op("MaxPool", net.x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, shape=(3, 4, 5))
    assert_slides(net.model(net.head(y)))


def test_ceil_mode_makes_no_window_of_padding_alone() -> None:
    # Before opset 22 ONNX infers three windows here, where onnxruntime makes two.
    net = Net(opset=22, image=(3, 6, 6))
    y = net.op(
        "MaxPool",
        net.x,
        kernel_shape=[2, 2],
        strides=[3, 3],
        pads=[0, 0, 1, 1],
        ceil_mode=1,
        shape=(3, 2, 2),
    )
    assert_slides(net.model(net.head(y)), exact=False)


def test_ceil_mode_that_counts_its_padding_is_refused() -> None:
    net = Net(image=(3, 8, 9))
    y = net.op(
        "AveragePool",
        net.x,
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        count_include_pad=1,
        shape=(3, 4, 4),
        name="pool",
    )
    assert_refused(net.model(net.head(y)), "ceil-mode", "AveragePool pool")


@pytest.mark.parametrize(
    ("attributes", "extent"),
    [
        pytest.param({"dilations": [2, 2]}, (4, 6), id="dilation"),
        pytest.param({"dilations": [1, 3], "strides": [2, 1]}, (3, 4), id="anisotropic"),
        pytest.param({"strides": [3, 2]}, (2, 4), id="stride"),
        pytest.param({"pads": [0, 0, 0, 0]}, (6, 8), id="zero-pads"),
    ],
)
def test_convolutions(attributes: dict[str, Any], extent: tuple[int, int]) -> None:
    net = Net()
    conversion = assert_slides(net.model(net.head(conv(net, net.x, extent, **attributes))))
    assert conversion.geometry["y"].stride == tuple(attributes.get("strides", (1, 1)))


def test_grouped_convolution() -> None:
    net = Net(image=(3, 8, 10))
    depthwise = conv(net, net.x, (6, 8), group=3)
    assert_slides(net.model(net.head(conv(net, depthwise, (6, 8), kernel=1))))


@pytest.mark.parametrize("opset", [2, 11, 13])
def test_pad_has_a_border_effect(opset: int) -> None:
    net = Net(opset=max(opset, 7))
    if opset == 2:
        padded = net.op("Pad", net.x, pads=[0, 0, 1, 2, 0, 0, 0, 1], name="pad")
    else:
        padded = net.op("Pad", net.x, np.array([0, 0, 1, 2, 0, 0, 0, 1]), name="pad")
    y = conv(net, Tensor(padded.value, (2, 9, 13)), (7, 11))
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    assert "Pad pad pads" in conversion.geometry["y"].why


def test_pad_of_nothing_is_exact() -> None:
    net = Net()
    padded = net.op("Pad", net.x, np.zeros(8, np.int64), shape=net.x.shape)
    assert_slides(net.model(net.head(conv(net, padded, (6, 8)))))


@pytest.mark.parametrize("opset", [8, 13, 18])
def test_pad_of_channels(opset: int) -> None:
    """The shortcut of a small ResNet: every second pixel, and channels of zeros."""
    net = Net(opset=opset)
    strided = conv(net, net.x, (3, 4), channels=4, strides=[2, 2])
    if opset < 10:
        pixels = net.op("AveragePool", net.x, kernel_shape=[1, 1], strides=[2, 2])
        padded = net.op("Pad", pixels, pads=[0, 1, 0, 0, 0, 1, 0, 0])
    else:
        pixels = net.op("Slice", net.x, i64(0, 0), i64(1 << 60, 1 << 60), i64(2, 3), i64(2, 2))
        padded = net.op("Pad", pixels, i64(0, 1, 0, 0, 0, 1, 0, 0))
    shortcut = net.op("MaxPool", padded, kernel_shape=[2, 2])
    y = net.op("Add", strided, shortcut, shape=strided.shape)
    assert_slides(net.model(net.head(net.op("Relu", y, shape=y.shape))))


def test_pad_of_samples_is_refused() -> None:
    net = Net(batch=1)
    padded = net.op("Pad", net.x, np.array([1, 0, 0, 0, 0, 0, 0, 0]), shape=(2, 8, 10), name="pad")
    assert_refused(net.model(net.head(padded)), "batch-mixing", "Pad pad")


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_channels_last_input(batch: str | int) -> None:
    """TensorFlow: the image is [N, H, W, C], and the features are flattened in that order."""
    net = Net(image=(8, 10, 2), batch=batch)
    image = net.op("Transpose", net.x, perm=[0, 3, 1, 2], shape=(2, 8, 10))
    y = conv(net, image, (6, 8))
    back = net.op("Transpose", y, perm=[0, 2, 3, 1], shape=(6, 8, 3))
    conversion = assert_slides(
        net.model(net.head(back)),
        free_batch=batch == "N",
        channels_last=True,
        gone=("Gemm", "Flatten"),
    )
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", "H", "W", 2)
    types = op_types(converted_model(conversion))
    assert types == ["Transpose", "Conv", "Conv"]


@pytest.mark.parametrize("opset", [9, 13])
def test_pooling_alone(opset: int) -> None:
    net = Net(opset=opset)
    y = net.op("MaxPool", net.x, kernel_shape=[2, 2], strides=[2, 2], shape=(2, 4, 5))
    assert_slides(net.model(net.head(y)))


def test_layer_directly_on_the_image() -> None:
    net = Net()
    conversion = assert_slides(net.model(net.head(net.x)))
    assert conversion.geometry["y"].stride == (1, 1)


@pytest.mark.parametrize("image", [(2, 12), (2, 6, 5, 7)], ids=["1-D", "3-D"])
def test_other_ranks(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    conversion = assert_slides(net.model(net.op("Relu", net.head(net.trunk()))))
    assert conversion.after is not None
    assert len(conversion.after.outputs["y"]) == len(image) + 1


def test_reshape_in_the_trunk_is_refused() -> None:
    net = Net()
    turned = net.op("Reshape", net.trunk(), np.array([-1, 3, 4, 3]), shape=(3, 4, 3))
    y = net.op("Conv", turned, net.random(2, 3, 2, 2), shape=(2, 3, 2), name="late")
    assert_refused(net.model(net.head(y)), "baked-size", "Conv late", "reshaped feature map")


def test_operator_without_a_rule_is_refused() -> None:
    net = Net()
    y = net.op("ReverseSequence", net.trunk(), np.array([1]), batch_axis=0, time_axis=1, name="sum")
    model = net.model(net.head(Tensor(y.value, (3, 3, 4))))
    assert_refused(model, "no-rule", "ReverseSequence sum")


def test_resize_is_refused() -> None:
    net = Net()
    sizes = np.array([1, 2, 8, 10])
    y = net.op("Resize", net.x, None, None, sizes, mode="nearest", shape=(2, 8, 10), name="up")
    assert_refused(net.model(net.head(y)), "baked-size", "Resize up", "resizes to [1, 2, 8, 10]")


def test_everything_behind_a_refusal_is_silent() -> None:
    """One cause, one refusal: the layers behind it are not blamed."""
    net = Net()
    y = net.op("CumSum", net.trunk(), np.array(2), shape=(3, 3, 4))
    y = net.fc(net.op("Relu", net.head(y), shape=(4,)))
    with pytest.raises(Exception, match="CumSum") as caught:
        convert(net.model(y))
    assert len(caught.value.refusals) == 1  # type: ignore[attr-defined]


def test_convolution_after_the_layer() -> None:
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 5)
    cell = net.op("Reshape", hidden, np.array([0, 5, 1, 1]), shape=(5, 1, 1))
    y = net.op("Conv", cell, net.random(4, 5, 1, 1), net.random(4))
    assert_slides(net.model(net.op("Flatten", y)))


def test_window_larger_than_the_image_is_refused() -> None:
    net = Net(image=(2, "H", "W"))  # type: ignore[arg-type]
    y = conv(net, Tensor(net.x.value, (2, 8, 10)), (6, 8))
    with pytest.raises(Exception, match="no cell at the native size"):
        convert(net.model(net.head(y)), input_shapes={"x": (1, 2, 2, 10)})


def test_symbolic_size_must_be_given() -> None:
    net = Net(image=(2, "H", "W"))  # type: ignore[arg-type]
    model = net.model(net.head(conv(net, Tensor(net.x.value, (2, 8, 10)), (6, 8))))
    with pytest.raises(ArgumentError, match="--input-shape x:1,…"):
        convert(model)
    conversion = convert(model, input_shapes={"x": (1, 2, 8, 10)})
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", 2, "H", "W")


def test_a_signal_in_an_image_of_one_row() -> None:
    """Conv1d as exporters for accelerators write it: [N, C, 1, L] and kernels of one row."""
    net = Net(image=(2, 1, 14))
    y = conv(net, net.x, (1, 12), kernel=(1, 3))
    y = net.op("MaxPool", y, kernel_shape=[1, 2], strides=[1, 2], shape=(3, 1, 6))
    y = conv(net, y, (1, 5), kernel=(1, 2), dilations=[1, 1])
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.heads[0].kernel_shape == (4, 3, 1, 5)
