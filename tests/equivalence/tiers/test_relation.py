"""What one model is to the other, found by running it at a larger size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import ArgumentError, check, convert
from onnx_fc2conv.equivalence.reporting.results import TierResult
from tests.equivalence.conftest import SQUARE, Case, failed_tiers
from tests.equivalence.planting import append, fix_inputs
from tests.nets import Array, Net

NATIVE = {"x": (1, *SQUARE)}


def pooled_net(*, as_conv: bool, change: float = 1.0) -> ir.Model:
    """Takes any size itself: its layer, a Gemm or a 1×1 Conv, reads a pooling of the image."""
    net = Net(image=SQUARE)
    pooled = net.op("GlobalAveragePool", net.trunk())
    weight, bias = net.random(4, 3) * np.float32(change), net.random(4)
    if as_conv:
        y = net.op("Flatten", net.op("Conv", pooled, weight.reshape(4, 3, 1, 1), bias))
    else:
        y = net.op("Gemm", net.op("Flatten", pooled), weight, bias, transB=1)
    model = net.ir_model(y)
    fix_inputs("N", 2, "H", "W")(model)
    return model


def fcn(pooling: str) -> ir.Model:
    """A 1×1 Conv for the Gemm of `pooled_net`, behind a pooling of windows."""
    net = Net(image=SQUARE)
    pooled = net.op(pooling, net.trunk(), kernel_shape=[3, 3], strides=[1, 1])
    weight, bias = net.random(4, 3), net.random(4)
    model = net.ir_model(net.op("Conv", pooled, weight.reshape(4, 3, 1, 1), bias))
    fix_inputs("N", 2, "H", "W")(model)
    model.graph.outputs[0].shape = None
    return model


def hand_made(kernel: Callable[[Array], Array] = lambda k: k) -> ir.Model:
    """What somebody writes who knows how: one whole-map kernel, no metadata."""
    net = Net(image=SQUARE, seed=1)
    y = net.trunk()
    first, bias = net.random(6, 27), net.random(6)
    y = net.op("Relu", net.op("Conv", y, kernel(first.reshape(6, 3, 3, 3)), bias))
    second, bias = net.random(4, 6), net.random(4)
    model = net.ir_model(net.op("Conv", y, second.reshape(4, 6, 1, 1), bias))
    fix_inputs("N", 2, "H", "W")(model)
    model.graph.outputs[0].shape = None
    return model


def statuses(results: tuple[TierResult, ...]) -> dict[str, str]:
    return {result.tier: result.status for result in results}


def test_map_by_hand(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    report = check(case.reference, hand_made(), expect="map")
    assert report, report.to_markdown()
    assert report.verdict == "equivalent: a map of windows at any size"
    assert statuses(report.results) == {
        "native": "passed",
        "integers": "passed",
        "feature windows": "passed",
        "image windows": "passed",
        "relation": "passed",
    }
    wrong = check(case.reference, hand_made(lambda k: k.swapaxes(2, 3)))
    assert failed_tiers(wrong) == {
        *("native", "integers"),
        *("feature windows", "image windows"),
    }


def test_map_does_not_keep_the_interface(case_of: Callable[[str], Case]) -> None:
    report = check(case_of("plain").reference, case_of("plain").converted, expect="same")
    assert failed_tiers(report) == {"relation"}
    assert report.failures[0].detail == (
        "expected the interface of the original; found: a map of windows at any size"
    )


def test_static_conversion_keeps_the_interface(case_of: Callable[[str], Case]) -> None:
    reference = case_of("plain").reference
    static = convert(reference, static=True).model
    assert static is not None
    assert check(reference, static, expect="same")
    assert failed_tiers(check(reference, static, expect="map")) == {"relation"}


def test_both_take_any_size() -> None:
    reference = pooled_net(as_conv=False)
    report = check(reference, pooled_net(as_conv=True), input_shapes=NATIVE)
    assert report, report.to_markdown()
    assert report.relation.kind == "any size"
    assert statuses(report.results)["larger sizes"] == "passed"
    wrong = check(reference, pooled_net(as_conv=True, change=1.001), input_shapes=NATIVE)
    assert failed_tiers(wrong) == {"native", "integers", "larger sizes"}


def test_only_larger_sizes_show_a_fault() -> None:
    """Equal at the native size: the sum over it is a fixed multiple of the mean."""
    net = Net(image=SQUARE)
    total = net.op("ReduceSum", net.trunk(), np.array([2, 3]), keepdims=1)
    mean = net.op("Mul", total, np.array(1 / 9, np.float32))
    weight, bias = net.random(4, 3), net.random(4)
    wrong = net.ir_model(net.op("Gemm", net.op("Flatten", mean), weight, bias, transB=1))
    fix_inputs("N", 2, "H", "W")(wrong)
    report = check(pooled_net(as_conv=False), wrong, input_shapes=NATIVE)
    assert failed_tiers(report) == {"integers", "larger sizes"}


def test_one_result_for_the_whole_image(case_of: Callable[[str], Case]) -> None:
    report = case_of("globally_pooled").check()
    assert report.verdict == "equivalent: one result for an image of any size"


def test_pooling_of_windows_by_hand() -> None:
    """The original pools its whole image; the cells are what it makes of each window."""
    reference = pooled_net(as_conv=False)
    fix_inputs("N", *SQUARE)(reference)
    report = check(reference, fcn("AveragePool"), expect="map")
    assert report, report.to_markdown()
    assert statuses(report.results)["image windows"] == "passed"
    assert "image windows" in failed_tiers(check(reference, fcn("MaxPool")))


def test_a_conversion_of_ours_is_held_to_its_map(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    append("GlobalMaxPool")(case.converted)
    tiers = {"geometry", "integers", "feature windows", "image windows"}
    assert failed_tiers(case.check()) == tiers


def test_features_side_by_side_are_no_map() -> None:
    """[N, K·m] has no axis for windows; without the fixed number the reshape would run on."""
    net = Net(image=SQUARE)
    pixels = net.op("Conv", net.trunk(), net.random(4, 27).reshape(4, 3, 3, 3))
    model = net.ir_model(net.op("Reshape", pixels, net.constant(np.array([0, -1]))))
    reference = Net(image=SQUARE)
    flat = reference.flat(reference.trunk())
    original = reference.model(reference.op("Gemm", flat, reference.random(4, 27), transB=1))
    fix_inputs("N", 2, "H", "W")(model)
    report = check(original, model)
    assert report.relation.kind == "native size only"
    assert "returns shape [2, 80] instead of a map (at 14×16)" in report.verdict


@pytest.mark.parametrize("net", ["one_dimension", "three_dimensions"])
def test_maps_of_other_ranks(net: str, case_of: Callable[[str], Case]) -> None:
    assert case_of(net).check().relation.kind == "map"


def matched(case: Case, change: Callable[[ir.Model], None]) -> tuple[bool, tuple[str, ...]]:
    change(case.converted)
    report = case.check()
    return bool(report), report.notes


def rename(model: ir.Model) -> None:
    model.graph.inputs[0].name = "pixels"
    model.graph.outputs[0].name = "map"


def rename_in_the_way(model: ir.Model) -> None:
    """The wanted names are taken by tensors inside."""
    rename(model)
    first, second, *_ = model.graph
    first.outputs[0].name, second.outputs[0].name = "x", "y"


@pytest.mark.parametrize("change", [rename, rename_in_the_way])
def test_names_are_matched_by_position(
    change: Callable[[ir.Model], None], case_of: Callable[[str], Case]
) -> None:
    assert matched(case_of("plain"), change) == (
        True,
        (
            "pixels is taken for x of the reference, by position",
            "map is taken for y of the reference, by position",
        ),
    )


def test_names_come_before_positions(case_of: Callable[[str], Case]) -> None:
    def reverse(model: ir.Model) -> None:
        model.graph.outputs.reverse()

    assert matched(case_of("two_heads"), reverse) == (True, ())


def test_an_output_more_is_left_out_and_said(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    case.converted.graph.outputs.append(next(iter(case.converted.graph)).outputs[0])
    equal, notes = matched(case, lambda _: None)
    assert equal
    assert notes == ("not compared, the reference has no such output: conv0",)


def test_an_output_of_another_type_is_not_matched(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    append("Cast", to=onnx.TensorProto.DOUBLE)(case.converted)
    case.converted.graph.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    case.converted.graph.outputs[0].name = "z"
    report = case.check()
    assert "native" in failed_tiers(report)
    assert "the converted model has no such output" in {r.detail for r in report.failures}


def test_models_of_one_input_and_of_two(case_of: Callable[[str], Case]) -> None:
    with pytest.raises(ArgumentError, match="different inputs: x, z and x"):
        check(case_of("two_images").reference, case_of("plain").reference)


def test_samples_that_look_like_a_map() -> None:
    """[N·m, K, 1, 1] has the axes of a map and is none."""
    net = Net(image=SQUARE)
    flat = net.flat(net.trunk())
    weight = net.random(4, 27)
    reference = net.model(net.op("Gemm", flat, weight, transB=1))
    twin = Net(image=SQUARE)
    cells = twin.op("Reshape", twin.trunk(), twin.constant(np.array([-1, 27, 1, 1])))
    peer = twin.ir_model(twin.op("Conv", cells, twin.random(4, 27).reshape(4, 27, 1, 1)))
    fix_inputs("N", 2, "H", 8)(peer)
    report = check(reference, peer)
    assert report.relation.words == (
        "equal at the native size only: at larger sizes it returns N·2 samples instead of a map "
        "(at 14)"
    )
