"""Reductions over positions (global pooling in another spelling) and over features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.nets import Array, Net, Tensor, i64, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
    converted_model,
)

C, H, W = 3, 3, 4


def over(net: Net, op_type: str, y: Tensor, axes: list[int], **attributes: Any) -> Tensor:
    """The reduction with its axes as this opset writes them."""
    if net.opset >= (13 if op_type == "ReduceSum" else 18):
        return net.op(op_type, y, np.array(axes), **attributes)
    return net.op(op_type, y, axes=axes, **attributes)


def drop_axes(net: Net, op_type: str, y: Tensor) -> Tensor:
    return over(net, op_type, y, [2, 3], keepdims=0)


def keep_axes(net: Net, op_type: str, y: Tensor) -> Tensor:
    return net.op("Flatten", over(net, op_type, y, [-1, -2]))


def rows(net: Net, op_type: str, y: Tensor) -> Tensor:
    return over(net, op_type, net.op("Reshape", y, np.array([0, C, -1])), [2], keepdims=0)


def channels_last(net: Net, op_type: str, y: Tensor) -> Tensor:
    turned = net.op("Transpose", y, perm=[0, 2, 3, 1])
    return over(net, op_type, turned, [1, 2], keepdims=0)


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"])
@pytest.mark.parametrize(
    "spelling", [drop_axes, keep_axes, rows, channels_last], ids=lambda spelling: spelling.__name__
)
def test_pooling(spelling: Callable[[Net, str, Tensor], Tensor], op_type: str, opset: int) -> None:
    net = Net(opset=opset)
    pooled = Tensor(spelling(net, op_type, net.trunk()).value, (C,))
    conversion = assert_slides(
        net.model(net.fc(pooled)), exact=False, gone=("Gemm", "Flatten", "Reshape")
    )
    geometry = conversion.geometry["y"]
    assert geometry.stride == (0, 0)
    assert f"{op_type} node_{op_type}" in geometry.why
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == ("N", 4, 1, 1)


def test_squeeze_and_excite_with_a_mean() -> None:
    net = Net()
    trunk = net.trunk()
    gate = net.op(
        "Conv", over(net, "ReduceMean", trunk, [2, 3], keepdims=1), net.random(C, C, 1, 1)
    )
    y = net.op("Mul", trunk, net.op("Sigmoid", gate), shape=trunk.shape)
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    assert conversion.geometry["y"].stride == (2, 2)


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMax", "ReduceLogSumExp"])
def test_over_all_features(op_type: str, keepdims: int, opset: int) -> None:
    net = Net(opset=opset)
    y = over(net, op_type, net.head(net.trunk()), [1], keepdims=keepdims)
    assert_slides(net.model(y))


def test_normalized_features() -> None:
    """x / |x|, as embeddings are written."""
    net = Net()
    h = net.fc(net.flat(net.trunk()), 5)
    length = over(net, "ReduceL2", h, [1], keepdims=1)
    model = net.model(net.op("Div", h, length))
    assert_slides(model)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
def test_arg_max(op_type: str, axis: int, keepdims: int, opset: int) -> None:
    net = Net(opset=opset)
    y = net.op(op_type, net.fc(net.flat(net.trunk()), 7), axis=axis, keepdims=keepdims)
    conversion = assert_slides(net.model(y, dtype=ir.DataType.INT64), tolerance=0)
    assert op_type in op_types(converted_model(conversion))


def test_arg_max_of_permuted_scores() -> None:
    """The number is that of the score in the model's order, not of its channel."""
    net = Net()
    scores = net.op("Gather", net.fc(net.flat(net.trunk()), 5), np.array([4, 2, 0]), axis=1)
    y = net.op("ArgMax", scores, axis=1, keepdims=0)
    assert_slides(net.model(y, dtype=ir.DataType.INT64), tolerance=0)


def test_over_channels_in_the_trunk() -> None:
    net = Net()
    y = over(net, "ReduceMean", net.trunk(), [1], keepdims=1)
    assert_slides(net.model(net.head(Tensor(y.value, (1, H, W)))))


@pytest.mark.parametrize(
    ("axes", "code"),
    [([0], "batch-mixing"), ([1, 2], "flattened-features"), ([1, 2, 3], "flattened-features")],
)
def test_other_axes_are_refused(axes: list[int], code: str) -> None:
    net = Net(batch=1)
    y = net.op("ReduceMean", net.trunk(), axes=axes, keepdims=0, name="mean")
    y = net.op("Flatten", y, shape=(4,))
    assert_refused(net.model(net.fc(y)), code, "ReduceMean mean")


def test_everything_at_once_is_refused() -> None:
    net = Net()
    y = net.op("ReduceMean", net.head(net.trunk()), keepdims=0, name="mean")
    assert_refused(net.model(y), "batch-mixing", "ReduceMean mean")


@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd"])
@pytest.mark.parametrize("axes", [None, i64()], ids=["left out", "empty"])
def test_a_reduction_over_no_axis(axes: Array | None, op_type: str) -> None:
    net = Net(opset=18)
    given = () if axes is None else (axes,)
    y = net.op(op_type, net.flat(net.trunk()), *given, noop_with_empty_axes=1, shape=(36,))
    assert_slides(net.model(net.fc(y)))


def test_a_norm_over_no_axis_is_refused() -> None:
    """Runtimes differ: the element, or its absolute value."""
    net = Net(opset=18)
    y = net.op("ReduceL2", net.flat(net.trunk()), noop_with_empty_axes=1, shape=(36,), name="norm")
    assert_refused(net.model(net.fc(y)), "no-rule", "ReduceL2 norm", "no axis")


@pytest.mark.parametrize("count", ["Size", "Shape"])
def test_axes_counted_from_the_last_one(count: str) -> None:
    """As ONNX's own functions write LayerNormalization: the rank is the length of the shape."""
    net = Net(opset=18)
    y = net.op("Softplus", net.fc(net.flat(net.trunk()), 5), shape=(5,))
    rank = net.op("Reshape", net.op(count, net.op("Shape", y)), np.array([1]))
    axes = net.op("Sub", rank, np.array([1]))
    y = net.op("Div", y, net.op("ReduceMean", y, axes, keepdims=1), shape=(5,))
    assert_slides(net.model(net.fc(y)), gone=("Gemm", "Flatten"))
