"""Layers of integers for the golden texts."""

from __future__ import annotations

import numpy as np
import onnx

from tests.golden.nets import GoldenNet
from tests.nets import Net, Tensor
from tests.properties.spellings import Part
from tests.quantized_nets import STEP, bias, dq, integers, qdq, qdq_trunk, quantized_trunk

MICROSOFT = "com.microsoft"
ZERO = np.array(123, np.uint8)


def qdq_layers() -> onnx.ModelProto:
    net = GoldenNet()
    weight = integers(net, 4, 36, axis=0)
    offset = dq(net, bias(net, weight, STEP, 4))
    flat = net.flat(qdq_trunk(net))
    y = net.op("Gemm", flat, dq(net, weight), offset, transB=1, shape=(4,))
    y = net.op("MatMul", qdq(net, y), dq(net, integers(net, 4, 3, dtype=np.uint8)), shape=(3,))
    return net.model(qdq(net, y))


def quantized_head(layer: Part) -> onnx.ModelProto:
    net = GoldenNet()
    return net.model(layer(net, net.flat(quantized_trunk(net))))


def qlinear_matmul(net: Net, y: Tensor) -> Tensor:
    weight = integers(net, 36, 4, axis=1)
    inputs = (y, STEP, ZERO, weight.array, *weight.parameters, STEP, ZERO)
    return net.op("DequantizeLinear", net.op("QLinearMatMul", *inputs), STEP, ZERO)


def qgemm(net: Net, y: Tensor) -> Tensor:
    """One with a scale for its result, then an addition, then one that gives floats."""
    weight = integers(net, 5, 36)
    rest = (*weight.parameters, bias(net, weight, STEP, 5).array, STEP, ZERO)
    y = net.op("QGemm", y, STEP, ZERO, weight.array, *rest, domain=MICROSOFT, transB=1)
    other = net.op("QLinearSigmoid", y, STEP, ZERO, STEP, ZERO, domain=MICROSOFT)
    inputs = (y, STEP, ZERO, other, STEP, ZERO, STEP, ZERO)
    y = net.op("QLinearAdd", *inputs, domain=MICROSOFT)
    weight = integers(net, 4, 5, axis=0)
    offset = bias(net, weight, STEP, 4).array
    inputs = (y, STEP, ZERO, weight.array, *weight.parameters, offset)
    return net.op("QGemm", *inputs, domain=MICROSOFT, transB=1)


def matmul_integer(net: Net, y: Tensor) -> Tensor:
    """With a zero point for each output."""
    zeros = net.rng.integers(100, 140, 4).astype(np.uint8)
    weight = integers(net, 36, 4, dtype=np.uint8)
    y = net.op("MatMulInteger", y, weight.array, ZERO, zeros)
    return net.op("Mul", net.op("Cast", y, to=1), np.array(1 / 64, np.float32))


def dynamic() -> onnx.ModelProto:
    net = GoldenNet(batch=1, opset=17)
    weight = integers(net, 36, 5)
    quantized, scale, zero = net.ops("DynamicQuantizeLinear", net.flat(net.trunk()), outputs=3)
    y = net.op("MatMulInteger", quantized, weight.array, zero, weight.zero)
    scales = net.op("Mul", scale, weight.scale)
    y = net.op("Relu", net.op("Mul", net.op("Cast", y, to=1), scales))
    weight = integers(net, 5, 4, axis=1)
    inputs = (weight.array, *weight.parameters, net.random(4))
    return net.model(net.op("DynamicQuantizeMatMul", y, *inputs, domain=MICROSOFT))
