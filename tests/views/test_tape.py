"""What a rule had written before it refused the node is no part of the plan."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views import interpret, interpret_statically
from onnx_fc2conv.views.plan import FcLayer, WindowPooling
from onnx_fc2conv.views.tape import Attempt, NodeRefused, Tape
from tests.nets import Net, Tensor, conv

FIRST, SECOND = (WindowPooling(name, "ReduceMean", "AveragePool", (3, 4)) for name in "ab")


def refused() -> NodeRefused:
    return NodeRefused(Refusal("no-rule", "Op n", "why"))


def test_an_attempt_that_is_refused_leaves_nothing() -> None:
    tape = Tape()
    tape.append(FIRST)
    with Attempt(tape) as attempt:
        tape.append(SECOND)
        raise refused()
    assert attempt.refused.refusal.reason == "why"
    assert tape.of(WindowPooling) == (FIRST,)


def test_an_attempt_that_succeeds_stays() -> None:
    tape = Tape()
    with Attempt(tape):
        tape.append(FIRST)
        with Attempt(tape):
            raise refused()
        tape.append(SECOND)
    assert tape.of(WindowPooling) == (FIRST, SECOND)
    assert tape.of(WindowPooling, 1) == (SECOND,)
    assert tape.of(FcLayer) == ()


def test_an_error_is_no_refusal() -> None:
    with pytest.raises(ZeroDivisionError), Attempt(Tape()):
        raise ZeroDivisionError


def softmax_of_two_maps() -> ir.Model:
    """Refused once the two maps have been joined: it works on all their positions."""
    net = Net()
    y = net.trunk()
    maps = [conv(net, y, (3, 4), 1), net.op("Relu", y, shape=y.shape)]
    flat = net.op("Concat", *map(net.flat, maps), axis=1, shape=(72,))
    return net.ir_model(net.fc(Tensor(net.op("Softmax", flat, axis=1).value, (72,))))


def test_a_refused_node_leaves_no_step() -> None:
    plan = interpret(softmax_of_two_maps())
    assert [refusal.code for refusal in plan.refusals] == ["flattened-features"]
    assert plan.steps == ()


def test_in_static_mode_only_the_layer_is_in_the_plan() -> None:
    plan = interpret_statically(softmax_of_two_maps())
    assert [layer.op_type for layer in plan.layers] == ["Gemm"]
    assert "Concat" not in [step.op_type for step in plan.steps]
    assert plan.rebuilt == ()
