"""BatchNormalization, Softmax and what pools the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.nets import Array, Net, Tensor, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
    converted_model,
)

C, H, W = 3, 3, 4
D = C * H * W


def statistics(net: Net, channels: int) -> tuple[Array, ...]:
    """Scale, bias, mean and variance."""
    return (
        *(net.random(channels) for _ in range(3)),
        np.abs(net.random(channels)) + np.float32(0.5),
    )


def batch_norm(net: Net, y: Tensor, **attributes: Any) -> Tensor:
    channels = y.shape[0]
    normalized = net.op("BatchNormalization", y, *statistics(net, channels), **attributes)
    return Tensor(normalized.value, y.shape)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15])
@pytest.mark.parametrize("where", ["trunk", "features", "between", "output"])
def test_batch_normalization(where: str, opset: int) -> None:
    net = Net(opset=opset)
    y = net.trunk()
    if where == "trunk":
        y = batch_norm(net, y)
    y = net.flat(y)
    if where == "features":
        y = batch_norm(net, y, epsilon=0.1)
    y = net.fc(y, 5)
    if where == "between":
        y = net.op("Relu", batch_norm(net, y), shape=(5,))
    y = net.fc(y, 4)
    if where == "output":
        y = batch_norm(net, y)
    assert_slides(net.model(y))


def test_batch_normalization_of_features_twice() -> None:
    net = Net()
    y = batch_norm(net, batch_norm(net, net.flat(net.trunk())))
    y = net.op("Add", y, net.random(D), shape=(D,))
    conversion = assert_slides(net.model(net.fc(y)))
    assert op_types(converted_model(conversion)) == ["Conv", "Relu", "MaxPool", "Conv"]


def test_batch_normalization_of_features_behind_a_transpose() -> None:
    net = Net()
    moved = net.op("Transpose", net.trunk(), perm=[0, 2, 3, 1])
    flat = net.op("Flatten", moved, shape=(D,))
    assert_slides(net.model(net.fc(batch_norm(net, flat))))


def test_batch_normalization_of_rank_3() -> None:
    """Keras and timm put an axis behind the features: [N, K, 1]."""
    net = Net()
    y = net.fc(net.flat(net.trunk()), 5)
    y = net.op("Unsqueeze", y, np.array([2]), shape=(5, 1))
    y = net.op("Squeeze", batch_norm(net, y), np.array([2]), shape=(5,))
    assert_slides(net.model(net.fc(y)))


def test_batch_normalization_of_gathered_features_then_activation() -> None:
    """After a layer a scale may be deferred to an activation: it has one value a channel."""
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 6)
    turned = net.op("Gather", hidden, np.array([5, 3, 4, 1, 0, 2]), axis=1, shape=(6,))
    y = net.op("Relu", batch_norm(net, turned), shape=(6,))
    assert_slides(net.model(net.fc(y)))


def test_batch_normalization_with_a_baked_batch() -> None:
    net = Net(batch=1)
    flat = net.op("Reshape", net.trunk(), np.array([1, -1]), shape=(D,))
    assert_slides(net.model(net.fc(batch_norm(net, flat))), free_batch=False)


def test_batch_normalization_of_features_then_activation_is_refused() -> None:
    net = Net()
    y = batch_norm(net, net.flat(net.trunk()))
    y = net.op("Relu", y, shape=(D,), name="act")
    assert_refused(net.model(net.fc(y)), "position-dependent", "Relu act")


def test_batch_normalization_in_training_mode_is_refused() -> None:
    net = Net(opset=14)
    flat = net.flat(net.trunk())
    y = net.op(
        "BatchNormalization", flat, *statistics(net, D), training_mode=1, shape=(D,), name="bn"
    )
    assert_refused(net.model(net.fc(y)), "training-mode", "BatchNormalization bn")


AXES = [(9, None), (9, 1), (11, 1), (11, -1), (12, None), (13, None), (13, -1), (13, 1), (17, -1)]


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), AXES)
def test_softmax(op_type: str, opset: int, axis: int | None) -> None:
    net = Net(opset=opset)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    y = net.op(op_type, net.head(net.trunk()), **attributes)
    gone = ("Gemm", "Flatten", *(("Transpose",) if opset >= 13 else ()))
    assert_slides(net.model(y), gone=gone)


@pytest.mark.parametrize(("opset", "axis"), [(9, 1), (13, 1)])
def test_hardmax(opset: int, axis: int) -> None:
    net = Net(opset=opset)
    y = net.op("Hardmax", net.head(net.trunk()), axis=axis)
    assert_slides(net.model(y), gone=("Gemm", "Flatten"))


@pytest.mark.parametrize(("opset", "axis"), [(11, 0), (13, 0), (13, -1)])
def test_softmax_of_rank_1(opset: int, axis: int) -> None:
    net = Net(opset=opset, batch=1)
    flat = net.op("Reshape", net.trunk(), np.array([-1]))
    y = net.op("Softmax", net.op("MatMul", flat, net.random(D, 4)), axis=axis)
    assert_slides(net.model(y), free_batch=False, batch_axis=None, gone=("MatMul", "Reshape"))


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (11, -1), (13, 1), (13, -1)])
def test_softmax_between_layers(opset: int, axis: int) -> None:
    net = Net(opset=opset)
    y = net.op("Softmax", net.fc(net.flat(net.trunk()), 5), axis=axis, shape=(5,))
    assert_slides(net.model(net.fc(y)), gone=("Gemm", "Flatten"))


def test_softmax_of_gathered_features() -> None:
    net = Net()
    y = net.op("Gather", net.fc(net.flat(net.trunk()), 6), np.array([4, 0, 1]), axis=1)
    assert_slides(net.model(net.op("Softmax", y)))


def test_softmax_of_concatenated_layers() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("Concat", net.fc(flat, 2), net.fc(flat, 3), axis=1)
    assert_slides(net.model(net.op("Softmax", y, axis=1)))


def test_softmax_in_the_trunk() -> None:
    net = Net()
    y = net.op("Softmax", net.trunk(), axis=1, shape=(C, H, W))
    assert_slides(net.model(net.head(y)))


def test_softmax_over_all_of_a_map_is_refused() -> None:
    """Until opset 12 axis 1 of [N, C, H, W] takes the positions with it."""
    net = Net(opset=11)
    y = net.op("Softmax", net.trunk(), axis=1, shape=(C, H, W), name="prob")
    assert_refused(net.model(net.head(y)), "flattened-features", "Softmax prob", "[3, 3, 4]")


def test_softmax_over_the_batch_is_refused() -> None:
    net = Net()
    y = net.op("Softmax", net.head(net.trunk()), axis=0, name="prob")
    assert_refused(net.model(y), "batch-mixing", "Softmax prob", "axis 0")


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pooling_head(op_type: str, opset: int) -> None:
    net = Net(opset=opset)
    pooled = net.op(op_type, net.trunk(), shape=(C, 1, 1), name="pool")
    y = net.op("Softmax", net.head(pooled), axis=1)
    conversion = assert_slides(net.model(y), exact=False, gone=("Gemm", "Flatten"))
    geometry = conversion.geometry["y"]
    assert geometry.stride == (0, 0)
    assert f"{op_type} pool" in geometry.why
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == ("N", 4, 1, 1)


def test_local_response_normalization() -> None:
    net = Net()
    y = net.op("LRN", net.trunk(channels=6), size=3, alpha=0.1, shape=(6, H, W))
    assert_slides(net.model(net.head(y)))


def test_instance_normalization_sees_the_whole_image() -> None:
    net = Net()
    y = net.op(
        "InstanceNormalization",
        net.trunk(),
        net.random(C),
        net.random(C),
        shape=(C, H, W),
        name="n",
    )
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    assert "InstanceNormalization" in conversion.geometry["y"].why


def test_gated_channels_with_convolutions() -> None:
    """Squeeze and excite, written with 1x1 convolutions."""
    net = Net()
    trunk = net.trunk()
    gate = net.op("Conv", net.op("GlobalAveragePool", trunk), net.random(C, C, 1, 1))
    y = net.op("Mul", trunk, net.op("Sigmoid", gate), shape=trunk.shape)
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    assert conversion.geometry["y"].stride == (2, 2)


def test_attention_over_positions() -> None:
    """One gate for all channels at each position, as spatial attention has it."""
    net = Net()
    trunk = net.trunk()
    gate = net.op("Sigmoid", net.op("Conv", trunk, net.random(1, C, 1, 1)))
    y = net.op("Mul", gate, trunk, shape=trunk.shape)
    assert_slides(net.model(net.head(y)))
