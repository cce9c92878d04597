"""Layers that draw on several maps: a sum of convolutions in step."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, Tensor, conv, i64, op_types
from tests.oracle import assert_refused, assert_slides, converted_model


def joined(net: Net, *maps: Tensor) -> Tensor:
    flat = [net.flat(y) for y in maps]
    return net.op("Concat", *flat, axis=1, shape=(sum(y.size for y in flat),))


def pooled(net: Net, y: Tensor) -> Tensor:
    channels, *extent = y.shape
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    return Tensor(y.value, (channels, *(length // 2 for length in extent)))


def norm(net: Net, y: Tensor) -> Tensor:
    size = y.size
    variance = np.abs(net.random(size)) + np.float32(0.5)
    parameters = (net.random(size), net.random(size), net.random(size), variance)
    return net.op("BatchNormalization", y, *parameters, shape=y.shape)


def test_a_pooling_and_the_convolution_after_it() -> None:
    """DeepID: the last hidden layer reads the third pooling and the fourth convolution."""
    net = Net()
    third = net.trunk()
    fourth = conv(net, third, (2, 3), 2, channels=4)
    conversion = assert_slides(net.model(net.fc(joined(net, third, fourth))))
    assert conversion.geometry["y"].stride == (2, 2)
    types = op_types(converted_model(conversion))
    assert types[-3:] == ["Conv", "Conv", "Add"]
    assert [layer.weight_shape for layer in conversion.heads] == [(4, 36 + 24)]


def test_two_poolings() -> None:
    """Strides 2 and 4: the kernel of the finer map moves two cells at a time."""
    net = Net(image=(2, 10, 14))
    one = pooled(net, conv(net, net.x, (8, 12)))
    two = pooled(net, one)
    conversion = assert_slides(net.model(net.fc(joined(net, one, two))))
    assert conversion.geometry["y"].stride == (4, 4)


def test_strides_2_and_3() -> None:
    net = Net(image=(2, 12, 12))
    one = pooled(net, net.x)
    two = net.op("MaxPool", net.x, kernel_shape=[3, 3], strides=[3, 3], shape=(2, 4, 4))
    conversion = assert_slides(net.model(net.fc(joined(net, one, two))))
    assert conversion.geometry["y"].stride == (6, 6)


def test_three_maps_in_another_order() -> None:
    net = Net()
    one = net.trunk()
    two = conv(net, one, (2, 3), 2)
    three = conv(net, two, (1, 2), 2)
    flat = joined(net, three, one, two)
    backwards = net.op("Gather", flat, np.arange(flat.size)[::-1].copy(), axis=1, shape=flat.shape)
    assert_slides(net.model(net.fc(net.fc(backwards, 6))))


def test_a_scale_of_each_map_is_folded() -> None:
    net = Net()
    one = net.trunk()
    two = conv(net, one, (2, 3), 2)
    flat = [norm(net, net.flat(one)), norm(net, net.flat(two))]
    y = net.op("Concat", *flat, axis=1, shape=(one.size + two.size,))
    conversion = assert_slides(net.model(net.fc(y)))
    assert conversion.heads[0].bytes_kept == "folded"


def test_a_scale_of_joined_maps_is_folded() -> None:
    net = Net()
    one = net.trunk()
    y = norm(net, joined(net, one, conv(net, one, (2, 3), 2)))
    y = net.op("Add", net.random(y.size), y, shape=y.shape)
    conversion = assert_slides(net.model(net.fc(y)))
    assert "BatchNormalization" not in op_types(converted_model(conversion))


@pytest.mark.parametrize("op_type", ["Relu", "Sigmoid", "Exp"])
def test_an_activation_of_joined_maps(op_type: str) -> None:
    net = Net()
    one = net.trunk(relu=False)
    y = joined(net, one, conv(net, one, (2, 3), 2))
    y = net.op(op_type, y, shape=y.shape)
    conversion = assert_slides(net.model(net.fc(y)))
    assert op_types(converted_model(conversion)).count(op_type) == 2


def test_joined_maps_added() -> None:
    net = Net()
    one, two = net.trunk(), net.trunk()
    first = joined(net, one, conv(net, one, (2, 3), 2))
    second = joined(net, two, conv(net, two, (2, 3), 2))
    assert_slides(net.model(net.fc(net.op("Add", first, second, shape=first.shape))))


def test_gemm_with_the_weight_first() -> None:
    net = Net()
    one = net.trunk()
    flat = joined(net, one, conv(net, one, (2, 3), 2))
    column = net.op("Transpose", flat, perm=[1, 0])
    y = net.op("Gemm", net.random(5, flat.size), column, net.random(5, 1), alpha=0.5, beta=2.0)
    assert_slides(net.model(y), batch_axis=1)


@pytest.mark.parametrize("image", [(2, 12), (2, 6, 8, 6)], ids=["1-D", "3-D"])
def test_other_ranks(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    one = net.trunk(pool=False)
    two = conv(net, one, tuple(length - 1 for length in one.shape[1:]), 2)
    assert_slides(net.model(net.fc(joined(net, one, two))))


def test_a_layer_joined_with_the_map_that_it_read() -> None:
    net = Net()
    trunk = net.trunk()
    first = net.head(trunk)
    y = net.op("Concat", net.flat(trunk), first, axis=1, shape=(40,))
    assert_slides(net.model(net.fc(y)))


def test_a_pooling_beside_features_that_slide_pools_each_window() -> None:
    net = Net()
    trunk = net.trunk()
    means = net.flat(net.op("GlobalAveragePool", trunk, shape=(3, 1, 1)))
    y = net.op("Concat", net.flat(trunk), means, axis=1, shape=(39,))
    model = net.model(net.fc(y))
    conversion = assert_slides(model)
    assert conversion.geometry["y"].windows_exact
    assert [p.node for p in conversion.poolings] == ["node_GlobalAveragePool_3"]


def test_a_pooling_without_a_sliding_operator_beside_features_is_refused() -> None:
    net = Net()
    trunk = net.trunk()
    product = net.op("ReduceProd", trunk, name="product", axes=[2, 3], keepdims=0, shape=(3,))
    y = net.op("Concat", net.flat(trunk), product, axis=1, shape=(39,))
    assert_refused(net.model(net.fc(y)), "window-pooling", "ReduceProd product", "in each window")


def test_maps_that_grow_apart_are_refused() -> None:
    """At 9 pixels the second map has a cell more than the first one."""
    net = Net(image=(2, 9, 9))
    one = conv(net, net.x, (4, 4), 3, strides=[2, 2])
    two = conv(net, net.x, (4, 4), 2, strides=[2, 2])
    y = net.fc(joined(net, pooled(net, one), two), name="fc")
    assert_refused(net.model(y), "misaligned", "Gemm fc", "two cells sooner than the other")


def test_padded_maps() -> None:
    """VGG's last two poolings: both kernels take the same pixels."""
    net = Net(image=(2, 8, 8))
    one = pooled(net, conv(net, net.x, (8, 8), pads=[1, 1, 1, 1]))
    two = pooled(net, conv(net, one, (4, 4), pads=[1, 1, 1, 1]))
    conversion = assert_slides(net.model(net.fc(joined(net, one, two))), exact=False)
    assert conversion.geometry["y"].stride == (4, 4)


def test_a_softmax_of_several_maps_is_refused() -> None:
    net = Net()
    one = net.trunk()
    y = joined(net, one, conv(net, one, (2, 3), 2))
    y = net.op("Softmax", y, axis=1, shape=y.shape, name="prob")
    assert_refused(net.model(net.fc(y)), "several-maps", "Softmax prob")


@pytest.mark.parametrize("opset", [11, 13])
def test_parts_of_two_maps(opset: int) -> None:
    net = Net(opset=opset)
    one = net.trunk()
    two = conv(net, one, (2, 3), 2)
    parts = [net.op("Slice", net.flat(y), i64(2), i64(11), i64(1)) for y in (one, two)]
    y = net.op("Concat", *parts, axis=1, shape=(18,))
    assert_slides(net.model(net.fc(net.op("Tanh", y, shape=(18,)))))
