"""The pass FcToConv: what it changes, what it names, and when it leaves a model alone."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.errors import RefusedError
from onnx_fc2conv.passes import FcToConv, FreeInputSize, Normalize
from onnx_fc2conv.pipeline import convert
from tests.nets import Net, Tensor, op_types, session
from tests.oracle import (
    assert_slides,
)


def text(model: ir.Model) -> str:
    return ir.to_onnx_text(model, exclude_initializers=True)


def plain() -> ir.Model:
    net = Net()
    return net.ir_model(net.head(net.trunk()))


def softmax_before_opset_13() -> ir.Model:
    net = Net(opset=11)
    return net.ir_model(net.op("Softmax", net.fc(net.fc(net.flat(net.trunk()))), axis=1))


def matmul_add() -> ir.Model:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("Add", net.random(4), net.op("MatMul", flat, net.random(36, 4)))
    return net.ir_model(net.op("Relu", y))


def frozen_padding() -> ir.Model:
    net = Net()
    y = net.op("Conv", net.x, net.random(3, 2, 3, 3), auto_pad="SAME_UPPER", shape=(3, 8, 10))
    return net.ir_model(net.head(y))


MODELS = [plain, softmax_before_opset_13, matmul_add, frozen_padding]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_running_twice_changes_nothing_more(make: Callable[[], ir.Model]) -> None:
    model = make()
    assert FcToConv()(model).modified
    once = text(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert not FcToConv()(model).modified
    assert text(model) == once


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_converted_model_has_nothing_to_convert(make: Callable[[], ir.Model]) -> None:
    model = convert(make()).model
    assert model is not None
    with pytest.raises(RefusedError, match="nothing to convert"):
        convert(model)


def test_modified_is_false_where_there_is_no_layer() -> None:
    net = Net()
    model = net.ir_model(net.trunk())
    before = text(model)
    assert not FcToConv()(model).modified
    assert text(model) == before


def test_modified_is_false_where_no_layer_follows_an_image(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = Net()
    table = net.input("table", ("N", 6))
    model = net.ir_model(net.trunk(), net.fc(table))
    before = text(model)
    with caplog.at_level(logging.DEBUG, "onnx_fc2conv"):
        assert not FcToConv()(model).modified
    assert text(model) == before
    assert "no fully connected layer" in caplog.text


def test_a_refused_model_is_left_unchanged() -> None:
    net = Net()
    trunk = net.op("Conv", net.x, net.random(3, 2, 3, 3), auto_pad="SAME_UPPER", shape=(3, 8, 10))
    model = net.ir_model(
        net.head(trunk), net.head(net.op("CumSum", trunk, np.array(2), shape=trunk.shape))
    )
    before = text(model)
    with pytest.raises(RefusedError) as caught:
        FcToConv()(model)
    assert [refusal.code for refusal in caught.value.refusals] == ["flattened-features"]
    assert text(model) == before


def test_inside_a_sequential() -> None:
    model = softmax_before_opset_13()
    image = {"x": np.random.default_rng(1).normal(size=(2, 2, 8, 10)).astype(np.float32)}
    expected = session(model)(image)["y"]
    passes = ir.passes.Sequential(Normalize(), FcToConv(), FreeInputSize())
    result = passes(model)
    assert result.modified
    assert not passes(model).modified
    assert np.allclose(session(result.model)(image)["y"][..., 0, 0], expected, atol=1e-6)


def test_the_pass_reads_well() -> None:
    assert repr(FcToConv()) == (
        "FcToConv(input_shapes={}, static=False, pool='keep', all_linear=False)"
    )
    assert (
        repr(FreeInputSize({"x": (1, 3, 8, 8)}))
        == "FreeInputSize(input_shapes={'x': (1, 3, 8, 8)})"
    )
    assert repr(Normalize()) == "Normalize()"


def test_an_output_that_is_also_an_intermediate_value() -> None:
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 5)
    active = net.op("Relu", hidden, shape=(5,))
    conversion = assert_slides(net.model(net.fc(active), hidden, active))
    assert set(conversion.geometry) == {"y", "y2", "y3"}


def test_the_same_features_as_two_outputs() -> None:
    """A Flatten of an FC layer's output: both outputs are the same map, under two names."""
    net = Net()
    hidden = net.head(net.trunk())
    again = net.op("Flatten", hidden, shape=hidden.shape)
    conversion = assert_slides(net.model(hidden, again))
    assert conversion.model is not None
    assert op_types(conversion.model).count("Identity") == 1


def test_an_output_listed_twice() -> None:
    net = Net()
    model = net.ir_model(net.head(net.trunk()))
    model.graph.outputs.append(model.graph.outputs[0])
    assert_slides(model)


def test_a_trunk_map_as_an_output_stays() -> None:
    net = Net()
    trunk = net.trunk()
    conversion = convert(net.model(net.head(trunk), trunk))
    assert conversion.after is not None
    assert conversion.after.outputs["y2"][1] == 3
    assert conversion.geometry["y2"].stride == (2, 2)


def test_flattened_features_as_an_output_are_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    with pytest.raises(
        RefusedError, match=r"output 'y2' cannot become a map.*\[flattened-features\]"
    ):
        convert(net.model(net.fc(flat), flat))


@pytest.mark.parametrize("opset", [9, 13, 21])
def test_an_output_with_two_feature_axes(opset: int) -> None:
    net = Net(opset=opset)
    y = net.op("Reshape", net.fc(net.flat(net.trunk()), 6), np.array([-1, 2, 3]))
    after = assert_slides(net.model(y)).after
    assert after is not None
    assert after.outputs["y"] == ("N", 2, 3, "y_H", "y_W")


@pytest.mark.parametrize("image", [(2, 9), (2, 8, 10), (2, 6, 7, 6)], ids=["1-D", "2-D", "3-D"])
def test_an_output_with_three_feature_axes(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    y = net.fc(net.flat(net.trunk(pool=False)), 24)
    y = net.op("Transpose", net.op("Reshape", y, np.array([-1, 2, 3, 4])), perm=[0, 3, 1, 2])
    after = assert_slides(net.model(y)).after
    assert after is not None
    assert after.outputs["y"][:4] == ("N", 4, 2, 3)
    assert len(after.outputs["y"]) == 3 + len(image)


@pytest.mark.parametrize("opset", [9, 13])
def test_an_output_with_no_feature_axis(opset: int) -> None:
    net = Net(opset=opset)
    flat = net.flat(net.trunk())
    after = assert_slides(net.model(net.op("MatMul", flat, net.random(flat.size)))).after
    assert after is not None
    assert after.outputs["y"] == ("N", "y_H", "y_W")


def test_an_output_with_axes_of_length_1() -> None:
    net = Net()
    y = net.op("Reshape", net.head(net.trunk()), np.array([-1, 1, 4, 1]))
    assert_slides(net.model(y))


@pytest.mark.parametrize("ir_version", [3, 4, 8, 10])
def test_ir_versions(ir_version: int) -> None:
    """Until version 3 every initializer is listed as an input too."""
    net = Net(opset=9, ir_version=ir_version)
    flat = net.flat(net.trunk())
    y = net.op("Add", net.op("MatMul", flat, net.random(36, 4)), net.random(4))
    conversion = assert_slides(net.model(y))
    assert conversion.model is not None
    graph = conversion.model.graph
    inputs = {value.name for value in graph.inputs}
    assert "x" in inputs
    assert inputs - {"x"} <= set(graph.initializers)
    assert "w2" not in graph.initializers  # the weight [36, 4], whose place the kernel has taken


def test_unnamed_nodes() -> None:
    net = Net()
    model = net.model(net.head(net.trunk()))
    for node in model.graph.node:
        node.name = ""
    conversion = assert_slides(model)
    assert conversion.heads[0].node == "y"


def test_names_that_are_taken_already() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    weight = net.weight(net.random(4, 36), "fc")
    other = net.weight(net.random(4), "fc.kernel")
    y = net.op("Gemm", flat, weight, other, transB=1)
    y = net.op("Mul", net.op("Gemm", flat, weight, alpha=2.0, transB=1), y, shape=(4,))
    conversion = assert_slides(net.model(y))
    names = [layer.kernel for layer in conversion.heads]
    assert len(set(names)) == 2
    assert "fc.kernel" not in names


def test_names_are_kept() -> None:
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 5, name="fc1")
    active = net.op("Relu", hidden, shape=(5,), name="act1")
    conversion = convert(net.model(net.fc(active, name="fc2")))
    assert conversion.model is not None
    named = {node.name: (node.op_type, node.outputs[0].name) for node in conversion.model.graph}
    assert named["fc1"] == ("Conv", hidden.value.name)
    assert named["act1"] == ("Relu", active.value.name)
    assert named["fc2"] == ("Conv", "y")


def test_nodes_say_where_they_come_from() -> None:
    net = Net()
    conversion = convert(net.model(net.fc(net.flat(net.trunk()), name="fc1")))
    assert conversion.model is not None
    origins = [node.metadata_props.get("fc2conv.origin") for node in conversion.model.graph]
    assert origins == [None, None, None, "Gemm fc1"]


def test_a_weight_that_is_an_output_stays() -> None:
    net = Net()
    weight = net.weight(net.random(4, 36), "fc")
    y = net.op("Gemm", net.flat(net.trunk()), weight, transB=1)
    copy = net.op("Identity", weight)
    model = net.model(y, copy)
    conversion = convert(model)
    assert conversion.model is not None
    feeds = {"x": np.ones((1, 2, 8, 10), np.float32)}
    assert np.array_equal(session(conversion.model)(feeds)["y2"], session(model)(feeds)["y2"])


def test_layers_inside_a_function() -> None:
    """Local functions, as PyTorch's dynamo exporter makes them, are inlined first."""
    net = Net(opset=18)
    trunk = net.trunk()
    weight, bias = net.weight(net.random(4, 36)), net.weight(net.random(4))
    y = net.op("Classifier", trunk, weight, bias, domain="local", shape=(4,))
    inner = [ir.val(name) for name in ("features", "weight", "bias")]
    flat = ir.node("Flatten", inner[:1])
    gemm = ir.node("Gemm", [flat.outputs[0], *inner[1:]], {"transB": 1})
    body = ir.Graph(
        inner, gemm.outputs, nodes=[flat, gemm], opset_imports={"": 18}, name="Classifier"
    )
    model = net.ir_model(Tensor(y.value, (4,)))
    model.functions["local", "Classifier", ""] = ir.Function(
        "local", "Classifier", graph=body, attributes=()
    )
    model.graph.opset_imports["local"] = 1
    conversion = assert_slides(model)
    assert conversion.model is not None
    assert not conversion.model.functions
