"""Global pooling: it keeps seeing the whole image, or pools each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.passes import FcToConv
from onnx_fc2conv.pipeline import convert, inspect
from tests.nets import Net, Tensor, conv, op_types, session
from tests.oracle import assert_refused, assert_slides, converted_model

C, H, W = 3, 3, 4
WINDOW = {"pool": "window"}
GONE = ("Gemm", "Flatten", "Reshape", "Transpose", "ReduceMean", "GlobalAveragePool")

Spelling = Callable[[Net, Tensor], Tensor]


def over(net: Net, op_type: str, y: Tensor, axes: list[int], keepdims: int) -> Tensor:
    """The reduction with its axes as this opset writes them."""
    if net.opset >= (13 if op_type == "ReduceSum" else 18):
        return net.op(op_type, y, np.array(axes), keepdims=keepdims)
    return net.op(op_type, y, axes=axes, keepdims=keepdims)


def flat(net: Net, y: Tensor) -> Tensor:
    return net.op("Flatten", y)


def pool_and_flatten(net: Net, y: Tensor) -> Tensor:
    return flat(net, net.op("GlobalAveragePool", y))


def pool_of_rows(net: Net, y: Tensor) -> Tensor:
    rows = net.op("Reshape", y, np.array([0, C, -1]))
    return flat(net, net.op("GlobalAveragePool", rows))


def pool_and_reshape(net: Net, y: Tensor) -> Tensor:
    return net.op("Reshape", net.op("GlobalAveragePool", y), np.array([-1, C]))


def mean_dropped(net: Net, y: Tensor) -> Tensor:
    return over(net, "ReduceMean", y, [2, 3], 0)


def mean_kept(net: Net, y: Tensor) -> Tensor:
    return flat(net, over(net, "ReduceMean", y, [-1, -2], 1))


def mean_of_rows(net: Net, y: Tensor) -> Tensor:
    return over(net, "ReduceMean", net.op("Reshape", y, np.array([0, C, -1])), [2], 0)


def mean_of_tokens(net: Net, y: Tensor) -> Tensor:
    rows = net.op("Reshape", y, np.array([0, C, -1]))
    return over(net, "ReduceMean", net.op("Transpose", rows, perm=[0, 2, 1]), [1], 0)


def mean_channels_last(net: Net, y: Tensor) -> Tensor:
    return over(net, "ReduceMean", net.op("Transpose", y, perm=[0, 2, 3, 1]), [1, 2], 0)


def mean_channels_last_kept(net: Net, y: Tensor) -> Tensor:
    turned = net.op("Transpose", y, perm=[0, 2, 3, 1])
    return flat(net, over(net, "ReduceMean", turned, [1, 2], 1))


def mean_of_means(net: Net, y: Tensor) -> Tensor:
    """``x.mean(3).mean(2)``."""
    return over(net, "ReduceMean", over(net, "ReduceMean", y, [3], 0), [2], 0)


def mean_of_kept_means(net: Net, y: Tensor) -> Tensor:
    return flat(net, over(net, "ReduceMean", over(net, "ReduceMean", y, [2], 1), [3], 1))


def freed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The original with symbolic image dims: its own poolings take any size."""
    for axis, name in ((2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    return model


SPELLINGS = [
    *(pool_and_flatten, pool_of_rows, pool_and_reshape, mean_dropped, mean_kept, mean_of_rows),
    *(mean_of_tokens, mean_channels_last, mean_channels_last_kept, mean_of_means),
    mean_of_kept_means,
]
spellings = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda s: s.__name__)


@pytest.mark.parametrize("opset", [11, 13, 18])
@spellings
def test_a_head_that_pools_windows_slides(spelling: Spelling, opset: int) -> None:
    net = Net(opset=opset)
    pooled = Tensor(spelling(net, net.trunk()).value, (C,))
    conversion = assert_slides(net.model(net.fc(pooled)), gone=GONE, options=WINDOW)
    assert conversion.geometry["y"].stride == (2, 2)
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == ("N", 4, "y_H", "y_W")
    assert all(pooling.pooling == "AveragePool" for pooling in conversion.poolings)


@pytest.mark.parametrize("opset", [11, 18])
@spellings
def test_a_head_that_keeps_seeing_the_whole_image(spelling: Spelling, opset: int) -> None:
    net = Net(opset=opset)
    model = net.model(net.fc(Tensor(spelling(net, net.trunk()).value, (C,))))
    conversion = assert_slides(model, exact=False, gone=("Gemm", "Flatten", "Reshape"))
    assert conversion.poolings == ()
    geometry = conversion.geometry["y"]
    assert geometry.stride == (0, 0)
    assert geometry.verdict == "whole image"
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == ("N", 4, 1, 1)
    image = net.rng.normal(size=(2, 2, 13, 17)).astype(np.float32)
    got = session(converted_model(conversion))({"x": image})["y"]
    expected = session(freed(model))({"x": image})["y"]
    np.testing.assert_allclose(got.reshape(2, 4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(
    ("op_type", "expected"),
    [
        ("ReduceMax", ["MaxPool"]),
        ("ReduceMin", ["Neg", "MaxPool", "Neg"]),
        ("ReduceSum", ["AveragePool", "Mul"]),
        ("ReduceL1", ["LpPool"]),
        ("ReduceL2", ["LpPool"]),
    ],
)
def test_reductions_as_poolings(
    op_type: str, expected: list[str], opset: int, keepdims: int
) -> None:
    net = Net(opset=opset)
    y = over(net, op_type, net.trunk(relu=False, pool=False), [2, 3], keepdims)
    conversion = assert_slides(net.model(net.fc(Tensor(flat(net, y).value, (C,)))), options=WINDOW)
    assert op_types(converted_model(conversion)) == ["Conv", *expected, "Conv"]


@pytest.mark.parametrize(
    ("op_type", "attributes", "pooling"),
    [
        ("GlobalAveragePool", {}, "AveragePool"),
        ("GlobalMaxPool", {}, "MaxPool"),
        ("GlobalLpPool", {}, "LpPool"),
        ("GlobalLpPool", {"p": 3}, "LpPool"),
    ],
)
def test_global_poolings(op_type: str, attributes: dict[str, Any], pooling: str) -> None:
    net = Net()
    y = net.op(op_type, net.trunk(relu=False), shape=(C, 1, 1), name="pool", **attributes)
    conversion = assert_slides(net.model(net.head(y)), options=WINDOW)
    (found,) = conversion.poolings
    assert (found.node, found.op_type, found.pooling) == ("pool", op_type, pooling)
    assert found.kernel == (H, W)


@pytest.mark.parametrize("image", [(2, 12), (2, 6, 5, 7)], ids=["1-D", "3-D"])
def test_other_ranks(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    y = net.op("GlobalAveragePool", net.trunk(), shape=(C, *[1] * (len(image) - 1)))
    assert_slides(net.model(net.head(y)), options=WINDOW)


def test_the_mean_of_each_column() -> None:
    """Pooled along one axis, with a layer over the other."""
    net = Net()
    columns = over(net, "ReduceMean", net.trunk(), [2], 0)
    model = net.model(net.head(Tensor(columns.value, (C, W))))
    assert_slides(model, options=WINDOW)
    conversion = assert_slides(model, exact=False)
    assert conversion.geometry["y"].stride == (0, 2)


def test_average_and_maximum_joined() -> None:
    net = Net()
    y = net.trunk()
    both = net.op("Concat", net.op("GlobalAveragePool", y), net.op("GlobalMaxPool", y), axis=1)
    model = net.model(net.head(Tensor(both.value, (2 * C, 1, 1))))
    assert_slides(model, options=WINDOW)
    assert_slides(model, exact=False)


def test_pooled_features_joined_with_a_layer() -> None:
    """In step where windows are pooled; one has a cell for the whole image otherwise."""
    net = Net()
    y = net.trunk()
    pooled = net.op("Flatten", net.op("GlobalAveragePool", y))
    both = net.op("Concat", pooled, net.head(y, 5), axis=1, shape=(C + 5,))
    model = net.model(net.fc(both))
    assert_slides(model, options=WINDOW)


def test_a_convolution_after_the_pooling() -> None:
    """No fully connected layer at all: SqueezeNet, MobileNet with a 1x1 convolution."""
    net = Net()
    pooled = net.op("GlobalAveragePool", net.trunk(), shape=(C, 1, 1))
    y = net.op("Conv", net.op("Relu", pooled), net.random(4, C, 1, 1), net.random(4))
    model = net.model(net.op("Flatten", y))
    conversion = assert_slides(model, options=WINDOW)
    assert conversion.heads == ()
    assert_refused(model, "nothing-to-convert")


def test_a_pooling_at_the_end() -> None:
    net = Net()
    model = net.model(net.op("Flatten", net.op("GlobalAveragePool", net.trunk())))
    assert_slides(model, options=WINDOW)


def test_nothing_to_pool() -> None:
    net = Net()
    assert_refused(net.model(net.trunk()), "nothing-to-convert", **WINDOW)


def test_a_padded_trunk_has_a_border_effect() -> None:
    net = Net()
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1])
    y = net.op("GlobalAveragePool", y, shape=(3, 1, 1))
    conversion = assert_slides(net.model(net.head(y)), exact=False, options=WINDOW)
    geometry = conversion.geometry["y"]
    assert geometry.stride == (1, 1)
    assert "pads" in geometry.why


def gate_of_convolutions(net: Net, y: Tensor) -> Tensor:
    gate = net.op("Conv", net.op("GlobalAveragePool", y), net.random(2, C, 1, 1))
    return net.op("Sigmoid", net.op("Conv", net.op("Relu", gate), net.random(C, 2, 1, 1)))


def gate_of_layers(net: Net, y: Tensor) -> Tensor:
    squeezed = net.op("Flatten", net.op("GlobalAveragePool", y), shape=(C,))
    gate = net.fc(net.op("Relu", net.fc(squeezed, 2), shape=(2,)), C)
    return net.op("Reshape", net.op("Sigmoid", gate), np.array([-1, C, 1, 1]))


def gate_of_a_mean(net: Net, y: Tensor) -> Tensor:
    gate = net.op("Conv", over(net, "ReduceMean", y, [2, 3], 1), net.random(C, C, 1, 1))
    return net.op("HardSigmoid", gate)


def gate_of_dropped_axes(net: Net, y: Tensor) -> Tensor:
    gate = net.fc(Tensor(over(net, "ReduceMean", y, [2, 3], 0).value, (C,)), C)
    gate = net.op("Sigmoid", gate)
    for axis in (2, 3):
        gate = net.op("Unsqueeze", gate, np.array([axis]))
    return gate


def gate_of_two_poolings(net: Net, y: Tensor) -> Tensor:
    """Channel attention: average and maximum go through the same layers (Woo et al. 2018)."""
    weight = net.weight(net.random(C, C, 1, 1))
    one, two = (
        net.op("Conv", net.op(pool, y), weight) for pool in ("GlobalAveragePool", "GlobalMaxPool")
    )
    return net.op("Sigmoid", net.op("Add", one, two))


def gate_of_hard_sigmoid(net: Net, y: Tensor) -> Tensor:
    """relu6(x + 3) / 6, as MobileNetV3 was exported."""
    gate = net.op("Conv", net.op("GlobalAveragePool", y), net.random(C, C, 1, 1))
    moved = net.op("Add", gate, np.array(3, np.float32))
    clipped = net.op("Clip", moved, np.array(0, np.float32), np.array(6, np.float32))
    return net.op("Div", clipped, np.array(6, np.float32))


def gate_expanded(net: Net, y: Tensor) -> Tensor:
    """``x * gate.expand_as(x)``."""
    return net.op("Expand", gate_of_convolutions(net, y), net.op("Shape", y))


def gate_of_layers_expanded(net: Net, y: Tensor) -> Tensor:
    return net.op("Expand", gate_of_layers(net, y), np.array([1, *y.shape]))


GATES = [
    *(gate_of_convolutions, gate_of_layers, gate_of_a_mean, gate_of_dropped_axes),
    *(gate_of_two_poolings, gate_of_hard_sigmoid, gate_expanded, gate_of_layers_expanded),
]


@pytest.mark.parametrize("pool", ["keep", "window"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
def test_a_gate_sees_the_whole_image(gate: Spelling, swapped: bool, pool: str) -> None:
    """Squeeze-and-excite, twice, before a global pooling."""
    net = Net()
    y = net.trunk(pool=False)
    for _ in range(2):
        factors = (gate(net, y), y) if swapped else (y, gate(net, y))
        y = net.op("Mul", *factors, shape=y.shape)
    pooled = net.op("GlobalAveragePool", y, shape=(C, 1, 1), name="head")
    model = net.model(net.head(pooled))
    conversion = assert_slides(
        model, exact=False, options={"pool": pool}, gone=("Gemm", "Flatten", "Reshape")
    )
    geometry = conversion.geometry["y"]
    assert geometry.verdict == "whole image"
    assert geometry.stride == ((0, 0) if pool == "keep" else (1, 1))
    assert [p.node for p in conversion.poolings] == ([] if pool == "keep" else ["head"])


def test_a_gate_and_a_layer_on_the_whole_map() -> None:
    net = Net()
    trunk = net.trunk()
    y = net.op("Mul", trunk, gate_of_layers(net, trunk), shape=trunk.shape)
    conversion = assert_slides(
        net.model(net.head(y)), exact=False, options=WINDOW, gone=("Gemm", "Flatten")
    )
    assert conversion.geometry["y"].stride == (2, 2)


def test_an_expanded_cell_that_something_else_reads_is_refused() -> None:
    """A padded convolution of it is not that of the cell."""
    net = Net()
    y = net.trunk()
    spread = net.op("Expand", net.op("GlobalAveragePool", y), np.array([1, *y.shape]))
    gated = net.op("Mul", y, spread)
    late = net.op("Conv", spread, net.random(C, C, 3, 3), pads=[1] * 4, name="late")
    model = net.model(net.head(net.op("Add", gated, late, shape=y.shape)))
    assert_refused(model, "baked-size")


def test_expanded_cells_alone_are_refused() -> None:
    net = Net()
    y = net.trunk()
    one, two = (
        net.op("Expand", net.op(pool, y), np.array([1, *y.shape]))
        for pool in ("GlobalAveragePool", "GlobalMaxPool")
    )
    total = net.op("Add", one, two, shape=y.shape, name="sum")
    model = net.model(net.head(conv(net, total, (1, 2))))
    assert_refused(model, "baked-size")


def test_gates_of_rows_and_columns() -> None:
    """Coordinate attention pools each axis by itself (Hou et al. 2021)."""
    net = Net()
    y = net.trunk()
    rows = net.op("Sigmoid", over(net, "ReduceMean", y, [3], 1))
    columns = net.op("Sigmoid", over(net, "ReduceMean", y, [2], 1))
    y = net.op("Mul", net.op("Mul", y, rows), columns, shape=y.shape)
    assert_slides(net.model(net.head(y)), exact=False, options=WINDOW)


def test_a_normalization_written_out() -> None:
    """(x - mean) of the whole image: its mean is no head."""
    net = Net()
    y = net.trunk()
    y = net.op("Sub", y, over(net, "ReduceMean", y, [2, 3], 1), shape=y.shape)
    conversion = assert_slides(net.model(net.head(y)), exact=False, options=WINDOW)
    assert conversion.poolings == ()


def test_a_whole_map_average_slides_by_itself() -> None:
    net = Net()
    y = net.op("AveragePool", net.trunk(), kernel_shape=[H, W], shape=(C, 1, 1))
    model = net.model(net.head(y))
    for pool in ("keep", "window"):
        assert_slides(model, options={"pool": pool})


@pytest.mark.parametrize("op_type", ["ReduceProd", "ReduceLogSumExp", "ReduceSumSquare"])
def test_a_reduction_without_a_pooling_is_refused(op_type: str) -> None:
    net = Net()
    y = net.op(op_type, net.trunk(), axes=[2, 3], keepdims=0, shape=(C,), name="r")
    assert_refused(net.model(net.fc(y)), "window-pooling", f"{op_type} r", **WINDOW)


def test_integers_are_refused() -> None:
    net = Net()
    y = net.op("Cast", net.trunk(), to=ir.DataType.INT32)
    y = net.op("ReduceMax", y, axes=[2, 3], keepdims=0, name="r")
    y = net.op("Cast", y, to=ir.DataType.FLOAT, shape=(C,))
    assert_refused(net.model(net.fc(y)), "unsupported-type", "ReduceMax r", **WINDOW)


def test_a_window_over_the_pooled_cell_is_refused() -> None:
    net = Net()
    pooled = net.op("GlobalAveragePool", net.trunk())
    y = net.op("Conv", pooled, net.random(C, C, 3, 3), pads=[1] * 4, shape=(C, 1, 1), name="late")
    assert_refused(net.model(net.head(y)), "slides-after-fc", "Conv late", **WINDOW)


def test_a_global_pooling_of_a_layer() -> None:
    net = Net()
    cell = net.op("Reshape", net.head(net.trunk(), 5), np.array([0, 5, 1, 1]))
    cell = net.op("Conv", cell, net.random(5, 5, 1, 1))
    pooled = net.op("GlobalAveragePool", cell, shape=(5, 1, 1), name="late")
    model = net.model(net.head(pooled))
    assert_slides(model, options=WINDOW)
    assert_refused(model, "slides-after-fc", "GlobalAveragePool late")


def test_options_that_contradict_each_other() -> None:
    net = Net()
    model = net.model(net.head(net.trunk()))
    with pytest.raises(ArgumentError, match="static mode keeps every pooling"):
        convert(model, static=True, pool="window")
    with pytest.raises(ArgumentError, match="there is no pool 'valid'"):
        inspect(model, pool="valid")  # type: ignore[arg-type]


def test_the_pass_alone() -> None:
    net = Net(batch=1)
    model = net.ir_model(net.head(net.op("GlobalAveragePool", net.trunk(), shape=(C, 1, 1))))
    fc_to_conv = FcToConv(pool="window")
    assert fc_to_conv(model).modified
    assert op_types(model) == ["Conv", "Relu", "MaxPool", "AveragePool", "Conv"]
    assert not fc_to_conv(model).modified
