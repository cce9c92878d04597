"""Fully connected layers and what stands between them."""

from __future__ import annotations

from math import sqrt

import numpy as np

from tests.nets import Net, Tensor, i64
from tests.properties.spellings import (
    Part,
    batch_norm,
    clip,
    concat,
    over_features,
    pad,
    reshape,
    same,
    scalar,
    slice_,
    split,
)


def gemm(net: Net, y: Tensor, outputs: int) -> Tensor:
    return net.op(
        "Gemm", y, net.random(y.size, outputs), net.random(outputs), shape=(outputs,), alpha=1.5
    )


def gemm_transposed(net: Net, y: Tensor, outputs: int) -> Tensor:
    return net.fc(y, outputs)


def gemm_of_columns(net: Net, y: Tensor, outputs: int) -> Tensor:
    turned = net.op("Transpose", y, perm=[1, 0])
    weight, bias = net.random(y.size, outputs), net.random(1, outputs)
    return net.op("Gemm", turned, weight, bias, transA=1, alpha=0.5, beta=2.0, shape=(outputs,))


def matmul(net: Net, y: Tensor, outputs: int) -> Tensor:
    return net.op("MatMul", y, net.random(y.size, outputs), shape=(outputs,))


def matmul_add(net: Net, y: Tensor, outputs: int) -> Tensor:
    return same(net, "Add", matmul(net, y, outputs), net.random(outputs))


def add_matmul(net: Net, y: Tensor, outputs: int) -> Tensor:
    return same(net, "Add", net.random(1, outputs), matmul(net, y, outputs))


def residual(net: Net, y: Tensor, outputs: int) -> Tensor:
    first = net.fc(y, outputs)
    return same(net, "Add", first, net.fc(same(net, "Relu", first), outputs))


def gate(net: Net, y: Tensor, outputs: int) -> Tensor:
    """Two layers, one of which says how much of the other passes."""
    return same(net, "Mul", net.fc(y, outputs), same(net, "Sigmoid", net.fc(y, outputs)))


def maxout(net: Net, y: Tensor, outputs: int) -> Tensor:
    return same(net, "Max", *(net.fc(y, outputs) for _ in range(3)))


def halved_gate(net: Net, y: Tensor, outputs: int) -> Tensor:
    """A gated linear unit: one layer, split in two."""
    one, two = split(net, net.fc(y, 2 * outputs), [outputs, outputs])
    return same(net, "Mul", one, same(net, "Sigmoid", two))


def paired_maxout(net: Net, y: Tensor, outputs: int) -> Tensor:
    """The larger of each two outputs, as a reduction of [N, K, 2]."""
    pairs = reshape(net, net.fc(y, 2 * outputs), outputs, 2)
    if net.opset >= 18:
        return net.op("ReduceMax", pairs, i64(2), keepdims=0, shape=(outputs,))
    return net.op("ReduceMax", pairs, axes=[2], keepdims=0, shape=(outputs,))


LAYERS = {
    part.__name__: part
    for part in (
        *(gemm, gemm_transposed, gemm_of_columns, matmul, matmul_add, add_matmul),
        *(residual, gate, maxout, halved_gate, paired_maxout),
    )
}


def _operator(op_type: str, **attributes: float) -> Part:
    return lambda net, y: same(net, op_type, y, **attributes)


def bounded(net: Net, y: Tensor) -> Tensor:
    return clip(net, y, -1.0, 1.0)


def prelu(net: Net, y: Tensor) -> Tensor:
    return same(net, "PRelu", y, net.random(y.shape[-1]))


def silu(net: Net, y: Tensor) -> Tensor:
    return same(net, "Mul", y, same(net, "Sigmoid", y))


def hard_swish(net: Net, y: Tensor) -> Tensor:
    shifted = clip(net, same(net, "Add", y, scalar(net, 3)), 0.0, 6.0)
    return same(net, "Div", same(net, "Mul", y, shifted), scalar(net, 6))


def mish(net: Net, y: Tensor) -> Tensor:
    return same(net, "Mul", y, same(net, "Tanh", same(net, "Softplus", y)))


def gelu(net: Net, y: Tensor) -> Tensor:
    """By the error function; by the hyperbolic tangent where the opset has no Erf."""
    if net.opset >= 20:
        return same(net, "Gelu", y)
    if net.opset >= 9:
        inner = same(net, "Erf", same(net, "Div", y, scalar(net, sqrt(2))))
    else:
        cubed = same(net, "Mul", y, same(net, "Mul", y, y))
        inner = same(net, "Add", y, same(net, "Mul", cubed, scalar(net, 0.044715)))
        inner = same(net, "Tanh", same(net, "Mul", inner, scalar(net, sqrt(2 / np.pi))))
    weight = same(net, "Add", inner, scalar(net, 1))
    return same(net, "Mul", same(net, "Mul", y, weight), scalar(net, 0.5))


def dropout(net: Net, y: Tensor) -> Tensor:
    return same(net, "Dropout", y)


def length_one(net: Net, y: Tensor) -> Tensor:
    length = over_features(net, "ReduceL2", y)
    return same(net, "Div", y, same(net, "Add", length, scalar(net, 0.1)))


def centred(net: Net, y: Tensor) -> Tensor:
    return same(net, "Sub", y, over_features(net, "ReduceMean", y))


def layer_norm(net: Net, y: Tensor) -> Tensor:
    """LayerNormalization-17, or the operators that older exporters write."""
    size = y.shape[0]
    if net.opset >= 17:
        return same(net, "LayerNormalization", y, net.random(size), net.random(size), epsilon=0.1)
    centre = centred(net, y)
    squares = same(net, "Pow", centre, scalar(net, 2))
    variance = same(net, "Add", over_features(net, "ReduceMean", squares), scalar(net, 0.1))
    scaled = same(net, "Div", centre, same(net, "Sqrt", variance))
    return same(net, "Add", same(net, "Mul", scaled, net.random(size)), net.random(size))


def shuffled(net: Net, y: Tensor) -> Tensor:
    """Features as [2, D/2], turned and flattened again."""
    if y.size % 2:
        return y
    turned = net.op("Transpose", reshape(net, y, 2, y.size // 2), perm=[0, 2, 1])
    return reshape(net, turned, y.size)


def padded(net: Net, y: Tensor) -> Tensor:
    return pad(net, y, [2, 1], value=0.5)


def chosen(net: Net, y: Tensor) -> Tensor:
    order = net.rng.integers(0, y.size, size=max(2, y.size - 1))
    return net.op("Gather", y, order, axis=1, shape=(len(order),))


def cut(net: Net, y: Tensor) -> Tensor:
    return slice_(net, y, 0, max(1, y.size - 1))


def joined(net: Net, y: Tensor) -> Tensor:
    return concat(net, same(net, "Sigmoid", y), net.fc(y, 2))


def split_in_two(net: Net, y: Tensor) -> Tensor:
    if y.size < 2:
        return y
    one, two = split(net, y, [1, y.size - 1])
    return concat(net, two, same(net, "Tanh", one))


BETWEEN: dict[str, Part] = {
    **{name: _operator(name) for name in ("Relu", "Sigmoid", "LeakyRelu", "Elu", "Softsign")},
    **{
        part.__name__: part
        for part in (
            *(bounded, prelu, silu, hard_swish, mish, gelu, dropout, batch_norm),
            *(length_one, centred, layer_norm),
            *(shuffled, padded, chosen, cut, joined, split_in_two),
        )
    },
}
