"""Models with QuantizeLinear and DequantizeLinear: kernels stay integers, results stay exact."""

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
from tests.quantized_nets import STEP, Integers, bias, dq, integers, qdq, qdq_trunk, zero_point

K, D = 4, 36
TYPES = [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)]
"""Of activations and weights: what onnxruntime's integer kernels take."""


def stored_kernels(conversion: Conversion) -> list[tuple[Array, ir.Node]]:
    """The integers of each converted layer's kernel, and the DequantizeLinear that reads them."""
    model = converted_model(conversion)
    found: list[tuple[Array, ir.Node]] = []
    for layer in conversion.heads:
        value = model.graph.initializers[layer.kernel]
        (reader,) = value.consumers()
        assert reader.op_type == "DequantizeLinear"
        (conv,) = reader.outputs[0].consumers()
        assert conv.op_type == "Conv"
        assert conv.inputs[1] is reader.outputs[0]
        assert value.const_value is not None
        found.append((value.const_value.numpy(), reader))
    return found


def gemm(net: Net, y: Tensor, weight: Integers, trans_b: int, **attributes: Any) -> Tensor:
    stored = weight if trans_b else weight.moved(1, 0)
    b = dq(net, bias(net, weight, STEP, K))
    return net.op("Gemm", y, dq(net, stored), b, transB=trans_b, shape=(K,), **attributes)


def matmul(net: Net, y: Tensor, weight: Integers) -> Tensor:
    return net.op("MatMul", y, dq(net, weight.moved(1, 0)), shape=(K,))


def from_the_end(net: Net, y: Tensor, weight: Integers) -> Tensor:
    """The axis of the parameters is counted from the end."""
    stored = weight.moved(1, 0)
    axis = None if stored.axis is None else stored.axis - 2
    last = Integers(stored.array, stored.scale, stored.zero, axis)
    return net.op("MatMul", y, dq(net, last), shape=(K,))


def transposed(net: Net, y: Tensor, weight: Integers) -> Tensor:
    moved = net.op("Transpose", dq(net, weight), perm=[1, 0])
    return net.op("MatMul", y, moved, shape=(K,))


def quantized_in_the_model(net: Net, y: Tensor, weight: Integers) -> Tensor:
    """Training with fake quantization leaves Q → DQ behind weights of floats."""
    axis = {} if weight.axis is None else {"axis": weight.axis}
    column = weight.scale.reshape(-1, 1)
    floats = (weight.array.astype(np.float32) - weight.zero.reshape(-1, 1)) * column
    again = net.op("QuantizeLinear", floats, *weight.parameters, **axis)
    back = net.op("DequantizeLinear", again, *weight.parameters, **axis)
    return net.op("Gemm", y, back, transB=1, shape=(K,))


SPELLINGS: dict[str, Callable[[Net, Tensor, Integers], Tensor]] = {
    "Gemm transB=1": lambda net, y, w: gemm(net, y, w, 1),
    "Gemm transB=0": lambda net, y, w: gemm(net, y, w, 0),
    "MatMul": matmul,
    "MatMul, axis -1": from_the_end,
    "MatMul of a Transpose": transposed,
    "Gemm of Q → DQ": quantized_in_the_model,
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
@pytest.mark.parametrize(("image", "stored"), TYPES)
def test_kernel_is_the_weights_integers(
    spelling: Callable[[Net, Tensor, Integers], Tensor], axis: int | None, image: Any, stored: Any
) -> None:
    net = Net()
    flat = qdq(net, net.flat(qdq_trunk(net, image)), image)
    weight = integers(net, K, D, dtype=stored, axis=axis)
    y = qdq(net, spelling(net, flat, weight), image)
    model = net.model(y)
    conversion = assert_slides(model, tolerance=0.0)
    ((kernel, reader),) = stored_kernels(conversion)
    assert kernel.dtype == stored
    assert np.array_equal(kernel.reshape(K, D), weight.array)
    assert reader.attributes.get_int("axis", None) == (None if axis is None else 0)
    scale, zero = (reader.inputs[position] for position in (1, 2))
    for value, expected in ((scale, weight.scale), (zero, weight.zero)):
        assert value is not None
        assert value.const_value is not None
        assert np.array_equal(value.const_value.numpy(), expected)
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()


def channels_last(net: Net, y: Tensor) -> Tensor:
    return net.flat(Tensor(net.op("Transpose", y, perm=[0, 2, 3, 1]).value, y.shape))


def half_of_it(net: Net, y: Tensor) -> Tensor:
    return net.op("Slice", net.flat(y), i64(5), i64(29), i64(1), shape=(24,))


@pytest.mark.parametrize("axis", [None, 0], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("stored", [np.int8, np.uint8])
@pytest.mark.parametrize("moved", [channels_last, half_of_it])
def test_integers_move_and_the_zero_point_fills(
    moved: Callable[[Net, Tensor], Tensor], stored: Any, axis: int | None
) -> None:
    net = Net()
    flat = moved(net, qdq_trunk(net))
    weight = integers(net, K, flat.size, dtype=stored, axis=axis)
    conversion = assert_slides(net.model(qdq(net, gemm(net, flat, weight, 1))), tolerance=0.0)
    ((kernel, _),) = stored_kernels(conversion)
    assert kernel.dtype == stored
    if moved is channels_last:
        expected = weight.array.reshape(K, 3, 4, 3).transpose(0, 3, 1, 2)
    else:
        expected = np.full((K, D), weight.zero.reshape(-1)[0], stored)
        expected[:, 5:29] = weight.array
    assert np.array_equal(kernel, expected.reshape(K, 3, 3, 4))


def test_a_bias_of_integers_stays_as_it_is() -> None:
    net = Net()
    weight = integers(net, K, D, axis=0)
    conversion = assert_slides(net.model(gemm(net, net.flat(qdq_trunk(net)), weight, 1)))
    conv = [n for n in converted_model(conversion).graph if n.op_type == "Conv"][-1]
    offset = conv.inputs[2]
    assert offset is not None
    assert offset.producer() is not None
    assert offset.producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]


@pytest.mark.parametrize("stored", [np.int8, np.uint8])
def test_matmul_and_quantized_add(stored: Any) -> None:
    """MatMul → Q → DQ → Add of integers → Q, as onnxruntime's quantizer writes it."""
    net = Net()
    y = qdq(net, matmul(net, net.flat(qdq_trunk(net)), integers(net, K, D)))
    offset = integers(net, K, dtype=stored)
    offset = Integers(offset.array, np.array(0.02, np.float32), offset.zero)
    y = qdq(net, net.op("Add", y, dq(net, offset), shape=(K,)))
    conversion = assert_slides(net.model(y), tolerance=0.0)
    add = next(n for n in converted_model(conversion).graph if n.op_type == "Add")
    assert [v.producer().op_type for v in add.inputs] == ["DequantizeLinear"] * 2  # type: ignore[union-attr]


def test_two_layers_and_a_softmax() -> None:
    net = Net()
    y = qdq(net, gemm(net, net.flat(qdq_trunk(net)), integers(net, K, D, axis=0), 1))
    y = qdq(net, net.op("Relu", y, shape=(K,)))
    y = qdq(net, gemm(net, y, integers(net, K, K, axis=0), 0))
    y = net.op("Softmax", y, axis=-1)
    conversion = assert_slides(net.model(y))
    assert [k.shape for k, _ in stored_kernels(conversion)] == [(K, 3, 3, 4), (K, K, 1, 1)]


def test_rows_share_one_kernel() -> None:
    """A layer on the tokens of a map: one 1×1 kernel of integers."""
    net = Net()
    tokens = net.op("Reshape", qdq_trunk(net), i64(0, 3, -1))
    tokens = net.op("Transpose", tokens, perm=[0, 2, 1], shape=(12, 3))
    y = qdq(net, net.op("MatMul", tokens, dq(net, integers(net, 3, 5, axis=1)), shape=(12, 5)))
    y = net.op("ReduceMean", y, axes=[1], keepdims=0)
    y = net.op("Gemm", qdq(net, Tensor(y.value, (5,))), dq(net, integers(net, K, 5)), transB=1)
    conversion = assert_slides(net.model(y), exact=False)
    assert [k.shape for k, _ in stored_kernels(conversion)] == [(5, 3, 1, 1), (K, 5, 1, 1)]


FLOATS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "alpha": lambda net, y: gemm(net, y, integers(net, K, D), 1, alpha=0.5),
    "scale along the features": lambda net, y: net.op(
        "Gemm", y, dq(net, integers(net, K, D, axis=1)), transB=1
    ),
    "an element twice": lambda net, y: net.op(
        "Gemm", net.op("Concat", y, y, axis=1), dq(net, integers(net, K, 2 * D)), transB=1
    ),
    "a deferred scale": lambda net, y: net.op(
        "Gemm", net.op("Mul", y, net.random(D)), dq(net, integers(net, K, D)), transB=1
    ),
}


@pytest.mark.parametrize("layer", FLOATS.values(), ids=FLOATS.keys())
def test_kernel_is_of_floats_where_something_folds(layer: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net()
    conversion = assert_slides(net.model(layer(net, net.flat(qdq_trunk(net)))))
    (head,) = conversion.heads
    kernel = converted_model(conversion).graph.initializers[head.kernel].const_value
    assert kernel is not None
    assert kernel.dtype == ir.DataType.FLOAT


def per_axis(net: Net, y: Tensor, count: int, axis: int, repeats: int = 1) -> Tensor:
    """Q → DQ with a scale for each element of an axis."""
    scale = np.repeat(net.rng.uniform(0.02, 0.05, count // repeats), repeats).astype(np.float32)
    zero = np.repeat(net.rng.integers(100, 150, count // repeats), repeats).astype(np.uint8)
    quantized = net.op("QuantizeLinear", y, scale, zero, axis=axis)
    return net.op("DequantizeLinear", quantized, scale, zero, axis=axis, shape=y.shape)


ACTIVATIONS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "channels of a map": lambda net, y: net.flat(per_axis(net, y, 3, 1)),
    "channels of a map, from the end": lambda net, y: net.flat(per_axis(net, y, 3, -3)),
    "channels last": lambda net, y: net.flat(
        per_axis(net, net.op("Transpose", y, perm=[0, 2, 3, 1], shape=(3, 4, 3)), 3, 3)
    ),
    "features": lambda net, y: per_axis(net, net.flat(y), D, 1, repeats=12),
    "one number in an array": lambda net, y: qdq(
        net, net.flat(y), scale=np.array([0.03], np.float32)
    ),
    "int16": lambda net, y: qdq(net, net.flat(y), np.int16, np.array(1e-3, np.float32)),
}


@pytest.mark.parametrize("quantized", ACTIVATIONS.values(), ids=ACTIVATIONS.keys())
def test_activations_are_quantized_on_the_map(
    quantized: Callable[[Net, Tensor], Tensor],
) -> None:
    net = Net(opset=21, ir_version=10)
    flat = quantized(net, net.trunk())
    gone = ("Gemm", "Flatten")
    conversion = assert_slides(net.model(net.fc(Tensor(flat.value, (D,)))), gone=gone)
    assert op_types(converted_model(conversion)).count("QuantizeLinear") == 1


def test_features_after_a_layer_have_their_own_scales() -> None:
    net = Net()
    y = per_axis(net, net.head(net.trunk()), K, 1)
    conversion = assert_slides(net.model(net.fc(Tensor(y.value, (K,)))))
    quantize = next(n for n in converted_model(conversion).graph if n.op_type == "QuantizeLinear")
    assert quantize.attributes.get_int("axis", 1) == 1


def test_scales_that_differ_between_positions_are_refused() -> None:
    net = Net()
    y = net.fc(Tensor(per_axis(net, net.flat(net.trunk()), D, 1).value, (D,)))
    assert_refused(net.model(y), "position-dependent", "QuantizeLinear", "[3, 4]")


def test_scales_along_an_axis_of_the_image_are_refused() -> None:
    net = Net()
    y = net.head(Tensor(per_axis(net, net.trunk(), 4, 3).value, (3, 3, 4)))
    assert_refused(net.model(y), "positional-constant", "QuantizeLinear", "axis 3")


def test_an_image_of_integers() -> None:
    net = Net(dtype=ir.DataType.UINT8)
    y = net.op("DequantizeLinear", net.x, STEP, zero_point(np.uint8), shape=net.image)
    net.dtype = ir.DataType.FLOAT
    kernel = net.random(3, 2, 3, 3)
    y = Tensor(net.op("Conv", y, kernel).value, (3, 6, 8))
    assert_slides(net.model(net.head(y)), dtype=np.uint8)


def test_static_mode_keeps_the_integers() -> None:
    net = Net(batch=1)
    y = qdq(net, gemm(net, net.flat(qdq_trunk(net)), integers(net, K, D, axis=0), 1))
    model = net.model(y)
    conversion = convert(model, static=True)
    assert len(stored_kernels(conversion)) == 1
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()
    asserted = [result for result in report.results if result.status == "passed"]
    assert all(result.worst_error in (0.0, None) for result in asserted)
