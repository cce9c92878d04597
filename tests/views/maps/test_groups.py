"""Operators along some of the features: [N, A, B] over B, tokens over their channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.nets import Net, Tensor, i64, op_types
from tests.oracle import assert_refused, assert_slides, converted_model

A, B = 3, 4
C, H, W = 3, 3, 4
GONE = ("Gemm", "MatMul", "Flatten", "Unsqueeze")


def grouped(net: Net) -> Tensor:
    """[N, A, B] after a layer."""
    y = net.fc(net.flat(net.trunk()), A * B)
    return net.op("Reshape", y, i64(-1, A, B), shape=(A, B))


def interleaved(net: Net) -> Tensor:
    y = net.fc(net.flat(net.trunk()), A * B)
    y = net.op("Reshape", y, i64(-1, B, A))
    return net.op("Transpose", y, perm=[0, 2, 1], shape=(A, B))


def tokens(net: Net) -> Tensor:
    """[N, H·W, C]."""
    y = net.op("Reshape", net.trunk(), i64(0, C, -1))
    return net.op("Transpose", y, perm=[0, 2, 1], shape=(H * W, C))


def channels_last(net: Net) -> Tensor:
    """[N, H, W, C]."""
    return net.op("Transpose", net.trunk(), perm=[0, 2, 3, 1], shape=(H, W, C))


def over(net: Net, op_type: str, y: Tensor, axis: int, **attributes: Any) -> Tensor:
    """The reduction with its axes as this opset writes them."""
    if net.opset >= (13 if op_type == "ReduceSum" else 18):
        return net.op(op_type, y, i64(axis), **attributes)
    return net.op(op_type, y, axes=[axis], **attributes)


SOURCES = {"groups": grouped, "interleaved": interleaved, "tokens": tokens, "nhwc": channels_last}
sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


@sources
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax(op_type: str, opset: int, source: Callable[[Net], Tensor]) -> None:
    net = Net(opset=opset)
    y = source(net)
    y = net.op(op_type, y, axis=len(y.shape), shape=y.shape)
    assert_slides(net.model(net.head(y)), gone=GONE)


def test_softmax_over_the_first_axis_of_groups() -> None:
    net = Net()
    y = grouped(net)
    y = net.op("Softmax", y, axis=1, shape=y.shape)
    assert_slides(net.model(y, net.head(y)), gone=GONE)


def test_boxes_and_classes() -> None:
    """YOLO v1: boxes as they are, a softmax of the classes of each cell."""
    net = Net()
    y = net.op("Reshape", net.fc(net.flat(net.trunk()), 2 * 2 * 7), i64(-1, 2, 2, 7))
    boxes, classes = net.ops("Split", y, i64(4, 3), outputs=2, axis=3)
    y = net.op("Concat", net.op("Sigmoid", boxes), net.op("Softmax", classes, axis=3), axis=3)
    after = assert_slides(net.model(y), gone=GONE).after
    assert after is not None
    assert after.outputs["y"] == ("N", 2, 2, 7, "y_H", "y_W")


@pytest.mark.parametrize("image", [(2, 9), (2, 6, 7, 6)], ids=["1-D", "3-D"])
def test_softmax_in_other_ranks(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    y = net.op("Reshape", net.fc(net.flat(net.trunk(pool=False)), 12), i64(-1, A, B))
    assert_slides(net.model(net.op("Softmax", y, axis=2, shape=(A, B))), gone=GONE)


@sources
@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", ["ReduceMax", "ReduceSum", "ReduceMean", "ReduceL2"])
def test_reductions(
    op_type: str, keepdims: int, opset: int, source: Callable[[Net], Tensor]
) -> None:
    net = Net(opset=opset)
    y = source(net)
    shape = (*y.shape[:-1], 1) if keepdims else y.shape[:-1]
    reduced = over(net, op_type, y, len(y.shape), keepdims=keepdims)
    assert_slides(net.model(net.head(Tensor(reduced.value, shape))), gone=GONE)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("source", [grouped, interleaved])
def test_arg_max(source: Callable[[Net], Tensor], keepdims: int, axis: int) -> None:
    net = Net()
    y = net.op("ArgMax", source(net), axis=axis, keepdims=keepdims)
    assert_slides(net.model(y, dtype=ir.DataType.INT64), tolerance=0, gone=GONE)


@sources
@pytest.mark.parametrize("scaled", [True, False], ids=["scale+bias", "scale"])
def test_layer_normalization(source: Callable[[Net], Tensor], scaled: bool) -> None:
    net = Net(opset=17)
    y = source(net)
    parameters = [net.random(y.shape[-1]) for _ in range(1 + scaled)]
    y = net.op("LayerNormalization", y, *parameters, epsilon=0.1, shape=y.shape)
    conversion = assert_slides(net.model(net.head(y)), gone=GONE)
    assert "LayerNormalization" in op_types(converted_model(conversion))


@sources
def test_root_mean_square_normalization(source: Callable[[Net], Tensor]) -> None:
    net = Net(opset=23, ir_version=10)
    y = source(net)
    y = net.op("RMSNormalization", y, net.random(y.shape[-1]), epsilon=0.1, shape=y.shape)
    conversion = assert_slides(net.model(net.head(y)), gone=GONE)
    assert "RMSNormalization" in op_types(converted_model(conversion))


@pytest.mark.parametrize("op_type", ["LayerNormalization", "RMSNormalization"])
def test_a_normalization_of_all_of_a_map_is_refused(op_type: str) -> None:
    """Axes [C, H, W]: statistics of a whole window, which no cell of the map has."""
    net = Net(opset=23, ir_version=10)
    y = net.op(op_type, net.trunk(), net.random(C, H, W), axis=1, shape=(C, H, W), name="norm")
    assert_refused(net.model(net.head(y)), "flattened-features", f"{op_type} norm", "[3, 3, 4]")


@pytest.mark.parametrize("axis", [1, -2])
def test_layer_normalization_over_several_axes(axis: int) -> None:
    net = Net(opset=17)
    y = grouped(net)
    y = net.op("LayerNormalization", y, net.random(A, B), net.random(B), axis=axis, shape=y.shape)
    assert_slides(net.model(net.head(y)), gone=GONE)


def test_layer_normalization_of_the_features_of_a_layer() -> None:
    net = Net(opset=17)
    y = net.fc(net.flat(net.trunk()), 6)
    y = net.op("LayerNormalization", y, net.random(6), net.random(6), shape=(6,))
    assert_slides(net.model(net.fc(y)), gone=GONE)


@sources
@pytest.mark.parametrize("opset", [11, 18])
def test_layer_normalization_in_pieces(source: Callable[[Net], Tensor], opset: int) -> None:
    """As exporters write it before opset 17."""
    net = Net(opset=opset)
    y = source(net)
    axis, shape = len(y.shape), y.shape
    centered = net.op("Sub", y, over(net, "ReduceMean", y, axis, keepdims=1))
    variance = net.op("Pow", centered, np.array(2, np.float32))
    variance = over(net, "ReduceMean", variance, axis, keepdims=1)
    deviation = net.op("Sqrt", net.op("Add", variance, np.array(0.1, np.float32)))
    y = net.op("Div", centered, deviation)
    y = net.op("Add", net.op("Mul", y, net.random(shape[-1])), net.random(shape[-1]), shape=shape)
    assert_slides(net.model(net.head(y)), gone=GONE)


@sources
@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(source: Callable[[Net], Tensor], p: int) -> None:
    net = Net()
    y = source(net)
    y = net.op("LpNormalization", y, axis=-1, p=p, shape=y.shape)
    assert_slides(net.model(net.head(y)), gone=GONE)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("opset", [11, 13, 21])
def test_top_k(opset: int, largest: int) -> None:
    net = Net(opset=opset)
    scores = net.fc(net.flat(net.trunk()), 7)
    values, _ = net.ops("TopK", scores, i64(3), outputs=2, axis=1, largest=largest)
    assert_slides(net.model(Tensor(values.value, (3,))))


def test_top_k_indices() -> None:
    net = Net()
    scores = net.fc(net.flat(net.trunk()), 7)
    _, indices = net.ops("TopK", scores, i64(3), outputs=2)
    model = net.model(Tensor(indices.value, (3,)), dtype=ir.DataType.INT64)
    assert_slides(model, tolerance=0)


def test_top_k_of_groups() -> None:
    net = Net(opset=9)
    values, _ = net.ops("TopK", grouped(net), outputs=2, k=2, axis=2)
    assert_slides(net.model(net.head(Tensor(values.value, (A, 2)))), gone=GONE)


@pytest.mark.parametrize("attributes", [{}, {"exclusive": 1}, {"reverse": 1}], ids=str)
@sources
def test_cumulative_sums(source: Callable[[Net], Tensor], attributes: dict[str, int]) -> None:
    net = Net()
    y = source(net)
    y = net.op("CumSum", y, np.array(len(y.shape)), shape=y.shape, **attributes)
    assert_slides(net.model(net.head(y)), gone=GONE)


def test_a_cumulative_sum_over_positions_is_refused() -> None:
    net = Net()
    y = net.op("CumSum", net.flat(net.trunk()), np.array(1), shape=(36,), name="sum")
    assert_refused(net.model(net.fc(y)), "flattened-features", "CumSum sum")


def test_norm_of_each_group() -> None:
    """Capsules: [N, A, B] / |[N, A, 1]|."""
    net = Net()
    y = grouped(net)
    y = net.op("Div", y, over(net, "ReduceL2", y, 2, keepdims=1), shape=y.shape)
    assert_slides(net.model(net.head(y)), gone=GONE)


def test_maxout() -> None:
    net = Net()
    y = over(net, "ReduceMax", grouped(net), 2, keepdims=0)
    assert_slides(net.model(net.fc(Tensor(y.value, (A,)))), gone=GONE)


def test_a_softmax_over_positions_is_refused() -> None:
    net = Net()
    y = tokens(net)
    y = net.op("Softmax", y, axis=1, shape=y.shape, name="attend")
    assert_refused(net.model(net.head(y)), "flattened-features", "Softmax attend", "positions")


def test_a_layer_normalization_of_a_flattened_map_is_refused() -> None:
    net = Net(opset=17)
    flat = net.flat(net.trunk())
    y = net.op("LayerNormalization", flat, net.random(36), shape=(36,), name="norm")
    assert_refused(net.model(net.fc(y)), "flattened-features", "LayerNormalization norm")


def test_a_softmax_after_a_scale_of_each_position_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("Reshape", net.op("Mul", flat, net.random(36)), i64(-1, C, H * W))
    y = net.op("Softmax", y, axis=1, shape=(C, H * W), name="prob")
    assert_refused(net.model(net.head(y)), "position-dependent", "Softmax prob")


def test_the_mean_of_a_layer_normalization_is_refused() -> None:
    net = Net(opset=17)
    y = net.fc(net.flat(net.trunk()), 6)
    y, mean = net.ops("LayerNormalization", y, net.random(6), outputs=2, shape=(6,), name="norm")
    y = net.op("Mul", Tensor(y.value, (6,)), mean, shape=(6,))
    assert_refused(net.model(net.fc(y)), "training-mode", "LayerNormalization norm")


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("Relu", {}),
        ("Neg", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Abs", {}),
    ],
)
def test_what_commutes_with_a_scale_of_each_position(
    op_type: str, attributes: dict[str, Any]
) -> None:
    net = Net()
    flat = net.flat(net.trunk(relu=False))
    y = net.op("Mul", flat, np.abs(net.random(36)))
    y = net.op(op_type, y, shape=(36,), **attributes)
    conversion = assert_slides(net.model(net.fc(y)))
    assert conversion.heads[0].bytes_kept == "folded"


@pytest.mark.parametrize("scale", ["signed", "shifted"])
def test_what_does_not_is_refused(scale: str) -> None:
    net = Net()
    flat = net.flat(net.trunk(relu=False))
    y = net.op("Mul" if scale == "signed" else "Add", flat, net.random(36))
    y = net.op("Relu", y, shape=(36,), name="act")
    assert_refused(net.model(net.fc(y)), "position-dependent", "Relu act")


@pytest.mark.parametrize("first", ["Neg", "Relu"])
def test_features_twice_times_constants(first: str) -> None:
    """Concat(v, v) times a constant: every copy has its own factors."""
    net = Net()
    flat = net.op(first, net.flat(net.trunk(relu=False)), shape=(36,))
    both = net.op("Concat", flat, flat, axis=1)
    y = net.op("Mul", both, net.random(72), shape=(72,))
    assert_slides(net.model(net.fc(y)))


def test_the_largest_of_each_group_is_an_output_that_a_layer_reads() -> None:
    net = Net()
    pairs = net.op("Reshape", net.fc(net.flat(net.trunk()), 6), i64(-1, 3, 2))
    largest = net.op("ReduceMax", pairs, axes=[2], keepdims=0, shape=(3,))
    gone = ("Gemm", "Flatten")
    assert_slides(net.model(largest, net.fc(largest)), gone=gone)
