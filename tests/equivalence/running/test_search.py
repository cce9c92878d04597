"""Inputs are searched for on which two models differ, where random ones hide the difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.search import search
from onnx_fc2conv.files.reading import as_model
from tests.equivalence.planting import edit_constant
from tests.nets import Array, Net, Tensor

SHAPE = (2, 8, 8)


def net_of(end: Callable[[Net, Tensor], Tensor], bias: float = 0.0) -> onnx.ModelProto:
    net = Net(image=SHAPE, seed=1)
    y = net.flat(net.trunk())
    offsets = net.random(4) + np.array([0, 0, 0, bias], np.float32)
    y = end(net, net.op("Gemm", y, net.random(4, y.size), offsets, transB=1, shape=(4,)))
    return net.model(y, dtype=ir.DataType.INT64 if end is best else None)


def saturated(net: Net, y: Tensor) -> Tensor:
    return net.op("Softmax", net.op("Mul", y, np.full(1, 1000, np.float32)), axis=1)


def best(net: Net, y: Tensor) -> Tensor:
    return net.op("ArgMax", y, axis=1, keepdims=0)


def silent(net: Net, y: Tensor) -> Tensor:
    """The last unit is silent unless the image is unusual."""
    return net.op("Relu", y)


def pair_of(reference: onnx.ModelProto, converted: ir.Model, seed: int = 0) -> Pair:
    return Pair(as_model(reference), converted, {"x": (1, *SHAPE)}, seed=seed)


def one_class_off(kernel: Array) -> Array:
    wrong = kernel.copy()
    wrong[3] *= np.float32(1.01)
    return wrong


def searched(pair: Pair) -> tuple[int, bool]:
    comparisons = {"y": pair.comparison("y")}
    return search(pair, comparisons), comparisons["y"].differs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("end", "bias"),
    [(saturated, 0.0), (best, 0.0), (silent, -5.0)],
    ids=["softmax", "best", "relu"],
)
def test_a_hidden_weight_is_found(
    end: Callable[[Net, Tensor], Tensor], bias: float, seed: int
) -> None:
    reference = net_of(end, bias)
    converted = convert(reference).model
    assert converted is not None
    assert searched(pair_of(reference, converted, seed)) == (640, False)
    edit_constant(0, 1, one_class_off)(converted)
    assert searched(pair_of(reference, converted, seed)) == (640, True)


def test_what_was_found_can_be_found_again() -> None:
    reference = net_of(saturated)
    converted = convert(reference).model
    assert converted is not None
    edit_constant(0, 1, one_class_off)(converted)
    found: list[str] = []
    for _ in range(2):
        pair = pair_of(reference, converted)
        comparison = pair.comparison("y")
        search(pair, {"y": comparison})
        found.append(comparison.where)
    assert found[0] == found[1]
    assert "pixels of" in found[0]


def test_a_model_that_fails_on_some_inputs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a table that only some images ask for."""

    def looked_up(rows: int) -> onnx.ModelProto:
        net = Net(image=SHAPE, seed=1)
        large = net.op("Greater", net.head(net.trunk()), np.full(1, 3, np.float32))
        index = net.op("Cast", large, to=ir.DataType.INT64)
        return net.model(net.op("Gather", net.random(2)[:rows], index))

    pair = pair_of(looked_up(2), as_model(looked_up(1)))
    comparison = pair.comparison("y")
    search(pair, {"y": comparison})
    assert "it does not run" in "; ".join(comparison.problems)


def test_large_models_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = net_of(silent)
    converted = convert(reference).model
    assert converted is not None
    pair = pair_of(reference, converted)
    monkeypatch.setattr("onnx_fc2conv.equivalence.running.search._PRODUCTS", pair.products * 63)
    assert searched(pair)[0] == 0
    monkeypatch.setattr("onnx_fc2conv.equivalence.running.search._PRODUCTS", pair.products * 70)
    assert searched(pair)[0] == 64
