"""Scales taken from the whole tensor: kept at a fixed size, refused where the image may grow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_fc2conv import check
from onnx_fc2conv.pipeline import convert
from tests.nets import Net, Tensor, i64, op_types, session
from tests.oracle import assert_refused, converted_model
from tests.quantized_nets import integers

K, D = 4, 36
MICROSOFT = "com.microsoft"


def layer(net: Net, y: Tensor, outputs: int = K, axis: int | None = None) -> Tensor:
    """DynamicQuantizeLinear → MatMulInteger → Cast → Mul → Add, as quantizers write it."""
    weight = integers(net, outputs, y.size, axis=axis)
    quantized, scale, zero = net.ops("DynamicQuantizeLinear", y, outputs=3)
    product = net.op("MatMulInteger", quantized, weight.moved(1, 0).array, zero, weight.zero[()])
    scales = net.op("Mul", scale, weight.scale)
    floats = net.op("Mul", net.op("Cast", product, to=1), scales)
    return net.op("Add", floats, net.random(outputs), shape=(outputs,))


def one_zero(net: Net, y: Tensor) -> Tensor:
    return layer(net, y)


def fused(net: Net, y: Tensor) -> Tensor:
    weight = integers(net, K, y.size, axis=0)
    inputs = (weight.moved(1, 0).array, *weight.parameters, net.random(K))
    return net.op("DynamicQuantizeMatMul", y, *inputs, domain=MICROSOFT, shape=(K,))


def partly_fused(net: Net, y: Tensor) -> Tensor:
    weight = integers(net, K, y.size, dtype=np.uint8)
    quantized, scale, zero = net.ops("DynamicQuantizeLinear", y, outputs=3)
    inputs = (weight.moved(1, 0).array, scale, weight.scale, zero, weight.zero, net.random(K))
    return net.op("MatMulIntegerToFloat", quantized, *inputs, domain=MICROSOFT, shape=(K,))


SPELLINGS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "MatMulInteger": one_zero,
    "scales per channel": lambda net, y: layer(net, y, axis=0),
    "two layers": lambda net, y: layer(net, net.op("Relu", layer(net, y, 6), shape=(6,))),
    "DynamicQuantizeMatMul": fused,
    "MatMulIntegerToFloat": partly_fused,
    "transposed": lambda net, y: layer(
        net,
        net.op("Reshape", net.op("Transpose", y, perm=[1, 0]), i64(1, -1), shape=(D,)),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_static_mode(spelling: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(batch=1, opset=17)
    model = net.model(spelling(net, net.flat(net.trunk())))
    conversion = convert(model, static=True)
    result = converted_model(conversion)
    left = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "Flatten"}
    assert not left & set(op_types(result))
    assert op_types(result).count("DynamicQuantizeLinear") == len(conversion.heads)
    report = check(model, result)
    assert report, report.to_markdown()


def test_static_mode_at_a_batch_of_its_own() -> None:
    """One range for all samples of the batch, as in the original."""
    net = Net(batch=3, opset=17)
    model = net.model(layer(net, net.flat(net.trunk())))
    result = converted_model(convert(model, static=True))
    images = np.random.default_rng(1).normal(size=(3, 2, 8, 10)).astype(np.float32)
    images[1] *= 50
    (expected,), (got,) = (session(m)({"x": images}).values() for m in (model, result))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_scale_that_is_an_output_keeps_its_name() -> None:
    net = Net(batch=1, opset=17)
    y = layer(net, net.flat(net.trunk()))
    quantize = next(node for node in net.nodes if node.op_type == "DynamicQuantizeLinear")
    model = net.model(y, Tensor(quantize.outputs[1]))
    conversion = convert(model, static=True)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()
    assert [v.name for v in converted_model(conversion).graph.outputs] == ["y", "y2"]


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_dense_mode_refuses(spelling: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(batch=1, opset=17)
    model = net.model(spelling(net, net.flat(net.trunk())))
    assert_refused(model, "dynamic-quantization", reason="--static")


def test_some_elements_have_another_range() -> None:
    net = Net(batch=1, opset=17)
    part = net.op("Slice", net.flat(net.trunk()), i64(5), i64(29), i64(1), shape=(24,))
    model = net.model(layer(net, part))
    assert_refused(model, "nothing-to-convert", reason="", static=True)


def test_one_cell_for_the_whole_image_has_one_range() -> None:
    """After a global pooling the head reads the same vector, whatever the size."""
    net = Net(opset=17)
    pooled = net.op("GlobalAveragePool", net.trunk())
    model = net.model(layer(net, net.flat(Tensor(pooled.value, (3, 1, 1)))))
    conversion = convert(model)
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()
    image = np.random.default_rng(1).normal(size=(1, 2, 14, 11)).astype(np.float32)
    (got,) = session(converted_model(conversion))({"x": image}).values()
    free = model
    for dim, name in zip(free.graph.input[0].type.tensor_type.shape.dim[2:], "HW", strict=True):
        dim.dim_param = name
    del free.graph.value_info[:]
    (expected,) = session(free)({"x": image}).values()
    np.testing.assert_allclose(got[:, :, 0, 0], expected, rtol=1e-5, atol=1e-5)
