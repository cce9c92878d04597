"""Layers that are applied to several rows of a sample: tokens, and groups of features."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import pytest

from tests.nets import Net, Tensor, conv, i64, op_types
from tests.oracle import assert_refused, assert_slides, converted_model

C, H, W = 3, 3, 4
K = 5

LEFT = ("Gemm", "MatMul", "Flatten", "Squeeze", "Unsqueeze")


def rows(net: Net, y: Tensor) -> Tensor:
    """[N, H·W, C]."""
    channels, *extent = y.shape
    y = net.op("Reshape", y, i64(0, channels, -1))
    return net.op("Transpose", y, perm=[0, 2, 1], shape=(prod(extent), channels))


def flattened_then_rows(net: Net, y: Tensor) -> Tensor:
    """Flatten(2) of PyTorch: its sizes come from Shape."""
    channels, *extent = y.shape
    head = net.op("Slice", net.op("Shape", y), i64(0), i64(2), i64(0))
    y = net.op("Reshape", y, net.op("Concat", head, i64(-1), axis=0))
    return net.op("Transpose", y, perm=[0, 2, 1], shape=(prod(extent), channels))


def channels_last(net: Net, y: Tensor) -> Tensor:
    """[N, H, W, C]."""
    channels, *extent = y.shape
    return net.op("Transpose", y, perm=[0, 2, 3, 1], shape=(*extent, channels))


def channels_last_rows(net: Net, y: Tensor) -> Tensor:
    """[N, H·W, C] by way of [N, H, W, C]."""
    *extent, channels = channels_last(net, y).shape
    y = net.op("Transpose", y, perm=[0, 2, 3, 1])
    return net.op("Reshape", y, i64(0, -1, channels), shape=(prod(extent), channels))


def swapped_rows(net: Net, y: Tensor) -> Tensor:
    """[N, W·H, C], column by column."""
    channels, *extent = y.shape
    y = net.op("Transpose", y, perm=[0, 3, 2, 1])
    return net.op("Reshape", y, i64(0, -1, channels), shape=(prod(extent), channels))


SPELLINGS = (rows, flattened_then_rows, channels_last, channels_last_rows, swapped_rows)
spellings = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.__name__)


def linear(net: Net, y: Tensor, outputs: int = K, *, bias: bool = True) -> Tensor:
    """nn.Linear on [N, …, D]: MatMul, and Add of [K]."""
    *tokens, features = y.shape
    y = net.op("MatMul", y, net.random(features, outputs))
    if bias:
        y = net.op("Add", net.random(outputs), y)
    return Tensor(y.value, (*tokens, outputs))


@spellings
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_layer_at_each_position(spelling: Callable[[Net, Tensor], Tensor], opset: int) -> None:
    net = Net(opset=opset)
    y = linear(net, spelling(net, net.trunk()))
    y = net.op("Relu", y, shape=y.shape)
    conversion = assert_slides(net.model(net.head(y)))
    shapes = [layer.kernel_shape for layer in conversion.heads]
    assert shapes == [(K, C, 1, 1), (4, K, H, W)]
    types = [t for t in op_types(converted_model(conversion)) if t != "Constant"]
    assert types == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "Conv"]


@spellings
def test_two_layers_at_each_position(spelling: Callable[[Net, Tensor], Tensor]) -> None:
    """A block with a residual, as ConvNeXt has it."""
    net = Net()
    trunk = net.trunk(channels=K)
    tokens = spelling(net, trunk)
    inner = linear(net, tokens, 8)
    inner = linear(net, net.op("Relu", inner, shape=inner.shape), bias=False)
    y = net.op("Add", tokens, inner, shape=tokens.shape)
    assert_slides(net.model(net.head(y)))


def test_layer_on_the_left_of_the_map() -> None:
    net = Net()
    y = net.op("Reshape", net.trunk(), i64(0, C, -1))
    y = net.op("MatMul", net.random(K, C), y, shape=(K, H * W))
    y = net.op("Add", y, net.random(K, 1), shape=y.shape)
    assert_slides(net.model(net.head(y)))


def test_the_rows_become_a_map_again() -> None:
    """Transpose and Reshape back; another convolution slides over the result."""
    net = Net()
    y = linear(net, rows(net, net.trunk()))
    y = net.op("Transpose", y, perm=[0, 2, 1])
    y = net.op("Reshape", y, i64(-1, K, H, W), shape=(K, H, W))
    assert_slides(net.model(net.head(conv(net, y, (2, 3), 2))))


def test_channels_last_and_back() -> None:
    net = Net()
    y = linear(net, channels_last(net, net.trunk()))
    y = net.op("Transpose", y, perm=[0, 3, 1, 2], shape=(K, H, W))
    assert_slides(net.model(net.head(conv(net, y, (2, 3), 2))))


@pytest.mark.parametrize("keepdims", [0, 1])
@spellings
def test_mean_over_the_rows(spelling: Callable[[Net, Tensor], Tensor], keepdims: int) -> None:
    net = Net()
    y = linear(net, spelling(net, net.trunk()))
    axes = list(range(1, len(y.shape)))
    y = net.op("ReduceMean", y, axes=axes, keepdims=keepdims)
    y = net.fc(net.op("Flatten", y, shape=(K,)))
    conversion = assert_slides(net.model(y), exact=False)
    assert conversion.geometry["y"].stride == (0, 0)


def test_after_a_global_pool() -> None:
    net = Net()
    y = net.op("GlobalAveragePool", net.trunk(), shape=(C, 1, 1))
    assert_slides(net.model(net.head(linear(net, channels_last(net, y)))), exact=False)


def test_samples_and_rows_on_one_axis() -> None:
    """TensorFlow's Dense: [N·H·W, C], at a batch of 1."""
    net = Net(batch=1)
    y = net.op("Reshape", channels_last(net, net.trunk()), i64(-1, C))
    y = net.op("Gemm", y, net.random(C, K), net.random(K))
    y = net.op("Relu", net.op("Reshape", y, i64(1, H, W, K)), shape=(H, W, K))
    assert_slides(net.model(net.head(y)), free_batch=False)


def test_some_rows_only() -> None:
    """The first two rows of the map go into the layer: the others do no harm."""
    net = Net()
    y = net.op("Slice", channels_last(net, net.trunk()), i64(0), i64(2), i64(1), shape=(2, W, C))
    assert_slides(net.model(net.head(linear(net, y))))


def test_one_row_is_a_layer_of_the_window() -> None:
    net = Net()
    y = net.op("Gather", rows(net, net.trunk()), i64(7), axis=1, shape=(1, C))
    conversion = assert_slides(net.model(linear(net, y)))
    assert [layer.kernel_shape for layer in conversion.heads] == [(K, C, H, W)]


def test_a_scale_of_the_channels_is_folded() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    scale = np.repeat(net.random(C), H * W)
    scaled = net.op("Mul", flat, net.random(flat.size), shape=flat.shape)
    y = net.op("Div", scaled, scaled)  # keeps the scale from being folded further up
    y = net.op("Mul", flat, scale, shape=flat.shape)
    y = net.op("Reshape", y, i64(-1, C, H * W))
    y = net.op("MatMul", net.random(K, C), y, shape=(K, H * W))
    assert_slides(net.model(net.head(y)))


def test_a_scale_of_each_position_goes_into_one_kernel_per_row() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("Add", net.op("Mul", flat, net.random(flat.size)), net.random(flat.size))
    y = net.op("Transpose", net.op("Reshape", y, i64(-1, C, H * W)), perm=[0, 2, 1])
    y = linear(net, Tensor(y.value, (H * W, C)))
    conversion = assert_slides(net.model(net.head(net.op("Relu", y, shape=y.shape))))
    assert conversion.heads[0].kernel_shape == (K * H * W, C, H, W)


def test_groups_of_features() -> None:
    """[N, A, B] after a layer: the weight stands once in each group of the kernel."""
    net = Net()
    y = net.op("Reshape", net.fc(net.flat(net.trunk()), 6), i64(-1, 2, 3), shape=(2, 3))
    y = net.op("Relu", linear(net, y), shape=(2, K))
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.heads[1].kernel_shape == (2 * K, 3, 1, 1)


def test_interleaved_groups_of_features() -> None:
    net = Net()
    y = net.op("Reshape", net.fc(net.flat(net.trunk()), 6), i64(-1, 3, 2))
    y = net.op("Transpose", y, perm=[0, 2, 1], shape=(2, 3))
    conversion = assert_slides(net.model(net.head(linear(net, y))))
    assert conversion.heads[1].kernel_shape == (2 * K, 6, 1, 1)


def test_overlapping_groups_of_features() -> None:
    net = Net()
    y = net.fc(net.flat(net.trunk()), 6)
    y = net.op("Gather", y, np.array([[0, 1, 2], [1, 2, 3], [0, 1, 2]]), axis=1, shape=(3, 3))
    conversion = assert_slides(net.model(net.head(linear(net, y))))
    assert conversion.heads[1].kernel_shape == (2 * K, 6, 1, 1)


def test_groups_of_channels_at_each_position() -> None:
    """[N, heads, T, D]: every head has the same weight."""
    net = Net()
    y = net.op("Reshape", net.trunk(channels=6), i64(0, 2, 3, -1))
    y = net.op("Transpose", y, perm=[0, 1, 3, 2], shape=(2, H * W, 3))
    conversion = assert_slides(net.model(net.head(linear(net, y))))
    assert conversion.heads[0].kernel_shape == (2 * K, 3, 1, 1)


def test_mixer_of_positions() -> None:
    """[N, C, T] times [T, K]: each channel has its own kernel of the whole map."""
    net = Net()
    y = net.op("Reshape", net.trunk(), i64(0, C, -1), shape=(C, H * W))
    y = linear(net, y)
    conversion = assert_slides(net.model(net.head(net.op("Relu", y, shape=y.shape))))
    assert conversion.heads[0].kernel_shape == (C * K, 1, H, W)


def test_rows_that_read_parts_of_the_map() -> None:
    """Halves of the channels, the second one back to front: no window of one map."""
    net = Net()
    flat = np.arange(4 * H * W).reshape(2, -1)
    flat[1] = flat[1, ::-1]
    y = net.op("Gather", net.flat(net.trunk(channels=4)), flat, axis=1, shape=flat.shape)
    conversion = assert_slides(net.model(net.head(linear(net, y))))
    assert conversion.heads[0].kernel_shape == (2 * K, 4, H, W)


def test_two_maps_in_step() -> None:
    net = Net()
    one, two = rows(net, net.trunk()), rows(net, net.trunk(relu=False))
    y = net.op("Concat", one, two, axis=2, shape=(H * W, 2 * C))
    conversion = assert_slides(net.model(net.head(linear(net, y))))
    assert conversion.heads[0].kernel_shape == (K, 2 * C, 1, 1)


def test_a_kernel_that_would_fill_memory_is_refused() -> None:
    net = Net(image=(2, 34, 34))
    index = np.arange(8 * 16 * 16).reshape(16, 128)
    index[1::2] = index[1::2, ::-1]
    y = net.op("Gather", net.flat(net.trunk(channels=8)), index, axis=1, shape=(16, 128))
    y = linear(net, y, 600)
    assert_refused(net.model(net.head(y)), "token-wise", "MatMul", "16 rows per sample")


def test_positions_of_two_grids_are_refused() -> None:
    net = Net()
    one = rows(net, net.trunk())
    two = rows(net, conv(net, net.x, (6, 8)))
    y = net.op("Concat", one, two, axis=1, shape=(60, C))
    assert_refused(net.model(net.head(linear(net, y))), "several-maps", "MatMul")
