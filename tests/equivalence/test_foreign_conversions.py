"""Conversions by hand and by other tools: what they claim is checked all the same."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import ArgumentError, inspect
from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.equivalence.running.batches import to_reference_shape
from tests.equivalence.conftest import SQUARE, Case, failed_tiers
from tests.equivalence.planting import append, edit_constant, fix_inputs
from tests.nets import Net, Tensor

NATIVE_ONLY = "the converted model takes the native size only"


def peer(net: Net, y: Tensor, rows: int = -1) -> onnx.ModelProto:
    """Reshape → 1×1 Conv → Reshape, as onnxsim and onnxifier write a Gemm."""
    weight, bias = net.random(4, y.size), net.random(4)
    cell = net.op("Reshape", y, net.constant(np.array([rows, y.size, 1, 1])))
    conv = net.op("Conv", cell, weight.reshape(4, y.size, 1, 1), bias)
    return net.model(net.op("Reshape", conv, net.constant(np.array([-1, 4]))))


def original(net: Net, y: Tensor) -> onnx.ModelProto:
    return net.model(net.op("Gemm", net.flat(y), net.random(4, y.size), net.random(4), transB=1))


def freed(model: onnx.ModelProto, *shape: int | str) -> ir.Model:
    result = ir.from_proto(model)
    fix_inputs(*shape)(result)
    result.graph.outputs[0].shape = None
    return result


IMAGES = {"a-map-of-several-cells": SQUARE, "a-single-cell": (2, 4, 4)}
INTERFACES = {
    "declares-rows": ("N", 2, "H", "W"),
    "height-only": ("N", 2, "H", 8),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("shape", INTERFACES.values(), ids=INTERFACES)
def test_peer_conversion_with_a_free_size_is_right_at_the_native_size_only(
    image: tuple[int, ...], shape: tuple[int | str, ...]
) -> None:
    """It cuts a larger image into several samples, and no error shows."""
    shape = tuple(image[2] if dim == 8 else dim for dim in shape)
    net, twin = Net(image=image), Net(image=image)
    reference, converted = original(net, net.trunk()), peer(twin, twin.trunk())
    converted_freed = freed(converted, *shape)
    report = check(reference, converted_freed)
    assert report
    assert report.relation.kind == "native size only"
    assert re.fullmatch(
        r"equal at the native size only: at larger sizes it returns N·\d+ samples instead of a "
        r"map \(at [×\d]+\)",
        report.verdict,
    )
    assert {(r.tier, r.status) for r in report.results} == {
        ("native", "passed"),
        ("integers", "passed"),
        ("feature windows", "skipped"),
    }
    demanded = check(reference, converted_freed, expect="map")
    assert failed_tiers(demanded) == {"relation"}
    assert not demanded
    assert check(reference, converted_freed, expect="same")


def test_an_input_of_one_image_is_not_one_of_any_batch() -> None:
    net, twin = Net(image=SQUARE), Net(image=SQUARE)
    reference, converted = original(net, net.trunk()), peer(twin, twin.trunk())
    report = check(reference, freed(converted, 1, 2, "H", "W"))
    assert failed_tiers(report) == {"native"}


def test_peer_conversion_that_claims_a_map_is_refuted() -> None:
    """It is held to what is claimed of it, here by its geometry."""
    net, twin = Net(image=SQUARE), Net(image=SQUARE)
    reference, converted = original(net, net.trunk()), peer(twin, twin.trunk())
    claimed = inspect(reference).geometry
    report = check(reference, freed(converted, "N", 2, "H", "W"), geometry=claimed)
    assert not report
    assert failed_tiers(report) & {"feature windows", "image windows"}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_peer_conversion_of_fixed_size_says_so(image: tuple[int, ...]) -> None:
    net, twin = Net(image=image), Net(image=image)
    report = check(original(net, net.trunk()), peer(twin, twin.trunk()))
    assert report
    (windows,) = (r for r in report.results if r.tier == "feature windows")
    assert (windows.status, windows.detail) == ("skipped", NATIVE_ONLY)
    assert not any(r.tier == "image windows" and r.status == "passed" for r in report.results)
    assert report.relation.kind == "fixed size"
    assert re.fullmatch(
        r"equal at the native size only: the input size is fixed; freed, it returns N·\d+ samples "
        r"instead of a map \(at [×\d]+\)",
        report.verdict,
    )


def test_stale_fixed_dims_are_not_taken_for_a_checked_map(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    fix_inputs("N", 2, 8, 8)(case.converted)
    report = case.check()
    assert [r.detail for r in report.results if r.tier == "feature windows"] == [NATIVE_ONLY]


def test_static_conversion_is_compared_in_batches() -> None:
    """The interface of the original, batch and all."""
    net, twin = Net(image=SQUARE), Net(image=SQUARE)
    reference = original(net, net.trunk())
    wrong = peer(twin, twin.trunk(), rows=1)
    report = check(reference, wrong)
    assert failed_tiers(report) == {"native"}
    assert "batch 1 and 3" in next(
        r.detail for r in check(reference, reference).results if r.tier == "native"
    )


def test_fixed_batch_of_a_static_conversion() -> None:
    net, twin = Net(image=SQUARE, batch=4), Net(image=SQUARE, batch=4)
    report = check(original(net, net.trunk()), peer(twin, twin.trunk()))
    assert report
    assert "at batch 4" in next(r.detail for r in report.results if r.tier == "native")


def test_nothing_converted_but_the_size_freed(case_of: Callable[[str], Case]) -> None:
    reference = case_of("plain").reference
    report = check(reference, freed(reference, "N", 2, "H", "W"))
    assert report.verdict.startswith(
        "equal at the native size only: at larger sizes it does not run (14×16: "
    )
    assert not check(reference, freed(reference, "N", 2, "H", "W"), expect="map")


def test_a_model_is_equivalent_to_itself(case_of: Callable[[str], Case]) -> None:
    reference = case_of("softmax").reference
    assert check(reference, reference)


def test_a_conversion_is_equivalent_to_itself(case_of: Callable[[str], Case]) -> None:
    """It holds no layer of which a weight could be compared."""
    converted = case_of("plain").converted
    report = check(converted, converted, input_shapes={"x": (1, *SQUARE)})
    assert report, report.to_markdown()
    assert report.relation.kind == "any size"


def test_renamed_tensors_are_matched_by_structure(case_of: Callable[[str], Case]) -> None:
    case = case_of("softmax")
    for number, node in enumerate(case.converted.graph):
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"renamed_{number}"
    report = case.check()
    assert report
    assert {r.status for r in report.results} == {"passed"}


def test_the_best_class_hides_an_error_but_at_ties(case_of: Callable[[str], Case]) -> None:
    net = Net(image=SQUARE, seed=1)
    y = net.trunk()
    logits = net.fc(net.op("Relu", net.fc(net.flat(y), 6), shape=(6,)), 4)
    best = net.op("ArgMax", logits, axis=1, keepdims=0)
    reference = net.model(best, dtype=ir.DataType.INT64)
    case = case_of("plain")
    append("ArgMax", axis=1, keepdims=0)(case.converted)
    case.converted.graph.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    assert check(reference, case.converted)
    edit_constant(1, 2, lambda bias: bias * np.float32(1.001))(case.converted)
    for node in case.converted.graph:
        node.metadata_props.clear()
    report = check(reference, case.converted)
    assert failed_tiers(report) == {"native"}
    assert any("a tie" in failure.detail for failure in report.failures)


def test_other_inputs_are_an_error(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    case.converted.graph.inputs[0].name = "image"
    case.converted.graph.inputs[0].shape = ir.Shape(["N", 3, "H", "W"])
    with pytest.raises(ArgumentError, match="different inputs: x and image"):
        case.check()


@pytest.mark.parametrize(
    ("shape", "wanted", "result"),
    [
        ((3, 4, 1, 1), (3, 4), (3, 4)),
        ((3, 2, 5, 1, 1), (3, 2, 5), (3, 2, 5)),
        ((3, 1, 1), (3,), (3,)),
        ((3, 4), (3, 4), (3, 4)),
        ((4, 3), (3, 4), (4, 3)),
        ((1, 4, 3, 1), (3, 4), (1, 4, 3, 1)),
        ((12,), (3, 4), (12,)),
        ((3, 4, 2, 1), (3, 4), (3, 4, 2, 1)),
        ((3, 10, 1, 1), (3, 2, 5), (3, 10, 1, 1)),
    ],
    ids=str,
)
def test_only_a_single_cell_takes_the_shape_of_the_original(
    shape: tuple[int, ...], wanted: tuple[int, ...], result: tuple[int, ...]
) -> None:
    assert to_reference_shape(np.zeros(shape), wanted).shape == result
