"""Integers for weights: what is exact, what is coded, and that the bounds hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.exactness import Inexact, exact_values, magnitudes
from onnx_fc2conv.equivalence.running.integer_coding import (
    Codebook,
    coded,
    coded_constants,
    integers_of,
)
from onnx_fc2conv.equivalence.tiers.integers import integer_pair
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.runtime.session import Session
from tests.equivalence.conftest import SQUARE, Case
from tests.nets import Net, Tensor, conv, i64
from tests.oracle import converted_model

SHAPE = {"x": (1, *SQUARE)}


def pair_of(case: Case) -> Pair:
    return Pair(ir.from_proto(case.reference), case.converted, SHAPE)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_integers_follow_the_bits(dtype: type[np.floating]) -> None:
    weights = np.random.default_rng(0).standard_normal((40, 50)).astype(dtype)
    integers = integers_of(weights, 1, 0.5, 3)
    assert integers.dtype == dtype
    assert set(np.unique(integers)) == {-3, -2, -1, 0, 1, 2, 3}
    assert 0.4 < np.count_nonzero(integers) / integers.size < 0.6
    order = np.random.default_rng(1).permutation(weights.size)
    moved = integers_of(weights.reshape(-1)[order], 1, 0.5, 3)
    np.testing.assert_array_equal(moved, integers.reshape(-1)[order])
    beside = integers_of(np.nextafter(weights, dtype(9)), 1, 1.0, 3)
    assert (beside != integers_of(weights, 1, 1.0, 3)).mean() > 0.7
    assert (integers_of(weights, 2, 0.5, 3) != integers).any()


def test_zeros_stay_zeros_whatever_their_sign() -> None:
    zeros = np.array([0.0, -0.0], np.float32)
    assert not integers_of(zeros, 5, 1.0, 3).any()


@pytest.mark.parametrize("net", ["plain", "padded", "averaged", "rounded_up", "clipped", "half"])
def test_no_partial_sum_is_larger_than_the_bound(net: str, case_of: Callable[[str], Case]) -> None:
    """The magnitudes of what a model computes, and every number of the model itself below them."""
    model = ir.from_proto(case_of(net).reference)
    book = Codebook(0, 16.0)
    integers = coded(model, book.learn)
    shape = (3, *(dim for dim in model.graph.inputs[0].shape or () if isinstance(dim, int)))
    dtype = model.graph.inputs[0].dtype
    assert dtype is not None
    image = np.random.default_rng(0).integers(-2, 3, shape).astype(dtype.numpy())
    names = [name for name in exact_values(integers) if name != "x"]
    assert names
    largest = magnitudes(integers, {"x": np.full(shape, 2, dtype.numpy())}, names)
    got = Session(with_outputs(integers, names)).run({"x": image}, names)
    for name, array in got.items():
        assert np.abs(array.astype(np.float64)).max(initial=0) <= largest[name]
        if net not in ("averaged",):
            np.testing.assert_array_equal(array, np.round(array))


def test_averages_of_four_have_two_more_bits() -> None:
    net = Net(image=SQUARE)
    y = net.trunk(pool=False)
    pool = net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    model = net.ir_model(net.head(Tensor(pool.value, (3, 3, 3))))
    exact = exact_values(model)
    assert exact["y"] == exact[pool.value.name or ""] == 2
    assert exact[y.value.name or ""] == 0


INEXACT = {
    "of-nine": ("AveragePool", {"kernel_shape": [3, 3]}),
    "padded": ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}),
    "rounded-up": ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "sigmoid": ("Sigmoid", {}),
    "global": ("GlobalAveragePool", {}),
}


@pytest.mark.parametrize(("op_type", "attributes"), INEXACT.values(), ids=INEXACT)
def test_inexact_operators(op_type: str, attributes: dict[str, object]) -> None:
    net = Net(image=SQUARE)
    y = net.op(op_type, net.trunk(pool=False), **attributes)
    assert y.value.name not in exact_values(net.ir_model(y))


def test_deep_models_say_that_they_run_out_of_bits() -> None:
    net = Net(image=(2, 24, 24))
    y = Tensor(net.x.value, (2, 24, 24))
    for _ in range(7):
        made = net.op("Conv", y, net.random(8, y.shape[0], 3, 3))
        y = Tensor(made.value, (8, y.shape[1] - 2, y.shape[2] - 2))
    half = Net(image=(2, 24, 24), dtype=ir.DataType.FLOAT16)
    reference = net.ir_model(net.head(y))
    converted = convert(reference).model
    assert converted is not None
    assert integer_pair(Pair(reference, converted, {"x": (1, 2, 24, 24)}))
    y = Tensor(half.x.value, (2, 24, 24))
    for _ in range(7):
        made = half.op("Conv", y, half.random(8, y.shape[0], 3, 3))
        y = Tensor(made.value, (8, y.shape[1] - 2, y.shape[2] - 2))
    reference = half.ir_model(half.head(y))
    converted = convert(reference).model
    assert converted is not None
    with pytest.raises(Inexact, match=r"too deep: sums of up to \d+ do not fit into 11 bits"):
        integer_pair(Pair(reference, converted, {"x": (1, 2, 24, 24)}))


def test_both_models_hold_the_same_integers(case_of: Callable[[str], Case]) -> None:
    integers = integer_pair(pair_of(case_of("plain")))
    one, two = (
        [np.sort(c.array.reshape(-1)) for c in coded_constants(model)]
        for model in (integers.reference, integers.converted)
    )
    assert len(one) == len(two) == 6
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)
        assert set(np.unique(left)) <= set(range(-3, 4))


def results_of(report: object, subject: str) -> list[TierResult]:
    results = report.results  # type: ignore[attr-defined]
    return [r for r in results if r.tier == "integers" and subject in r.subject]


def test_folded_scale_is_no_false_alarm(case_of: Callable[[str], Case]) -> None:
    """Other numbers in the kernel than in the layer: whole models are left to the other tiers."""
    net = Net(image=SQUARE, seed=1)
    flat = net.flat(net.trunk())
    scaled = net.op("Mul", flat, net.random(flat.size), shape=flat.shape)
    reference = net.ir_model(net.fc(scaled, 4))
    report = check(reference, convert(reference).model)  # type: ignore[arg-type]
    assert report
    (whole,) = results_of(report, "whole models")
    assert whole.status == "skipped"
    assert "a scale is folded in" in whole.detail


def test_without_metadata_whole_models_are_compared_all_the_same(
    case_of: Callable[[str], Case],
) -> None:
    case = case_of("plain")
    for node in case.converted.graph:
        node.metadata_props.clear()
    report = case.check()
    assert {r.status for r in results_of(report, "y")} == {"passed"}


def test_seed_draws_other_integers(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    drawn = [
        integer_pair(Pair(ir.from_proto(case.reference), case.converted, SHAPE, seed=seed))
        for seed in (0, 0, 1)
    ]
    weights = [next(coded_constants(pair.reference)).array for pair in drawn]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_a_gpu_may_round_to_the_bits_of_tf32_where_these_hold_every_factor(
    case_of: Callable[[str], Case],
) -> None:
    """No GPU is needed to find out: what is exact follows from the numbers."""
    net = Net(image=(2, 20, 20), seed=1)
    y = net.trunk()
    for _ in range(8):
        conv = net.op("Conv", y, net.random(20, y.shape[0], 3, 3), pads=[1, 1, 1, 1])
        y = Tensor(conv.value, (20, *y.shape[1:]))
    deep = net.model(net.head(y))
    pairs = {
        "plain": replace(pair_of(case_of("plain")), provider="cuda"),
        "deep": Pair(
            ir.from_proto(deep),
            converted_model(convert(deep)),
            {"x": (1, 2, 20, 20)},
            provider="cuda",
        ),
    }
    assert {name: integer_pair(pair).tf32 for name, pair in pairs.items()} == {
        "plain": True,
        "deep": False,
    }
    assert not integer_pair(pair_of(case_of("plain"))).tf32


def test_models_with_more_weights_than_can_be_coded_say_so(
    case_of: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_fc2conv.equivalence.tiers.integers._MOST_WEIGHTS", 100)
    report = case_of("plain").check()
    (skipped,) = (r for r in report.results if r.subject == "whole models")
    assert (skipped.tier, skipped.status) == ("integers", "skipped")
    assert "weights are too many to be coded" in skipped.detail
    assert report


def test_a_shape_that_is_computed_by_a_difference_stays() -> None:
    """Half of the channels and the rest of them, as an exporter writes it."""
    net = Net(image=(4, 8, 10), batch=1)
    y = net.op("Relu", net.x, shape=net.x.shape)
    channels = net.op("Gather", net.op("Shape", y), i64(1))
    rest = net.op("Sub", channels, i64(1))
    sizes = net.op("Concat", i64(1), rest, axis=0)
    one, two = net.ops("Split", y, sizes, outputs=2, axis=1)
    y = net.op("Concat", two, one, axis=1, shape=net.x.shape)
    model = net.model(net.head(conv(net, y, (6, 8))))
    report = check(model, converted_model(convert(model, static=True)))
    assert report, report.to_markdown()
    found = magnitudes(ir.from_proto(model), {"x": np.ones((1, 4, 8, 10), np.float32)}, ["y"])
    assert set(found) == {"y"}
