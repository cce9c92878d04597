"""ConvToFc: convolutions as matrix products, and what stays flat between them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.node import collect_testcases

from onnx_fc2conv import ArgumentError, ConvToFc, RefusedError, check, convert_to_fc
from tests.nets import Array, Net, Tensor, conv, op_types, session

FORMS = ("im2col", "dense")


def between(net: Net, y: Tensor, kind: str) -> Tensor:
    """An operator that a flat tensor passes through, or needs a matrix of its own."""
    channels, *extent = y.shape
    match kind:
        case "AveragePool":
            made = net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 1], pads=[1, 0, 0, 1])
            return Tensor(made.value, (channels, (extent[0] - 1) // 2 + 1, extent[1]))
        case "padded average":
            options = {"count_include_pad": 1, "pads": [1, 1, 1, 1]}
            made = net.op("AveragePool", y, kernel_shape=[3, 3], **options)
            return Tensor(made.value, y.shape)
        case "GlobalAveragePool":
            return net.op("GlobalAveragePool", y, shape=(channels, 1, 1))
        case "BatchNormalization":
            variance = np.abs(net.random(channels)) + np.float32(0.5)
            parameters = (net.random(channels), net.random(channels), net.random(channels))
            return net.op("BatchNormalization", y, *parameters, variance, shape=y.shape)
        case "PRelu":
            return net.op("PRelu", y, net.random(channels, 1, 1), shape=y.shape)
        case "Clip":
            bounds = (np.array(-1, np.float32), np.array(1, np.float32))
            return net.op("Clip", y, *bounds, shape=y.shape)
        case "scale and shift":
            y = net.op("Mul", net.random(1, channels, 1, 1), y, shape=y.shape)
            y = net.op("Add", y, net.random(1, *y.shape), shape=y.shape)
            return net.op("Div", y, np.array(1.5, np.float32), shape=y.shape)
        case "residual":
            other = conv(net, y, (extent[0], extent[1]), pads=[1, 1, 1, 1], channels=channels)
            return net.op("Add", y, net.op("Relu", other), shape=y.shape)
        case "Concat":
            other = conv(net, y, (extent[0], extent[1]), 1, channels=2)
            return net.op("Concat", y, other, axis=1, shape=(channels + 2, *extent))
        case _:
            return net.op(kind, y, shape=y.shape)


CHAINS = {
    "Relu": [],
    "LeakyRelu": [],
    "Sigmoid": [],
    "Atan": [],
    "Clip": [],
    "PRelu": [],
    "scale and shift": [],
    "residual": [],
    "Concat": [],
    "AveragePool": [],
    "padded average": [],
    "GlobalAveragePool": [],
    "BatchNormalization": [],
    "Softmax": ["Softmax"],
    "InstanceNorm": ["InstanceNormalization"],
}


def network(kind: str) -> onnx.ModelProto:
    net = Net()
    y = conv(net, net.x, (6, 8))
    if kind == "InstanceNorm":
        made = net.op("InstanceNormalization", y, net.random(3), net.random(3))
        y = Tensor(made.value, y.shape)
    else:
        y = between(net, y, kind)
    return net.model(net.head(conv(net, y, y.shape[1:], 1)))


@pytest.mark.parametrize("kind", CHAINS)
def test_maps_stay_flat_in_the_dense_form(kind: str) -> None:
    """Only Gemm and elementwise operators are left, but for operators that need a map."""
    model = network(kind)
    made = convert_to_fc(model, form="dense").model
    images = np.random.default_rng(0).normal(size=(3, 2, 8, 10)).astype(np.float32)
    expected = session(model)({"x": images})["y"]
    np.testing.assert_allclose(session(made)({"x": images})["y"], expected, rtol=1e-4, atol=1e-5)
    left = set(op_types(made)) - {"Flatten", "Gemm", "Concat", "Relu", "LeakyRelu", "Sigmoid"}
    left -= {"Atan", "Clip", "PRelu", "Mul", "Add", "Div"}
    kept = CHAINS[kind]
    assert left == ({*kept, "Reshape"} if kept else set())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_any_opset(form: Any, opset: int) -> None:
    net = Net(opset=opset, ir_version=3 if opset < 9 else 8)
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1], channels=4, group=2)
    model = net.model(net.head(net.op("Relu", y, shape=y.shape)))
    made = convert_to_fc(model, form=form).model
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    assert check(model, made)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.DOUBLE])
def test_other_types(form: Any, dtype: ir.DataType) -> None:
    net = Net(dtype=dtype)
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1])
    made = convert_to_fc(net.ir_model(net.op("Relu", y)), form=form).model
    assert {value.dtype for value in (*made.graph.inputs, *made.graph.outputs)} == {dtype}
    run = session(made)
    assert run({"x": np.zeros((1, 2, 8, 10), dtype.numpy())})["y"].dtype == dtype.numpy()


@pytest.mark.parametrize("form", FORMS)
def test_outputs_in_the_middle_keep_name_and_shape(form: Any) -> None:
    net = Net()
    first = conv(net, net.x, (6, 8))
    second = conv(net, net.op("Relu", first, shape=first.shape), (4, 6))
    model = net.model(first, second, net.op("MaxPool", second, kernel_shape=[2, 2]))
    images = np.random.default_rng(0).normal(size=(2, 2, 8, 10)).astype(np.float32)
    expected = session(model)({"x": images})
    got = session(convert_to_fc(model, form=form).model)({"x": images})
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_chosen_layers_only(form: Any) -> None:
    net = Net()
    one = net.op("Conv", net.x, net.random(3, 2, 3, 3), name="one", shape=(3, 6, 8))
    two = net.op("Conv", one, net.random(3, 3, 3, 3), name="two", shape=(3, 4, 6))
    model = net.model(net.head(two))
    made = convert_to_fc(model, form=form, layers=["two"])
    assert [layer.node for layer in made.layers] == ["Conv two"]
    assert [node.name for node in made.model.graph if node.op_type == "Conv"] == ["one"]
    assert check(model, made.model)
    with pytest.raises(ArgumentError, match=r"no Conv named 'tow'.*one, two"):
        convert_to_fc(model, layers=["tow"])


@pytest.mark.parametrize("form", FORMS)
def test_symbolic_sizes_are_given(form: Any) -> None:
    net = Net(image=(2, 8, 10))
    model = net.ir_model(conv(net, net.x, (6, 8)))
    model.graph.inputs[0].shape = ir.Shape(["N", 2, "H", "W"])
    with pytest.raises(RefusedError, match=r"Conv .*--input-shape"):
        convert_to_fc(model, form=form)
    made = convert_to_fc(model, form=form, input_shapes={"x": (1, 2, 8, 10)}).model
    assert str(made.graph.inputs[0].shape) == "[N,2,8,10]"
    assert session(made)({"x": np.zeros((3, 2, 8, 10), np.float32)})["y"].shape == (3, 3, 6, 8)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda net: net.op("Conv", net.x, net.input("w", (3, 2, 3, 3))), "kernel is not a const"),
        (
            lambda net: net.op("Conv", net.x, net.random(3, 2, 3, 3), net.input("b", (3,))),
            "bias is not a const",
        ),
    ],
)
def test_a_layer_that_is_no_constant_matrix(spoil: Callable[[Net], Tensor], why: str) -> None:
    net = Net()
    model = net.model(spoil(net))
    with pytest.raises(RefusedError, match=rf"Conv .*{why}.*not-a-matrix"):
        convert_to_fc(model)


def test_too_large_is_refused_with_its_figures() -> None:
    net = Net()
    model = net.model(conv(net, net.x, (6, 8)))
    with pytest.raises(RefusedError, match=r"144 × 160 = 2.3e\+04 entries.*92.2 kB.*too-large"):
        convert_to_fc(model, form="dense", max_bytes=92_159)
    assert convert_to_fc(model, form="dense", max_bytes=92_160).layers[0].nbytes == 92_160
    with pytest.raises(RefusedError, match=r"index map takes 3.46 kB.*too-large"):
        convert_to_fc(model, max_bytes=3_000)


def test_a_model_without_convolutions() -> None:
    net = Net()
    with pytest.raises(RefusedError, match="nothing-to-convert"):
        convert_to_fc(net.model(net.op("Relu", net.x)))


@pytest.mark.parametrize("form", FORMS)
def test_the_argument_stays_and_the_pass_tells_the_truth(form: Any) -> None:
    net = Net()
    model = net.ir_model(net.head(conv(net, net.x, (6, 8))))
    before = ir.to_onnx_text(model)
    convert_to_fc(model, form=form)
    assert ir.to_onnx_text(model) == before
    assert ConvToFc(form)(model).modified
    once = ir.to_onnx_text(model)
    assert not ConvToFc(form)(model).modified
    assert ir.to_onnx_text(model) == once


def test_layers_of_one_geometry_share_their_index_map() -> None:
    net = Net(image=(3, 8, 10))
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1])
    made = convert_to_fc(net.ir_model(conv(net, y, (8, 10), pads=[1, 1, 1, 1]))).model
    gathers = [node for node in made.graph if node.op_type == "Gather"]
    assert len(gathers) == 2
    assert len({node.inputs[1] for node in gathers}) == 1


def test_a_pointwise_convolution_gathers_nothing() -> None:
    net = Net()
    made = convert_to_fc(net.ir_model(conv(net, net.x, (8, 10), 1))).model
    assert "Gather" not in op_types(made)


def conv_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other operators' cases overflow on purpose
        cases = collect_testcases(None)
    return [
        case
        for case in cases
        if case.model is not None and [node.op_type for node in case.model.graph.node] == ["Conv"]
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", conv_cases(), ids=lambda case: case.name)
def test_the_specifications_own_cases(case: Any, form: Any) -> None:
    """Every Conv of the ONNX backend tests, its kernel made a constant, gives what it says."""
    model: onnx.ModelProto = onnx.ModelProto()
    model.CopyFrom(case.model)
    (inputs, outputs), *_ = case.data_sets
    names = [value.name for value in model.graph.input]
    for value in list(model.graph.input)[1:]:
        array = inputs[names.index(value.name)]
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    made = convert_to_fc(model, form=form).model
    got: Array = session(made)({names[0]: inputs[0]})[model.graph.output[0].name]
    np.testing.assert_allclose(got, outputs[0], rtol=1e-6)
