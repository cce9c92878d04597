"""onnxruntime's quantized operators before, between and after layers, on the map, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_fc2conv import check
from tests.nets import Array, Net, Tensor
from tests.oracle import assert_refused, assert_slides, converted_model
from tests.quantized_nets import STEP, bias, integers, quantized_trunk, zero_point

K, D = 4, 36
MICROSOFT = "com.microsoft"
ZERO = zero_point(np.uint8)
OUT = np.array(1 / 48, np.float32)
OUT_ZERO = np.array(90, np.uint8)
GONE = ("QGemm", "Flatten", "Reshape")


def qgemm(net: Net, y: Tensor, outputs: int = K, *, scale: Array = STEP) -> Tensor:
    weight = integers(net, outputs, y.size)
    offset = bias(net, weight, STEP, outputs).array
    inputs = (y, scale, ZERO, weight.array, *weight.parameters, offset, STEP, ZERO)
    return net.op("QGemm", *inputs, domain=MICROSOFT, transB=1, shape=(outputs,))


def unary(op_type: str, **attributes: Any) -> Callable[[Net, Tensor], Tensor]:
    def apply(net: Net, y: Tensor) -> Tensor:
        inputs = (y, STEP, ZERO, OUT, OUT_ZERO)
        made = net.op(op_type, *inputs, domain=MICROSOFT, **attributes)
        return Tensor(made.value, y.shape)

    return apply


def with_constants(op_type: str, per_channel: bool) -> Callable[[Net, Tensor], Tensor]:
    def apply(net: Net, y: Tensor) -> Tensor:
        shape = (y.shape[0], *[1] * (len(y.shape) - 1)) if per_channel else ()
        constant = net.rng.integers(0, 255, shape).astype(np.uint8)
        inputs = (y, STEP, ZERO, constant, STEP, np.array(128, np.uint8), OUT, OUT_ZERO)
        return Tensor(net.op(op_type, *inputs, domain=MICROSOFT).value, y.shape)

    return apply


def with_itself(net: Net, y: Tensor) -> Tensor:
    other = unary("QLinearSigmoid")(net, y)
    inputs = (y, STEP, ZERO, other, OUT, OUT_ZERO, OUT, OUT_ZERO)
    return Tensor(net.op("QLinearAdd", *inputs, domain=MICROSOFT).value, y.shape)


OPERATORS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "QLinearSigmoid": unary("QLinearSigmoid"),
    "QLinearLeakyRelu": unary("QLinearLeakyRelu", alpha=0.2),
    "QLinearAdd of a number": with_constants("QLinearAdd", False),
    "QLinearAdd of channels": with_constants("QLinearAdd", True),
    "QLinearMul of channels": with_constants("QLinearMul", True),
    "QLinearAdd of maps": with_itself,
}
PLACES: dict[str, Callable[[Net, Callable[[Net, Tensor], Tensor]], Tensor]] = {
    "on the map": lambda net, op: net.flat(op(net, quantized_trunk(net))),
    "on features": lambda net, op: op(net, qgemm(net, net.flat(quantized_trunk(net)), 6)),
}


def held_to(net: Net, y: Tensor, **expectations: Any) -> None:
    """The integers y as floats: converted, equal bit by bit, and proven."""
    model = net.model(net.op("DequantizeLinear", y, STEP, ZERO, shape=y.shape))
    conversion = assert_slides(model, **{"tolerance": 0.0, "gone": GONE, **expectations})
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_elementwise(
    place: Callable[[Net, Callable[[Net, Tensor], Tensor]], Tensor],
    operator: Callable[[Net, Tensor], Tensor],
) -> None:
    net = Net()
    held_to(net, qgemm(net, place(net, operator), scale=OUT))


@pytest.mark.parametrize("attributes", [{"opset": 13, "axis": -1}, {"opset": 12, "axis": 1}])
def test_softmax(attributes: dict[str, int]) -> None:
    net = Net()
    y = qgemm(net, net.flat(quantized_trunk(net)))
    held_to(net, unary("QLinearSoftmax", **attributes)(net, y))


def test_concatenated_maps() -> None:
    net = Net()
    y = quantized_trunk(net)
    other = unary("QLinearLeakyRelu", alpha=0.1)(net, y)
    inputs = (OUT, OUT_ZERO, y, STEP, ZERO, other, OUT, OUT_ZERO)
    joined = net.op("QLinearConcat", *inputs, domain=MICROSOFT, axis=1)
    held_to(net, qgemm(net, net.flat(Tensor(joined.value, (6, 3, 4))), scale=OUT))


def test_concatenated_features_are_refused() -> None:
    net = Net()
    y = net.flat(quantized_trunk(net))
    joined = net.op(
        "QLinearConcat", OUT, OUT_ZERO, y, STEP, ZERO, y, STEP, ZERO, domain=MICROSOFT, axis=1
    )
    y = qgemm(net, Tensor(joined.value, (2 * D,)))
    assert_refused(
        net.model(net.op("DequantizeLinear", y, STEP, ZERO)), "flattened-features", "QLinearConcat"
    )


def test_average_pool() -> None:
    net = Net()
    y = unary("QLinearAveragePool", kernel_shape=[2, 2], strides=[1, 2])(net, quantized_trunk(net))
    held_to(net, qgemm(net, net.flat(Tensor(y.value, (3, 2, 2))), scale=OUT))


def global_pool(**attributes: Any) -> Net:
    net = Net()
    y = unary("QLinearGlobalAveragePool", **attributes)(net, quantized_trunk(net))
    y = qgemm(net, net.flat(Tensor(y.value, (3,))), scale=OUT)
    net.op("DequantizeLinear", y, STEP, ZERO, shape=y.shape)
    return net


def last(net: Net) -> Tensor:
    return Tensor(net.nodes[-1].outputs[0], (K,))


def test_global_average_pool_sees_the_whole_image() -> None:
    net = global_pool()
    assert_slides(net.model(last(net)), tolerance=0.0, exact=False, gone=("QGemm",))


def test_global_average_pool_is_not_made_a_pooling_of_windows() -> None:
    net = global_pool()
    assert_refused(
        net.model(last(net)), "window-pooling", "QLinearGlobalAveragePool", pool="window"
    )


def test_channels_last_pooling_is_refused() -> None:
    net = global_pool(channels_last=1)
    assert_refused(net.model(last(net)), "layout", "QLinearGlobalAveragePool")


def test_a_scale_for_each_channel_is_refused() -> None:
    net = Net()
    y = quantized_trunk(net)
    inputs = (y, np.array([0.1, 0.2, 0.3], np.float32), ZERO, OUT, OUT_ZERO)
    y = Tensor(net.op("QLinearSigmoid", *inputs, domain=MICROSOFT).value, y.shape)
    y = qgemm(net, net.flat(y))
    assert_refused(
        net.model(net.op("DequantizeLinear", y, STEP, ZERO)), "quantized-form", "QLinearSigmoid"
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_padding_of_a_quantized_trunk(dtype: Any) -> None:
    """QLinearConv pads with the zero point; strides and pads of the trunk count."""
    net = Net()
    zero = zero_point(dtype)
    kernel = integers(net, 3, 2, 3, 3)
    image = net.op("QuantizeLinear", net.x, STEP, zero)
    inputs = (image, STEP, zero, kernel.array, *kernel.parameters, STEP, zero)
    y = net.op("QLinearConv", *inputs, pads=[1, 1, 1, 1], strides=[2, 2])
    weight = integers(net, K, 60)
    flat = net.flat(Tensor(y.value, (3, 4, 5)))
    inputs = (flat, STEP, zero, weight.array, *weight.parameters, None, STEP, zero)
    y = net.op("QGemm", *inputs, domain=MICROSOFT, transB=1, shape=(K,))
    model = net.model(net.op("DequantizeLinear", y, STEP, zero, shape=(K,)))
    conversion = assert_slides(model, tolerance=0.0, exact=False, gone=GONE)
    (geometry,) = conversion.geometry.values()
    assert geometry.stride == (2, 2)
    assert "pads" in geometry.why
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()
