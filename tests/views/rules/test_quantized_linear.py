"""Layers that compute with integers become Convs of integers: the same results, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check
from onnx_fc2conv.pipeline import Conversion, convert
from tests.nets import Array, Net, Tensor, i64, op_types
from tests.oracle import assert_refused, assert_slides, converted_model
from tests.quantized_nets import (
    STEP,
    Integers,
    bias,
    integers,
    quantized_trunk,
    zero_point,
)

K, D = 4, 36
MICROSOFT = "com.microsoft"
TYPES = [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)]
GONE = ("QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "Flatten", "Reshape")


def kernel_of(conversion: Conversion) -> Array:
    (layer,) = conversion.heads
    tensor = converted_model(conversion).graph.initializers[layer.kernel].const_value
    assert tensor is not None
    return tensor.numpy()


def held_to(net: Net, y: Tensor, **expectations: Any) -> Conversion:
    """Converted, equal bit by bit, and proven by the check."""
    expected = {"tolerance": 0.0, "gone": GONE, **expectations}
    model = net.model(y)
    conversion = assert_slides(model, **expected)
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()
    passed = {r.tier for r in report.results if r.status == "passed"}
    assert passed >= {"native", "feature windows", "image windows"}
    return conversion


def back(net: Net, y: Tensor, zero: Array) -> Tensor:
    return net.op("DequantizeLinear", y, STEP, zero, shape=y.shape)


def qlinear_matmul(net: Net, y: Tensor, weight: Integers, zero: Array) -> Tensor:
    stored = weight.moved(1, 0)
    inputs = (y, STEP, zero, stored.array, *stored.parameters, STEP, zero)
    return net.op("QLinearMatMul", *inputs, shape=(K,))


def qgemm(net: Net, y: Tensor, weight: Integers, zero: Array, trans_b: int = 1) -> Tensor:
    stored = weight if trans_b else weight.moved(1, 0)
    offset = bias(net, weight, STEP, K).array
    inputs = (y, STEP, zero, stored.array, *stored.parameters, offset, STEP, zero)
    return net.op("QGemm", *inputs, domain=MICROSOFT, transB=trans_b, shape=(K,))


def qgemm_without_bias(net: Net, y: Tensor, weight: Integers, zero: Array) -> Tensor:
    inputs = (y, STEP, zero, weight.array, *weight.parameters, None, STEP, zero)
    return net.op("QGemm", *inputs, domain=MICROSOFT, transB=1, shape=(K,))


LAYERS: dict[str, Callable[[Net, Tensor, Integers, Array], Tensor]] = {
    "QLinearMatMul": qlinear_matmul,
    "QGemm transB=1": qgemm,
    "QGemm transB=0": lambda net, y, w, z: qgemm(net, y, w, z, 0),
    "QGemm without bias": qgemm_without_bias,
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
@pytest.mark.parametrize(("image", "stored"), TYPES)
def test_requantized(
    layer: Callable[[Net, Tensor, Integers, Array], Tensor],
    axis: int | None,
    image: Any,
    stored: Any,
) -> None:
    net = Net()
    zero = zero_point(image)
    weight = integers(net, K, D, dtype=stored, axis=axis)
    y = back(net, layer(net, net.flat(quantized_trunk(net, image)), weight, zero), zero)
    conversion = held_to(net, y)
    assert op_types(converted_model(conversion)).count("QLinearConv") == 2
    kernel = kernel_of(conversion)
    assert kernel.dtype == stored
    assert np.array_equal(kernel.reshape(K, D), weight.array)


@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
def test_a_result_of_integers(axis: int | None) -> None:
    net = Net()
    zero = zero_point(np.uint8)
    y = qgemm(net, net.flat(quantized_trunk(net)), integers(net, K, D, axis=axis), zero)
    conversion = assert_slides(net.model(y, dtype=ir.DataType.UINT8), tolerance=0.0, gone=GONE)
    assert converted_model(conversion).graph.outputs[0].dtype == ir.DataType.UINT8


@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("offset", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("image", "stored"), TYPES)
def test_qgemm_to_floats(axis: int | None, offset: bool, image: Any, stored: Any) -> None:
    net = Net()
    weight = integers(net, K, D, dtype=stored, axis=axis)
    rest = (bias(net, weight, STEP, K).array,) if offset else ()
    flat = net.flat(quantized_trunk(net, image))
    inputs = (flat, STEP, zero_point(image), weight.array, *weight.parameters, *rest)
    y = net.op("QGemm", *inputs, domain=MICROSOFT, transB=1, shape=(K,))
    conversion = held_to(net, y)
    assert "ConvInteger" in op_types(converted_model(conversion))


@pytest.mark.parametrize("zeros", [True, False], ids=["zero points", "none"])
@pytest.mark.parametrize("image", [np.uint8, np.int8])
@pytest.mark.parametrize("stored", [np.uint8, np.int8])
def test_matmul_integer(image: Any, stored: Any, zeros: bool) -> None:
    """All four combinations of types have a kernel."""
    net = Net()
    weight = integers(net, K, D, dtype=stored)
    quantized = quantized_trunk(net, image, np.int8)
    rest = (zero_point(image), weight.zero) if zeros else ()
    sums = net.op("MatMulInteger", net.flat(quantized), weight.moved(1, 0).array, *rest)
    y = net.op("Mul", net.op("Cast", sums, to=1), np.array(1e-4, np.float32), shape=(K,))
    conversion = held_to(net, y)
    assert op_types(converted_model(conversion))[-3:] == ["ConvInteger", "Cast", "Mul"]
    assert np.array_equal(kernel_of(conversion).reshape(K, D), weight.array)


@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("offset", [True, False], ids=["bias", "no bias"])
def test_matmul_integer_to_float(axis: int | None, offset: bool) -> None:
    net = Net()
    weight = integers(net, K, D, axis=axis)
    rest = (net.random(K),) if offset else ()
    flat = net.flat(quantized_trunk(net))
    parameters = (STEP, weight.scale, zero_point(np.uint8), weight.zero)
    stored = weight.moved(1, 0).array
    y = net.op("MatMulIntegerToFloat", flat, stored, *parameters, *rest, domain=MICROSOFT)
    held_to(net, Tensor(y.value, (K,)), tolerance=1e-6)


def channels_last(net: Net, y: Tensor) -> Tensor:
    return net.flat(Tensor(net.op("Transpose", y, perm=[0, 2, 3, 1]).value, y.shape))


def half_of_it(net: Net, y: Tensor) -> Tensor:
    return net.op("Slice", net.flat(y), i64(5), i64(29), i64(1), shape=(24,))


@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("moved", [channels_last, half_of_it])
def test_the_zero_point_fills(moved: Callable[[Net, Tensor], Tensor], axis: int | None) -> None:
    net = Net()
    flat = moved(net, quantized_trunk(net))
    weight = integers(net, K, flat.size, dtype=np.uint8, axis=axis)
    zero = zero_point(np.uint8)
    kernel = kernel_of(held_to(net, back(net, qgemm(net, flat, weight, zero), zero)))
    if moved is channels_last:
        expected = weight.array.reshape(K, 3, 4, 3).transpose(0, 3, 1, 2)
    else:
        expected = np.full((K, D), 128, np.uint8)
        expected[:, 5:29] = weight.array
    assert np.array_equal(kernel, expected.reshape(K, 3, 3, 4))


def test_zero_points_of_their_own() -> None:
    """Each output's weights have another zero point."""
    net = Net()
    weight = integers(net, K, D, dtype=np.uint8, axis=0)
    own = Integers(weight.array, weight.scale, np.array([100, 120, 130, 160], np.uint8), 0)
    zero = zero_point(np.uint8)
    y = qlinear_matmul(net, half_of_it(net, quantized_trunk(net)), _columns(own, 24), zero)
    held_to(net, back(net, y, zero))


@pytest.mark.parametrize("stored", [np.uint8, np.int8])
def test_zero_points_of_their_own_in_a_sum(stored: Any) -> None:
    """ConvInteger has one zero point: the others' share is taken off again, exactly."""
    net = Net()
    flat = half_of_it(net, quantized_trunk(net))
    weight = integers(net, K, 24, dtype=stored)
    zeros = np.array([100, 120, 3, 16]).astype(stored)
    sums = net.op("MatMulInteger", flat, weight.moved(1, 0).array, zero_point(np.uint8), zeros)
    y = net.op("Mul", net.op("Cast", sums, to=1), np.array(1e-4, np.float32), shape=(K,))
    conversion = held_to(net, y)
    assert op_types(converted_model(conversion)).count("ConvInteger") == 2


def _columns(weight: Integers, count: int) -> Integers:
    return Integers(weight.array[:, :count], weight.scale, weight.zero, weight.axis)


def test_weight_on_the_left() -> None:
    """Wᵀ·V of the transposed features: outputs on the rows, samples on the columns."""
    net = Net()
    weight = integers(net, K, D)
    columns = net.op("Transpose", net.flat(quantized_trunk(net, np.int8)), perm=[1, 0])
    zero = zero_point(np.int8)
    inputs = (weight.array, weight.scale, weight.zero, columns, STEP, zero, STEP, zero)
    y = net.op("Transpose", net.op("QLinearMatMul", *inputs), perm=[1, 0], shape=(K,))
    held_to(net, back(net, y, zero), gone=(*GONE, "Transpose"))


def test_two_layers() -> None:
    net = Net()
    zero = zero_point(np.uint8)
    hidden = qgemm(net, net.flat(quantized_trunk(net)), integers(net, K, D, axis=0), zero)
    y = back(net, qgemm(net, hidden, integers(net, K, K), zero), zero)
    conversion = held_to(net, y)
    assert [layer.kernel_shape for layer in conversion.heads] == [(K, 3, 3, 4), (K, K, 1, 1)]


def test_rows_share_one_kernel() -> None:
    net = Net()
    zero = zero_point(np.uint8)
    tokens = net.op("Reshape", quantized_trunk(net), i64(0, 3, -1))
    tokens = net.op("Transpose", tokens, perm=[0, 2, 1], shape=(12, 3))
    y = qlinear_matmul(net, tokens, integers(net, K, 3), zero)
    y = net.op("Flatten", y, shape=(12 * K,))
    y = qlinear_matmul(net, y, integers(net, K, 12 * K), zero)
    conversion = assert_slides(net.model(back(net, y, zero)), tolerance=0.0, gone=GONE)
    assert [layer.kernel_shape for layer in conversion.heads] == [(K, 3, 1, 1), (K, K, 3, 4)]


def test_static_mode() -> None:
    net = Net(batch=1)
    zero = zero_point(np.uint8)
    y = back(net, qgemm(net, net.flat(quantized_trunk(net)), integers(net, K, D), zero), zero)
    model = net.model(y)
    conversion = convert(model, static=True)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()
    asserted = [result for result in report.results if result.status == "passed"]
    assert all(result.worst_error in (0.0, None) for result in asserted)


def alpha(net: Net, y: Tensor, weight: Integers, zero: Array) -> Tensor:
    inputs = (y, STEP, zero, weight.array, *weight.parameters, None, STEP, zero)
    return net.op("QGemm", *inputs, domain=MICROSOFT, transB=1, alpha=0.5)


def twice(net: Net, y: Tensor, weight: Integers, zero: Array) -> Tensor:
    weight = integers(net, K, 2 * D)
    return qgemm(net, net.op("Concat", y, y, axis=1), weight, zero)


def other_result(net: Net, y: Tensor, weight: Integers, zero: Array) -> Tensor:
    stored = weight.moved(1, 0)
    inputs = (y, STEP, zero, stored.array, *stored.parameters, STEP, np.array(3, np.int8))
    return net.op("QLinearMatMul", *inputs)


def scale_of_rows(net: Net, y: Tensor, weight: Integers, zero: Array) -> Tensor:
    stored = weight.moved(1, 0)
    scales, zeros = np.array([0.1, 0.2], np.float32), np.array([3, 3], np.uint8)
    return net.op("QLinearMatMul", y, scales, zeros, stored.array, *stored.parameters, STEP, zero)


REFUSED: dict[str, tuple[Callable[[Net, Tensor, Integers, Array], Tensor], str, str]] = {
    "alpha": (alpha, "quantized-form", "alpha"),
    "an element twice": (twice, "quantized-form", "twice"),
    "types": (other_result, "unsupported-type", "UINT8 by INT8 to INT8"),
    "rows": (scale_of_rows, "quantized-form", "each row"),
}


@pytest.mark.parametrize(("layer", "code", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(
    layer: Callable[[Net, Tensor, Integers, Array], Tensor], code: str, reason: str
) -> None:
    net = Net()
    weight = integers(net, K, D)
    y = layer(net, net.flat(quantized_trunk(net)), weight, zero_point(np.uint8))
    assert_refused(net.model(y, dtype=ir.DataType.UINT8), code, "", reason)
