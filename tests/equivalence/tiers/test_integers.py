"""Other weights for both models: what is coded, that wrong weights show, and right ones do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.integer_coding import Coding
from onnx_fc2conv.equivalence.tiers.integers import Codings, NotCodedError
from tests.equivalence.conftest import NETS, SQUARE, Case
from tests.equivalence.faults import TABLE
from tests.nets import Array, Net, Tensor, i64
from tools.random_nets import make

FAMILIES = (
    *("sliding_trunks", "movement", "heads", "channels_last", "several_maps", "side_inputs"),
    *("half_precision", "axes_of_one"),
)
SEEDS = 6
WEIGHTS_ONLY = {
    *("weight-off-by-1-ulp", "weight-off-by-1-ulp-below", "bias-off-by-1-ulp"),
    *("behind-a-dead-relu", "last-weight-off-by-0.1-percent"),
    *("saturated-logits", "saturated-logits-renamed", "saturated-sigmoids", "saturated-groups"),
    *("alpha-weight-off", "folded-scale-off-by-0.1-percent", "second-embedding-off"),
}


def pair_of(reference: ir.Model, converted: ir.Model, seed: int = 0) -> Pair:
    shapes = {
        value.name or "": tuple(dim if isinstance(dim, int) else 1 for dim in value.shape or ())
        for value in reference.graph.inputs
    }
    return Pair(reference, converted, shapes, seed=seed)


def statuses(results: list[TierResult]) -> set[str]:
    return {result.status for result in results}


def one_layer(*weights: Array) -> ir.Model:
    """The features of an image times each of these weights, joined."""
    net = Net(image=(6, 1, 1))
    flat = net.flat(net.x)
    products = [net.op("MatMul", flat, weight) for weight in weights]
    return net.ir_model(net.op("Concat", *products, axis=1))


def arrays_of(coding: Coding, factor: int = 12345) -> list[list[Array]]:
    return [list(coding.arrays(operands, factor)) for operands in coding.sides]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_integers_follow_the_bits(dtype: type[np.floating]) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 500)).astype(dtype)
    weight[0, :9] = 0
    weight[0, :4] *= -1
    order = np.random.default_rng(1).permutation(500)
    models = [_typed(one_layer(w), dtype) for w in (weight, weight[:, order])]
    coding = Coding.of(*models)
    ((one,), (two,)) = arrays_of(coding)
    assert one.dtype == dtype
    sizes = np.abs(one[one != 0])
    assert set(sizes / sizes.min()) == {1, 2, 3}
    np.testing.assert_array_equal(one == 0, weight == 0)
    np.testing.assert_array_equal(two, one[:, order])
    assert (arrays_of(coding, 54321)[0][0] != one).mean() > 0.7
    (few,) = coding.arrays(coding.reference, 12345, terms=3)
    assert 0.4 < (few != 0).mean() < 0.6


def _typed(model: ir.Model, dtype: type[np.floating]) -> ir.Model:
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    return model


def test_a_neighbor_in_the_last_bit_is_another_integer() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 1000)).astype(np.float32)
    beside = weight.copy()
    beside[:, ::2] = np.nextafter(weight, np.float32(9))[:, ::2]
    ((one,), (two,)) = arrays_of(Coding.of(one_layer(weight), one_layer(beside)))
    np.testing.assert_array_equal(one[:, 1::2], two[:, 1::2])
    assert (one != two)[:, ::2].mean() == pytest.approx(5 / 6, abs=0.02)


WEIGHT = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)
OTHER = np.random.default_rng(3).standard_normal((6, 8)).astype(np.float32)
WRONG = WEIGHT.copy()
WRONG[2, 3] += 1
OF_BOTH = np.hstack([WEIGHT, OTHER])


@pytest.mark.parametrize(
    ("reference", "converted", "kept"),
    [
        ((WEIGHT, OTHER), (OTHER, WEIGHT), 0),
        ((WEIGHT, OTHER), (OF_BOTH,), 0),
        ((OF_BOTH,), (OTHER, WEIGHT), 0),
        ((WEIGHT,), (WEIGHT, WEIGHT), 0),
        ((WEIGHT, OTHER), (WRONG, OTHER), 0),
        ((WEIGHT, OTHER), (WRONG, OTHER * 2), 2),
        ((WEIGHT, OTHER), (WEIGHT, OTHER * 2), 1),
        ((WEIGHT, OTHER), (WEIGHT, np.hstack([WEIGHT, OTHER * 2])), 2),
        ((WEIGHT, WEIGHT), (WEIGHT, WEIGHT * 2), 2),
        ((np.ones((6, 8), np.float32), WEIGHT), (WEIGHT,), 0),
    ],
    ids=(
        *("as-it-is", "joined", "cut", "doubled", "wrong-copy", "wrong-or-scaled", "scaled"),
        *("joined-and-scaled", "one-of-two-scaled", "ones"),
    ),
)
def test_what_is_coded(
    reference: tuple[Array, ...], converted: tuple[Array, ...], kept: int
) -> None:
    coding = Coding.of(one_layer(*reference), one_layer(*converted))
    assert coding.kept == kept
    one, two = (
        {p: c for o, a in zip(side, new, strict=True) for p, c in _codes(o.array, a)}
        for side, new in zip(coding.sides, arrays_of(coding), strict=True)
    )
    assert {p: two[p] for p in one if p in two} == {p: one[p] for p in one if p in two}


def _codes(array: Array, codes: Array) -> zip[tuple[float, float]]:
    return zip(array.ravel().tolist(), codes.ravel().tolist(), strict=True)


def spoiled(name: str) -> tuple[ir.Model, ir.Model]:
    fault = next(fault for fault in TABLE if fault.name == name)
    reference = NETS[fault.net]()
    converted = convert(reference).model
    assert converted is not None
    fault.plant(converted)
    return ir.from_proto(reference), converted


@pytest.mark.parametrize("name", sorted(WEIGHTS_ONLY))
def test_wrong_weights_are_found_with_every_seed(name: str) -> None:
    """Each of the faults that only this tier finds, whatever integers the seed draws."""
    models = spoiled(name)
    for seed in range(SEEDS):
        assert statuses(Codings(pair_of(*models, seed)).compare()) == {"failed"}, seed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", FAMILIES)
def test_right_conversions_of_random_nets(family: str, seed: int) -> None:
    reference = make(family, seed)
    converted = convert(reference).model
    assert converted is not None
    results = Codings(pair_of(ir.from_proto(reference), converted, seed)).compare()
    assert statuses(results) == {"passed"}


def head(net: Net, y: Tensor) -> ir.Model:
    return net.ir_model(net.fc(net.op("Relu", y, shape=y.shape), 4))


def rewritten(how: str) -> tuple[ir.Model, ir.Model]:
    """The same function twice, the second as another tool may write it."""
    models: list[ir.Model] = []
    for right in (False, True):
        net = Net(image=SQUARE, seed=1)
        kernel, shift = net.random(6, 2, 3, 3), net.random(6)
        weight, scale = net.random(8, 6 * 36), (net.random(8) + np.float32(0.1)).copy()
        scale[:5] = 1  # most products are the weights themselves
        halves = np.array([2, 0.5] * 4, np.float32)
        scale = halves if how == "halves" else scale
        match how if right else "":
            case "split":
                parts = [
                    net.op("Conv", net.x, k, b)
                    for k, b in ((kernel[:2], shift[:2]), (kernel[2:], shift[2:]))
                ]
                maps = net.op("Concat", *parts, axis=1)
            case "split-inputs":
                images = net.ops("Split", net.x, i64(1, 1), outputs=2, axis=1)
                sums = [net.op("Conv", h, kernel[:, [n]]) for n, h in enumerate(images)]
                maps = net.op("Add", net.op("Add", *sums), shift.reshape(6, 1, 1))
            case _:
                maps = net.op("Conv", net.x, kernel, shift)
        flat = net.op("Flatten", net.op("Relu", maps), shape=(216,))
        match how if right else "":
            case "transposed":
                turned = net.op("Transpose", net.weight(weight), perm=[1, 0])
                y = net.op("Mul", net.op("MatMul", flat, turned), scale)
            case "folded":
                y = net.op("Gemm", flat, weight * scale[:, None], transB=1)
            case "doubled":
                twice = net.op("Concat", flat, flat, axis=1)
                half = weight * np.float32(0.5)
                y = net.op("Gemm", twice, np.hstack([half, half]), transB=1)
                y = net.op("Mul", y, scale)
            case "divided":
                y = net.op("Div", net.op("Gemm", flat, weight, transB=1), 1 / scale)
            case "halves":
                y = net.op("Div", net.op("Gemm", flat, weight, transB=1), halves[::-1].copy())
            case _:
                y = net.op("Mul", net.op("Gemm", flat, weight, transB=1), scale)
        models.append(head(net, Tensor(y.value, (8,))))
    return models[0], models[1]


REWRITES = ("split", "split-inputs", "transposed", "folded", "doubled", "divided", "halves")


@pytest.mark.parametrize("how", REWRITES)
def test_rewrites_of_other_tools(how: str) -> None:
    for seed in range(SEEDS):
        results = Codings(pair_of(*rewritten(how), seed)).compare()
        assert statuses(results) == {"passed"}, results


@pytest.mark.parametrize("how", ("split", "split-inputs", "transposed"))
def test_rewrites_with_a_wrong_weight(how: str) -> None:
    """Joined or cut tensors are no copies: their own numbers stay, and one of them is other."""
    reference, converted = rewritten(how)
    node = next(n for n in reversed(list(converted.graph)) if n.op_type == "Gemm")
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    wrong = weight.const_value.numpy().copy()
    wrong[0, 0] = np.nextafter(wrong[0, 0], np.float32(9))
    weight.const_value = ir.Tensor(wrong)
    assert statuses(Codings(pair_of(reference, converted)).compare()) == {"failed"}


def test_both_models_hold_the_same_integers(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    pair = Codings(pair_of(ir.from_proto(case.reference), case.converted)).short
    one, two = (
        sorted(
            np.sort(value.const_value.numpy().ravel()).tolist()
            for name, value in model.graph.initializers.items()
            if name.startswith("fc2conv.coded") and value.const_value is not None
        )
        for model in pair.models
    )
    assert len(one) == 6
    assert one == two


def test_a_sum_that_the_order_of_rounding_decides_is_no_fault() -> None:
    """A difference of equal numbers, enlarged: what is left of it is rounding alone."""
    models: list[ir.Model] = []
    for order in (1, -1):
        net = Net(image=(200, 1, 1), seed=1)
        hidden = net.random(200, 200)
        flat = net.op("Sigmoid", net.flat(net.x), shape=(200,))
        moved = net.op("Gather", flat, np.arange(200)[::order].copy(), axis=1)
        one = net.op("MatMul", flat, hidden)
        two = net.op("MatMul", moved, hidden[::order].copy())
        rest = net.op("Div", net.op("Sub", one, two), np.array(1e-20, np.float32))
        models.append(net.ir_model(net.op("Tanh", rest, shape=(200,))))
    assert "failed" not in statuses(Codings(pair_of(models[0], models[1])).compare())


def test_models_that_are_not_coded_say_so(
    case_of: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(image=SQUARE)
    rounded = net.ir_model(net.head(net.op("Round", net.x, shape=SQUARE)))
    with pytest.raises(NotCodedError, match=r"Round \S+ rounds"):
        Codings(pair_of(rounded, rounded))
    doubled = one_layer(WEIGHT), one_layer(WEIGHT * 2)
    with pytest.raises(NotCodedError, match="no weight is the same in both models"):
        Codings(pair_of(*doubled))
    monkeypatch.setattr("onnx_fc2conv.equivalence.tiers.integers._MOST_WEIGHTS", 100)
    report = case_of("plain").check()
    (skipped,) = (r for r in report.results if r.subject == "whole models")
    assert (skipped.tier, skipped.status) == ("integers", "skipped")
    assert "weights are too many to be coded" in skipped.detail
    assert report


def test_larger_sizes_are_compared_too(case_of: Callable[[str], Case]) -> None:
    results = [r for r in case_of("plain").check().results if r.tier == "integers"]
    assert statuses(results) == {"passed"}
    assert [r.detail.split(":")[0].split(",")[0] for r in results] == [
        *("16 codings of 6 tensors", "feature windows", "image windows")
    ]


def test_a_shape_that_is_computed_by_a_difference_stays() -> None:
    """Half of the channels and the rest of them, as an exporter writes it."""
    net = Net(image=(4, 8, 10), batch=1)
    y = net.op("Relu", net.x, shape=net.x.shape)
    channels = net.op("Gather", net.op("Shape", y), i64(1))
    rest = net.op("Sub", channels, i64(1))
    sizes = net.op("Concat", i64(1), rest, axis=0)
    one, two = net.ops("Split", y, sizes, outputs=2, axis=1)
    y = net.op("Concat", two, one, axis=1, shape=net.x.shape)
    model = net.model(net.head(y))
    report = check(model, convert(model, static=True).model)  # type: ignore[arg-type]
    assert report, report.to_markdown()


def test_overridable_initializers_are_coded() -> None:
    net = Net(image=SQUARE, seed=1, ir_version=3, opset=7)
    model = net.model(net.head(net.trunk()))
    report = check(model, convert(model).model)  # type: ignore[arg-type]
    assert report, report.to_markdown()
    assert "passed" in statuses([r for r in report.results if r.tier == "integers"])
