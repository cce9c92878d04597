"""Reshapes inside the trunk that only move channels: the map is a map again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Net, Tensor, conv, session
from tests.oracle import assert_refused, assert_slides, converted_model


def _shuffled(net: Net, y: Tensor, groups: int) -> Tensor:
    """Channel shuffle as both of PyTorch's exporters write it: the size is in the constants."""
    channels, *extent = y.shape
    split = np.array([-1, groups, channels // groups, *extent])
    together = np.array([-1, channels, *extent])
    y = net.op("Reshape", y, split)
    y = net.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", y, together, shape=(channels, *extent))


def test_channel_shuffle() -> None:
    net = Net()
    y = _shuffled(net, conv(net, net.x, (6, 8), channels=6), 3)
    y = conv(net, y, (4, 6))
    assert_slides(net.model(net.head(y)))


def test_a_shuffled_map_that_is_read_twice() -> None:
    net = Net()
    y = _shuffled(net, conv(net, net.x, (6, 8), channels=6), 2)
    one, two = conv(net, y, (4, 6)), conv(net, y, (4, 6))
    assert_slides(net.model(net.head(net.op("Add", one, two, shape=one.shape))))


@pytest.mark.parametrize("opset", [11, 13])
def test_channels_split_and_joined_in_another_order(opset: int) -> None:
    """ShuffleNet v2: half of the channels go round the block."""
    net = Net(opset=opset)
    y = conv(net, net.x, (6, 8), channels=6)
    if opset < 13:
        left, right = net.ops("Split", y, outputs=2, axis=1, split=[3, 3])
    else:
        left, right = net.ops("Split", y, np.array([3, 3]), outputs=2, axis=1)
    right = conv(net, Tensor(right.value, (3, 6, 8)), (6, 8), kernel=1, channels=3)
    y = net.op("Concat", right, Tensor(left.value, (3, 6, 8)), axis=1, shape=(6, 6, 8))
    y = conv(net, _shuffled(net, y, 2), (4, 6))
    assert_slides(net.model(net.head(y)))


def test_a_slice_of_the_channels() -> None:
    net = Net()
    y = conv(net, net.x, (6, 8), channels=5)
    y = net.op("Slice", y, *(np.array([n]) for n in (1, 4, 1)), shape=(3, 6, 8))
    assert_slides(net.model(net.head(conv(net, y, (4, 6)))))


def test_the_flattened_map_reshaped_to_itself() -> None:
    net = Net()
    y = conv(net, net.x, (6, 8))
    y = net.op("Reshape", net.flat(y), np.array([-1, *y.shape]), shape=y.shape)
    assert_slides(net.model(net.head(conv(net, y, (4, 6)))))


def test_a_gate_of_the_channels_computed_by_a_layer() -> None:
    """Squeeze-and-excite with Gemm: every cell depends on the whole image."""
    net = Net()
    y = conv(net, net.x, (6, 8), channels=4)
    squeezed = net.flat(net.op("GlobalAveragePool", y, shape=(4, 1, 1)))
    gate = net.op("Sigmoid", net.fc(squeezed, 4), shape=(4,))
    gate = net.op("Unsqueeze", gate, np.array([2, 3]), shape=(4, 1, 1))
    gated = net.op("Mul", y, gate, shape=y.shape)
    conversion = assert_slides(net.model(net.head(gated)), exact=False)
    (geometry,) = conversion.geometry.values()
    assert not geometry.windows_exact
    assert "GlobalAveragePool" in geometry.why


def test_a_materialized_map_as_an_output() -> None:
    net = Net()
    y = _shuffled(net, conv(net, net.x, (6, 8), channels=6), 3)
    model = net.model(net.head(conv(net, y, (4, 6))), y)
    conversion = convert(model)
    image = net.rng.normal(size=(2, *net.image)).astype(np.float32)
    expected, actual = (
        session(m)({"x": image})["y2"] for m in (model, converted_model(conversion))
    )
    np.testing.assert_array_equal(actual, expected)
    assert conversion.after is not None
    assert conversion.after.outputs["y2"] == ("N", 6, "y2_H", "y2_W")


def test_positions_mixed_with_channels_are_refused() -> None:
    net = Net()
    y = conv(net, net.x, (6, 8), channels=6)
    y = net.op("Reshape", y, np.array([-1, 6, 8, 6]), shape=(6, 8, 6))
    y = conv(net, y, (6, 4))
    assert_refused(net.model(net.head(y)), "baked-size", "Conv", "reshaped feature map")


def test_a_window_that_slides_over_the_result_of_a_layer_is_refused() -> None:
    net = Net()
    y = net.head(net.trunk())
    y = net.op("Unsqueeze", y, np.array([2, 3]), shape=(4, 1, 1))
    kernel = net.random(2, 4, 3, 3)
    y = net.op("Conv", y, kernel, pads=[1, 1, 1, 1], shape=(2, 1, 1), name="late")
    assert_refused(net.model(net.flat(y)), "slides-after-fc", "Conv late", "3×3")


def test_a_1x1_convolution_of_the_result_of_a_layer() -> None:
    net = Net()
    y = net.head(net.trunk())
    y = net.op("Unsqueeze", y, np.array([2, 3]), shape=(4, 1, 1))
    y = net.op("Conv", y, net.random(2, 4, 1, 1), shape=(2, 1, 1))
    assert_slides(net.model(net.flat(y)))


def _padded_shuffle() -> Any:
    net = Net()
    y = conv(net, net.x, (8, 10), channels=6, pads=[1, 1, 1, 1])
    y = conv(net, _shuffled(net, y, 3), (8, 10), pads=[1, 1, 1, 1])
    return net.model(net.head(net.op("MaxPool", y, kernel_shape=[2, 2], shape=(3, 7, 9))))


def test_the_check_knows_a_shuffled_trunk_again() -> None:
    model = _padded_shuffle()
    report = check(model, converted_model(convert(model)))
    assert report, report.to_markdown()
    (windows,) = (r for r in report.results if r.tier == "feature windows")
    assert windows.status == "passed"
    assert "the original's trunk has its size written in" in windows.detail


def test_the_check_finds_a_wrong_shuffle() -> None:
    model = _padded_shuffle()
    made = converted_model(convert(model))
    gather = next(node for node in made.graph if node.op_type == "Gather")
    indices = gather.inputs[1]
    assert indices is not None
    assert indices.const_value is not None
    indices.const_value = ir.Tensor(indices.const_value.numpy()[::-1].copy())
    failed = {r.tier for r in check(model, made).failures}
    assert {"native", "feature windows"} <= failed


def test_the_check_knows_a_trunk_of_joined_and_shuffled_halves_again() -> None:
    """ShuffleNet v2's units: what a layer reads has been joined of a map that was shuffled."""
    net = Net(image=(2, 16, 16))
    y = conv(net, net.x, (16, 16), channels=6, pads=[1, 1, 1, 1])
    for _ in range(2):
        y = _shuffled(net, y, 2)
        left, right = net.ops("Split", y, np.array([3, 3]), outputs=2, axis=1)
        right = conv(net, Tensor(right.value, (3, 16, 16)), (16, 16), pads=[1, 1, 1, 1])
        y = net.op("Concat", left, right, axis=1, shape=(6, 16, 16))
    y = conv(net, _shuffled(net, y, 2), (8, 8), pads=[1, 1, 1, 1], strides=[2, 2])
    y = net.op("GlobalAveragePool", y, shape=(3, 1, 1))
    model = net.model(net.head(y))
    report = check(model, converted_model(convert(model, pool="window")))
    assert report, report.to_markdown()
    (windows,) = (r for r in report.results if r.tier == "feature windows")
    assert windows.status == "passed"
