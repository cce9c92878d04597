"""The check finds faults in conversions of quantized models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import check
from onnx_fc2conv.pipeline import convert
from tests.nets import Net
from tests.oracle import converted_model
from tests.quantized_nets import (
    STEP,
    bias,
    dq,
    integers,
    qdq,
    qdq_trunk,
    quantized_trunk,
    zero_point,
)

K, D = 4, 36
ZERO = zero_point(np.uint8)


def with_gemm() -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around a Gemm."""
    net = Net()
    weight = integers(net, K, D, axis=0)
    layer = (net.flat(qdq_trunk(net)), dq(net, weight), dq(net, bias(net, weight, STEP, K)))
    return net.model(qdq(net, net.op("Gemm", *layer, transB=1, shape=(K,))))


def with_qgemm() -> onnx.ModelProto:
    net = Net()
    weight = integers(net, K, D, axis=0)
    offset = bias(net, weight, STEP, K).array
    flat = net.flat(quantized_trunk(net))
    inputs = (flat, STEP, ZERO, weight.array, *weight.parameters, offset, STEP, ZERO)
    y = net.op("QGemm", *inputs, domain="com.microsoft", transB=1)
    return net.model(net.op("DequantizeLinear", y, STEP, ZERO, shape=(K,)))


def with_matmul_integer() -> onnx.ModelProto:
    net = Net()
    flat, weight = net.flat(quantized_trunk(net)), integers(net, D, K)
    sums = net.op("MatMulInteger", flat, weight.array, ZERO)
    return net.model(net.op("Mul", net.op("Cast", sums, to=1), STEP, shape=(K,)))


@pytest.mark.parametrize("build", [with_gemm, with_qgemm, with_matmul_integer])
def test_two_integers_in_each_others_place(build: Callable[[], onnx.ModelProto]) -> None:
    model = build()
    conversion = convert(model)
    result = converted_model(conversion)
    assert check(model, result, geometry=conversion.geometry)
    value = result.graph.initializers[conversion.heads[0].kernel]
    assert value.const_value is not None
    kernel = value.const_value.numpy().copy()
    flat = kernel.reshape(-1)
    other = int(np.argmax(flat != flat[0]))
    flat[[0, other]] = flat[[other, 0]]
    value.const_value = ir.tensor(kernel, name=value.name)
    report = check(model, result, geometry=conversion.geometry)
    assert not report
    tiers = {failure.tier for failure in report.failures}
    assert tiers == {"native", "feature windows", "image windows"}


@pytest.mark.parametrize("build", [with_gemm, with_qgemm])
@pytest.mark.parametrize("part", ["scale", "zero_point"])
def test_a_parameter_of_another_output(build: Callable[[], onnx.ModelProto], part: str) -> None:
    model = build()
    conversion = convert(model)
    result = converted_model(conversion)
    kernel = result.graph.initializers[conversion.heads[0].kernel]
    (reader,) = kernel.consumers()
    position = list(reader.inputs).index(kernel) + (1 if part == "scale" else 2)
    value = reader.inputs[position]
    assert value is not None
    assert value.const_value is not None
    wrong = value.const_value.numpy().copy()
    wrong[0] = wrong[0] * 2 + 3
    value.const_value = ir.tensor(wrong, name=value.name)
    assert not check(model, result, geometry=conversion.geometry)
