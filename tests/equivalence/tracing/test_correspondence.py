"""Tensors of two models correspond if they hold the same numbers, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.tracing import correspondence
from onnx_fc2conv.equivalence.tracing.correspondence import corresponding
from onnx_fc2conv.files.reading import as_model
from tests.nets import Net, Tensor

NATIVE = (1, 2, 8, 8)


def original() -> onnx.ModelProto:
    net = Net(image=NATIVE[1:], seed=1)
    return net.model(layers(net, net.trunk()))


def layers(net: Net, y: Tensor) -> Tensor:
    return net.fc(net.op("Relu", net.fc(net.flat(y), 6), shape=(6,)), 4)


def pair_of(converted: ir.Model) -> Pair:
    return Pair(as_model(original()), converted, {"x": NATIVE})


def converted() -> ir.Model:
    model = convert(original()).model
    assert model is not None
    return model


def renamed(model: ir.Model) -> ir.Model:
    for number, node in enumerate(model.graph):
        for value in node.outputs:
            if value not in model.graph.outputs:
                value.name = f"t{number}"
    return model


def channels_last() -> ir.Model:
    """The same trunk with its maps as [N, H, W, C] between the operators."""
    net = Net(image=NATIVE[1:], seed=1)
    y = net.trunk()
    moved = net.op("Transpose", net.op("Transpose", y, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    return as_model(net.model(layers(net, Tensor(moved.value, y.shape))))


def test_every_tensor_of_a_conversion_is_found_by_its_numbers() -> None:
    pair = pair_of(renamed(converted()))
    found = corresponding(pair)
    assert found.keys() == {"x", *(v.name for n in pair.reference.graph for v in n.outputs)}
    assert found["maxpool2"] == found["flatten3"] == "t2"
    assert found["y"] == "y"


def test_a_tensor_in_another_order_corresponds_to_none() -> None:
    found = corresponding(pair_of(channels_last()))
    assert "transpose3" not in found.values()
    assert found["flatten3"] == found["maxpool2"] == "maxpool2"


def doubled(model: ir.Model) -> None:
    kernel = model.graph[0].inputs[1]
    assert kernel is not None
    assert kernel.const_value is not None
    kernel.const_value = ir.tensor(kernel.const_value.numpy() * np.float32(2), name=kernel.name)


def silenced(model: ir.Model) -> None:
    """Tensors that do not depend on the image tell nothing, even where they are equal."""
    nothing = ir.tensor(np.zeros((3, 2, 3, 3), np.float32), name="nothing")
    stored = ir.val("nothing", dtype=nothing.dtype, const_value=nothing)
    model.graph.register_initializer(stored)
    model.graph[0].replace_input_with(1, stored)


@pytest.mark.parametrize("change", [doubled, silenced])
def test_other_numbers_correspond_to_none(change: Callable[[ir.Model], None]) -> None:
    model = converted()
    change(model)
    assert corresponding(pair_of(model)) == {"x": "x"}
    pair = pair_of(model)
    change(pair.reference)
    assert len(corresponding(pair)) == (1 if change is silenced else 8)


def test_large_tensors_are_compared_in_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correspondence, "_AT_ONCE", 100)
    monkeypatch.setattr(correspondence, "_PLACES", 5)
    assert len(corresponding(pair_of(converted()))) == 8


def test_a_model_that_does_not_run_has_none() -> None:
    model = converted()
    model.graph[0].attributes["pads"] = ir.AttrInt64s("pads", [-9, -9, -9, -9])
    assert corresponding(pair_of(model)) == {}
