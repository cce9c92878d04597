"""Nodes and constants that are written into a graph: valid in every opset, under free names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_fc2conv.graphs.writer import GraphWriter, Place
from tests.nets import Array

X = np.random.default_rng(0).standard_normal((2, 1, 3, 4)).astype(np.float32)


def empty(opset: int, ir_version: int = 8) -> ir.Model:
    """A model with the input x [2, 1, 3, 4] and no node."""
    x = ir.val("x", ir.DataType.FLOAT, X.shape)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": opset}, name="graph")
    return ir.Model(graph, ir_version=ir_version)


def finished(model: ir.Model, output: ir.Value, shape: Sequence[int] = X.shape) -> onnx.ModelProto:
    """The model with its output y, checked by ONNX."""
    output.name, output.type, output.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    model.graph.outputs.append(output)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


Written = Callable[[Place, ir.Value], ir.Value]

FORMS: dict[str, tuple[Written, Array]] = {
    "squeeze": (lambda at, x: at.squeeze(x, [1]), X[:, 0]),
    "unsqueeze": (lambda at, x: at.unsqueeze(x, [0, 2]), X[None, :, None]),
    "transpose": (lambda at, x: at.transpose(x, [0, 3, 1, 2]), X.transpose(0, 3, 1, 2)),
    "reshape": (lambda at, x: at.reshape(x, [0, -1], name="flat"), X.reshape(2, 12)),
    "slice": (lambda at, x: at.slice(x, [2, 3], [1, 0], [3, -1]), X[:, :, 1:3, :-1]),
    "pad": (lambda at, x: at.pad(x, [0] * 6 + [1, 2]), np.pad(X, [(0, 0)] * 2 + [(0, 1), (0, 2)])),
    "pad with a number": (
        lambda at, x: at.pad(x, [0, 0, 1, 0] + [0] * 4, np.array(-2, np.float32)),
        np.pad(X, [(0, 0)] * 2 + [(1, 0), (0, 0)], constant_values=-2),
    ),
    "reduce": (lambda at, x: at.reduce("ReduceMax", x, [2, 3], name="max"), X.max((2, 3))),
}


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 17, 18, 21])
@pytest.mark.parametrize("form", FORMS)
def test_an_operator_has_the_form_of_the_opset(form: str, opset: int) -> None:
    write, expected = FORMS[form]
    model = empty(opset)
    made = write(GraphWriter(model).at_end(), model.graph.inputs[0])
    proto = finished(model, made, expected.shape)
    (got,) = ReferenceEvaluator(proto).run(None, {"x": X})
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("ir_version", [3, 4])
def test_ir_version_3_lists_initializers_as_inputs(ir_version: int) -> None:
    model = empty(8, ir_version)
    at = GraphWriter(model).at_end()
    finished(model, at.node("Reshape", model.graph.inputs[0], [0, -1]), (2, 12))
    assert len(model.graph.inputs) == (2 if ir_version == 3 else 1)


def test_names_that_are_taken_get_a_number() -> None:
    model = empty(13)
    writer = GraphWriter(model)
    one, two = (writer.constant("x", np.array(number)) for number in (1, 2))
    own = writer.stored("own", lambda: ir.tensor([3]))
    three = writer.constant("own", np.array(4))
    assert [value.name for value in (one, two, own, three)] == ["x_2", "x_3", "own", "own_2"]
    assert writer.stored("own", lambda: ir.tensor([5])) is own


def test_lists_that_are_alike_are_one_initializer() -> None:
    writer = GraphWriter(empty(13))
    assert writer.operand([1, 2]) is writer.operand((1, 2)) is not writer.operand([1.0, 2.0])


def test_nodes_behind_a_node_follow_each_other() -> None:
    model = empty(13)
    writer = GraphWriter(model)
    first = writer.at_end().node("Relu", model.graph.inputs[0])
    last = writer.at_end().node("Abs", first)
    node = first.producer()
    assert node is not None
    behind = writer.after(node)
    behind.node("Exp", behind.node("Neg", first))
    writer.before(node).node("Sign", model.graph.inputs[0])
    finished(model, last)
    assert [n.op_type for n in model.graph] == ["Sign", "Relu", "Neg", "Exp", "Abs"]


def test_a_place_stamps_and_types_what_is_put_there() -> None:
    model = empty(13)
    writer = GraphWriter(model, "mine")
    made = writer.at_end().node("Relu", model.graph.inputs[0])
    node = made.producer()
    assert node is not None
    assert (node.name, made.name, made.dtype) == ("mine.Relu", "mine.Relu_output", None)
    stamped = writer.before(node, {"origin": "Gemm fc"}, typed=True)
    made = stamped.node("Abs", model.graph.inputs[0], name="abs")
    node = made.producer()
    assert node is not None
    assert (node.name, made.name, made.dtype) == ("abs", "abs_output", ir.DataType.FLOAT)
    assert node.metadata_props == {"origin": "Gemm fc"}
