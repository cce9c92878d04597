"""Ends that make large errors of small ones: right conversions pass, wrong ones are still found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence.comparing.tolerances import tolerances_of
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.native import check_native
from onnx_fc2conv.files.reading import as_model
from tests.equivalence.planting import edit_constant, instead, percent
from tests.nets import Array, Net, Tensor

SHAPE = (2, 8, 8)
End = Callable[[Net, Tensor], Tensor]


def net_of(
    end: End, scale: float, bias: float = 0.0, dtype: ir.DataType | None = None
) -> onnx.ModelProto:
    net = Net(image=SHAPE, seed=1)
    y = net.flat(net.trunk())
    weight = net.random(3, y.size) * np.float32(scale)
    logits = net.op("Gemm", y, weight, net.random(3) + np.float32(bias), transB=1, shape=(3,))
    return net.model(end(net, logits), dtype=dtype)


def one() -> Array:
    return np.ones(1, np.float32)


def cosine(net: Net, y: Tensor) -> Tensor:
    return net.op("Cos", y)


def log_of_the_rest(net: Net, y: Tensor) -> Tensor:
    return net.op("Log", net.op("Sub", net.weight(one()), net.op("Sigmoid", y)))


def log_of_a_small_probability(net: Net, y: Tensor) -> Tensor:
    return net.op("Log", net.op("Sigmoid", y))


def centred(net: Net, y: Tensor) -> Tensor:
    return net.op("Sub", net.op("Add", y, one() * 1e5), net.weight(one() * 1e5))


def tied(net: Net, y: Tensor) -> Tensor:
    """Two classes have the same scores, summed in two ways."""
    halves = net.op("Mul", y, one() * 0.3), net.op("Mul", y, one() * 0.7)
    return net.op("ArgMax", net.op("Concat", y, net.op("Add", *halves), axis=1), axis=1, keepdims=0)


CASES = {
    "cosine": lambda: net_of(cosine, 1000),
    "log(1-p)": lambda: net_of(log_of_the_rest, 10),
    "log(p)": lambda: net_of(log_of_a_small_probability, 15),
    "centred": lambda: net_of(centred, 0.01),
    "argmax": lambda: net_of(tied, 1, dtype=ir.DataType.INT64),
}


def native(reference: onnx.ModelProto, converted: ir.Model, seed: int = 0) -> list[TierResult]:
    model = as_model(reference)
    tolerances = tolerances_of(model, None, None)
    return check_native(Pair(model, converted, {"x": (1, *SHAPE)}, tolerances, seed=seed))


def conversion(reference: onnx.ModelProto) -> ir.Model:
    model = convert(reference).model
    assert model is not None
    return model


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_right_conversions_pass(name: str, seed: int) -> None:
    reference = CASES[name]()
    results = native(reference, conversion(reference), seed)
    assert {r.status for r in results} == {"passed"}
    if name in ("log(1-p)", "log(p)", "centred", "argmax"):
        before = results[1].detail
        assert before.startswith("ill-conditioned: rounding alone moves it by ")
        assert before.endswith(": the same), and the rest on equal numbers")


def test_the_operator_before_which_was_compared_is_named() -> None:
    reference = CASES["log(p)"]()
    assert "compared before Log " in native(reference, conversion(reference))[1].detail


@pytest.mark.parametrize(
    ("name", "by"), [("cosine", 1), ("log(1-p)", 1), ("log(p)", 20), ("centred", 20)]
)
def test_wrong_weights_are_found(name: str, by: float) -> None:
    reference = CASES[name]()
    converted = conversion(reference)
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1 + by / 100))(converted)
    assert "failed" in {r.status for r in native(reference, converted)}


def test_what_rounding_decides_alone_convicts_nobody() -> None:
    reference = CASES["argmax"]()
    converted = conversion(reference)
    edit_constant(0, 1, percent(1))(converted)
    results = native(reference, converted)
    assert [r.status for r in results] == ["passed", "measured"]
    assert "; not traced: " in results[1].detail


def test_a_wrong_end_is_found_on_equal_numbers() -> None:
    reference = net_of(cosine, 1e8)
    converted = conversion(reference)
    results = native(reference, converted)
    assert [r.status for r in results] == ["passed", "passed"]
    instead("Cos", "Sin")(converted)
    results = native(reference, converted)
    assert results[1].status == "failed"
    assert "compared before Cos " in results[1].detail
