"""Models that compute in [N, H, W, C], as TensorFlow's exporters leave them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Array, Net, Tensor, i64
from tests.oracle import assert_refused, assert_slides

WINDOW = {"pool": "window"}


def conv(net: Net, y: Tensor, channels: int = 3) -> Tensor:
    """A 3x3 convolution between two transposes, with its bias added in [N, H, W, C]."""
    height, width, depth = y.shape
    turned = net.op("Transpose", y, perm=[0, 3, 1, 2])
    made = net.op("Conv", turned, net.random(channels, depth, 3, 3))
    back = net.op("Transpose", made, perm=[0, 2, 3, 1])
    shape = (height - 2, width - 2, channels)
    return net.op("Add", back, net.random(channels), shape=shape)


def net_and_trunk(opset: int = 13, batch: int | str = "N") -> tuple[Net, Tensor]:
    net = Net(opset=opset, image=(8, 10, 2), batch=batch)
    y = conv(net, net.x)
    return net, net.op("Relu", y, shape=y.shape)


def assert_slides_channels_last(net: Net, y: Tensor, **expectations: object) -> None:
    gone = ("Gemm", "Flatten", "Reshape")
    assert_slides(net.model(y), channels_last=True, **({"gone": gone} | expectations))


@pytest.mark.parametrize("batch", ["N", 1])
def test_two_convolutions_with_transposes(batch: int | str) -> None:
    net, y = net_and_trunk(batch=batch)
    y = conv(net, y, 4)
    assert_slides_channels_last(net, net.head(y), free_batch=batch == "N")


def slopes(net: Net, shape: tuple[int, ...]) -> Array:
    return net.random(*shape) if len(shape) > 1 else net.random(shape[0])


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3), (1,)], ids=str)
def test_prelu(shape: tuple[int, ...]) -> None:
    net, y = net_and_trunk()
    y = net.op("PRelu", y, net.random(3).reshape(-1)[: shape[-1]].reshape(shape), shape=y.shape)
    assert_slides_channels_last(net, net.head(conv(net, y)))


def test_a_normalization_written_as_a_scale_and_a_shift() -> None:
    net, y = net_and_trunk()
    y = net.op("Add", net.op("Mul", y, net.random(3)), net.random(1, 1, 1, 3), shape=y.shape)
    assert_slides_channels_last(net, net.head(conv(net, y)))


def test_a_normalization_of_axis_1_is_refused() -> None:
    """BatchNormalization-1 and up take axis 1 for the channels: here it is the rows."""
    net, y = net_and_trunk()
    parameters = [np.abs(net.random(6)) for _ in range(4)]
    y = net.op("BatchNormalization", y, *parameters, shape=y.shape, name="bn")
    assert_refused(net.model(net.head(y)), "layout", "BatchNormalization bn")


@pytest.mark.parametrize("axis", [3, -1])
def test_joined_branches(axis: int) -> None:
    net, y = net_and_trunk()
    both = net.op("Concat", conv(net, y, 2), conv(net, y, 3), axis=axis, shape=(4, 6, 5))
    assert_slides_channels_last(net, net.head(both))


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("pool", ["keep", "window"])
def test_global_pooling(pool: str, keepdims: int, opset: int) -> None:
    net, y = net_and_trunk(opset)
    if opset < 18:
        y = net.op("ReduceMean", y, axes=[1, 2], keepdims=keepdims)
    else:
        y = net.op("ReduceMean", y, i64(1, 2), keepdims=keepdims)
    y = net.op("Flatten", y, shape=(3,))
    options = {"pool": pool}
    assert_slides_channels_last(net, net.fc(y), exact=pool == "window", options=options)


@pytest.mark.parametrize("pool", ["keep", "window"])
def test_squeeze_and_excite(pool: str) -> None:
    net, y = net_and_trunk()
    squeezed = net.op("ReduceMean", y, axes=[1, 2], keepdims=0, shape=(3,))
    gate = net.op("Sigmoid", net.fc(net.op("Relu", net.fc(squeezed, 2), shape=(2,)), 3))
    gate = net.op("Reshape", gate, i64(-1, 1, 1, 3))
    y = net.op("Mul", y, gate, shape=y.shape)
    assert_slides_channels_last(net, net.head(y), exact=False, options={"pool": pool})


def test_slices_and_pads() -> None:
    net, y = net_and_trunk()
    y = net.op("Slice", y, i64(1, 0), i64(2**31 - 1, -1), i64(1, 2), shape=(5, 7, 3))
    y = net.op("Pad", y, i64(0, -1, 0, 0, 0, 0, -1, 0), shape=(4, 6, 3))
    assert_slides_channels_last(net, net.head(conv(net, y)))


def test_softmax_of_the_channels() -> None:
    net, y = net_and_trunk()
    y = net.op("Softmax", y, axis=-1, shape=y.shape)
    assert_slides_channels_last(net, net.head(y))
