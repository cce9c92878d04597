"""Any trunk, any spelling of a head: the converted model slides."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from tests.nets import Net, Tensor
from tests.oracle import (
    assert_slides,
)

FLATTENS = ("flatten", "reshape0", "reshape-1", "shape", "nhwc", "rows", "squeeze", "slices")
JOINS = ("none", "tokens", "mixer", "two maps", "vector", "twice", "padded", "part")
ACTIVATIONS = ("none", "Relu", "Sigmoid", "LeakyRelu", "Clip", "PRelu", "BatchNormalization")
SCALES = ("none", "BatchNormalization", "Mul", "Sub", "split")
LAYERS = ("gemm", "gemm transB", "gemm transA", "matmul", "matmul add", "add matmul", "residual")
ENDS = (
    *("none", "Softmax", "LogSoftmax", "Sigmoid", "unsqueeze", "BatchNormalization"),
    *("groups", "group softmax", "normalized"),
)


def flatten(net: Net, y: Tensor, spelling: str) -> Tensor:
    size = (y.size,)
    match spelling:
        case "reshape0":
            return net.op("Reshape", y, np.array([0, -1]), shape=size)
        case "reshape-1":
            return net.op("Reshape", y, np.array([-1, y.size]), shape=size)
        case "shape":
            batch = net.op("Gather", net.op("Shape", y), np.array([0]), axis=0)
            return net.op("Reshape", y, net.op("Concat", batch, np.array([-1]), axis=0), shape=size)
        case "nhwc":
            rank = len(y.shape) + 1
            return net.op(
                "Flatten", net.op("Transpose", y, perm=[0, *range(2, rank), 1]), shape=size
            )
        case "rows":
            rows = net.op("Reshape", y, np.array([0, y.shape[0], -1]))
            return net.op("Flatten", net.op("Transpose", rows, perm=[0, 2, 1]), shape=size)
        case "squeeze":
            wide = net.op("Reshape", y, np.array([-1, 1, y.size]))
            if net.opset < 13:
                return net.op("Squeeze", wide, axes=[1], shape=size)
            return net.op("Squeeze", wide, np.array([1]), shape=size)
        case "slices":
            flat, half = net.flat(y), y.size // 2
            one = slice_(net, flat, 0, half)
            two = slice_(net, flat, half, y.size)
            return net.op("Concat", two, one, axis=1, shape=size)
        case _:
            return net.flat(y)


def join(net: Net, y: Tensor, flat: Tensor, kind: str) -> Tensor:
    """What is done to the flattened map before the first layer: rows, other maps, a vector."""
    match kind:
        case "tokens":
            rows = net.op("Reshape", y, np.array([0, y.shape[0], -1]))
            rows = net.op("Transpose", rows, perm=[0, 2, 1])
            rows = net.op("MatMul", rows, net.random(y.shape[0], 3))
            rows = net.op("Relu", net.op("Add", rows, net.random(3)))
            return net.op("Flatten", rows, shape=(y.size // y.shape[0] * 3,))
        case "mixer":
            positions = y.size // y.shape[0]
            rows = net.op("Reshape", y, np.array([0, y.shape[0], -1]))
            rows = net.op("MatMul", rows, net.random(positions, 2))
            return net.op("Flatten", rows, shape=(y.shape[0] * 2,))
        case "two maps":
            inner = net.op("Conv", y, net.random(2, y.shape[0], 2, 2))
            extent = tuple(length - 1 for length in y.shape[1:])
            other = net.flat(Tensor(inner.value, (2, *extent)))
            return net.op("Concat", flat, other, axis=1, shape=(flat.size + other.size,))
        case "vector":
            side = net.input("side", ("N", 3))
            return net.op("Concat", side, flat, axis=1, shape=(flat.size + 3,))
        case "twice":
            return net.op("Concat", flat, flat, axis=1, shape=(2 * flat.size,))
        case "padded" if net.opset < 11:
            return net.op("Pad", flat, pads=[0, 1, 0, 2], shape=(flat.size + 3,))
        case "padded":
            return net.op("Pad", flat, np.array([0, 1, 0, 2]), shape=(flat.size + 3,))
        case "part":
            part = slice_(net, flat, 0, flat.size * 2 // 3)
            return net.op("Tanh", part, shape=(flat.size * 2 // 3,))
        case _:
            return flat


def slice_(net: Net, y: Tensor, start: int, end: int) -> Tensor:
    if net.opset < 10:
        return net.op("Slice", y, axes=[1], starts=[start], ends=[end])
    return net.op("Slice", y, np.array([start]), np.array([end]), np.array([1]))


def norm(net: Net, y: Tensor) -> Tensor:
    size = y.shape[0]
    variance = np.abs(net.random(size)) + np.float32(0.5)
    parameters = (net.random(size), net.random(size), net.random(size), variance)
    return net.op("BatchNormalization", y, *parameters, shape=y.shape)


def activate(net: Net, y: Tensor, op_type: str) -> Tensor:
    match op_type:
        case "none":
            return y
        case "BatchNormalization":
            return norm(net, y)
        case "PRelu":
            return net.op("PRelu", y, net.random(1), shape=y.shape)
        case "Clip" if net.opset < 11:
            return net.op("Clip", y, min=-1.0, max=1.0, shape=y.shape)
        case "Clip":
            bounds = (np.array(-1, np.float32), np.array(1, np.float32))
            return net.op("Clip", y, *bounds, shape=y.shape)
        case _:
            return net.op(op_type, y, shape=y.shape)


def scale(net: Net, y: Tensor, spelling: str) -> Tensor:
    """What differs from position to position, and must fold into the first layer."""
    match spelling:
        case "BatchNormalization":
            return norm(net, y)
        case "Mul" | "Sub":
            return net.op(spelling, net.random(y.size), y, shape=y.shape)
        case "split":
            return net.op("Div", y, np.abs(net.random(1, y.size)) + np.float32(1), shape=y.shape)
        case _:
            return y


def layer(net: Net, y: Tensor, spelling: str, outputs: int) -> Tensor:
    size = y.shape[0]
    match spelling:
        case "gemm":
            return net.op(
                "Gemm", y, net.random(size, outputs), net.random(outputs), shape=(outputs,)
            )
        case "gemm transA":
            turned = net.op("Transpose", y, perm=[1, 0])
            weight, bias = net.random(size, outputs), net.random(1, outputs)
            made = net.op("Gemm", turned, weight, bias, transA=1, alpha=0.5, beta=2.0)
            return Tensor(made.value, (outputs,))
        case "matmul":
            return net.op("MatMul", y, net.random(size, outputs), shape=(outputs,))
        case "matmul add" | "add matmul":
            operands = [
                net.op("MatMul", y, net.random(size, outputs)),
                net.weight(net.random(outputs)),
            ]
            if spelling == "add matmul":
                operands.reverse()
            return net.op("Add", *operands, shape=(outputs,))
        case "residual":
            first = net.fc(y, outputs)
            inner = net.fc(net.op("Relu", first, shape=(outputs,)), outputs)
            return net.op("Add", first, inner, shape=(outputs,))
        case _:
            return net.fc(y, outputs)


def finish(net: Net, y: Tensor, end: str) -> Tensor:
    match end:
        case "Softmax" | "LogSoftmax":
            return net.op(end, y, axis=1)
        case "groups" | "group softmax":
            pairs = net.op("Reshape", net.fc(y, 6), np.array([-1, 2, 3]))
            return pairs if end == "groups" else net.op("Softmax", pairs, axis=2)
        case "normalized" if net.opset >= 17:
            size = y.shape[0]
            return net.op("LayerNormalization", y, net.random(size), epsilon=0.1)
        case "normalized":
            length = net.op("Sqrt", net.op("ReduceSumSquare", y, axes=[1], keepdims=1))
            return net.op("Div", y, net.op("Add", length, np.array(0.1, np.float32)))
        case "unsqueeze" if net.opset < 13:
            return net.op("Unsqueeze", y, axes=[2])
        case "unsqueeze":
            return net.op("Unsqueeze", y, np.array([2]))
        case _:
            return activate(net, y, end)


def trunk(net: Net, kind: str) -> Tensor:
    match kind:
        case "image":
            return net.x
        case "pool":
            pooled = net.op("MaxPool", net.x, kernel_shape=[2, 2], strides=[2, 1])
            return Tensor(pooled.value, (2, 4, 8))
        case "branches":
            one, two = net.trunk(), net.trunk(relu=False, channels=2)
            return net.op("Concat", one, two, axis=1, shape=(5, *one.shape[1:]))
        case "dilated":
            y = net.op("Conv", net.x, net.random(4, 2, 2, 3), dilations=[3, 2], strides=[1, 2])
            return norm(net, Tensor(y.value, (4, 5, 3)))
        case _:
            return net.trunk()


@st.composite
def models(draw: st.DrawFn) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A model and what it was made of."""
    opset = draw(st.sampled_from([9, 11, 13, 14, 17, 18, 21]))
    net = Net(opset=opset, image=(2, 8, 9), seed=draw(st.integers(0, 9)))
    parts = [draw(st.sampled_from(("conv", "pool", "image", "branches", "dilated")))]
    y = trunk(net, parts[-1])
    feature_map = y
    parts.append(draw(st.sampled_from(FLATTENS)))
    y = flatten(net, y, parts[-1])
    parts.append(draw(st.sampled_from(JOINS)))
    y = join(net, feature_map, y, parts[-1])
    parts.append(draw(st.sampled_from(SCALES)))
    y = scale(net, y, parts[-1])
    for _ in range(draw(st.integers(1, 3))):
        parts.append(draw(st.sampled_from(LAYERS)))
        y = layer(net, y, parts[-1], draw(st.integers(1, 5)))
        parts.append(draw(st.sampled_from(ACTIVATIONS)))
        y = activate(net, y, parts[-1])
    parts.append(draw(st.sampled_from(ENDS)))
    y = finish(net, y, parts[-1])
    return net.model(Tensor(y.value, (*y.shape,))), (f"opset {opset}", *parts)


@given(models())
def test_any_head_slides(made: tuple[onnx.ModelProto, tuple[str, ...]]) -> None:
    model, parts = made
    coerces = int(parts[0].split()[1]) < 13
    gone = ["Gemm", "MatMul", "Flatten"]
    if not {"vector", "group softmax"} & set(parts):  # a vector becomes a map by a Reshape
        gone.append("Reshape")
    if not coerces and "normalized" not in parts:
        gone.append("Transpose")
    conversion = assert_slides(model, gone=tuple(gone), tolerance=1e-4)
    assert conversion.model is not None
    assert conversion.heads
    assert ir.to_proto(conversion.model).ByteSize() > 0
