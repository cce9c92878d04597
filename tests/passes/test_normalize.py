"""The pass Normalize: no function calls, no dead nodes."""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.passes import Normalize
from tests.nets import Net, op_types


def test_dead_nodes_go() -> None:
    net = Net()
    trunk = net.trunk()
    net.op("CumSum", trunk, net.weight(net.rng.integers(1, 2, ())))
    model = net.ir_model(net.head(trunk))
    assert Normalize()(model).modified
    assert op_types(model) == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    assert not Normalize()(model).modified


def test_functions_are_inlined() -> None:
    net = Net(opset=18)
    y = net.op("Twice", net.x, domain="local", shape=net.x.shape)
    model = net.ir_model(y)
    value = ir.val("v")
    add = ir.node("Add", [value, value])
    body = ir.Graph([value], add.outputs, nodes=[add], opset_imports={"": 18}, name="Twice")
    model.functions["local", "Twice", ""] = ir.Function("local", "Twice", graph=body, attributes=())
    assert Normalize()(model).modified
    assert op_types(model) == ["Add"]
    assert not model.functions


def test_a_clean_model_is_not_modified() -> None:
    net = Net()
    model = net.ir_model(net.head(net.trunk()))
    before = ir.to_onnx_text(model)
    assert not Normalize()(model).modified
    assert ir.to_onnx_text(model) == before
