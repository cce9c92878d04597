"""A wrong model that passes is the worst outcome: every planted fault must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from tests.equivalence.conftest import Case, failed_tiers
from tests.equivalence.planting import (
    Array,
    Plant,
    append,
    attribute,
    bypass,
    constant_of,
    drop_input,
    edit_constant,
    edit_trunk,
    fc_convs,
    first,
    fix_inputs,
    last,
    one_element,
    replace_constant,
)

WEIGHTS, NATIVE, FEATURES, IMAGES = "weights", "native", "feature windows", "image windows"
RUNNING = {NATIVE, FEATURES, IMAGES}
ALL = {WEIGHTS, *RUNNING}
SEEN = {WEIGHTS, NATIVE, FEATURES}


@dataclass(frozen=True)
class Fault:
    """A fault, the net that it is planted into, and the tiers that must find it and no others."""

    name: str
    net: str
    plant: Plant
    tiers: set[str]


def first_fc(model: ir.Model) -> ir.Node:
    return fc_convs(model)[0]


def channels_last(kernel: Array) -> Array:
    """The kernel that the weight would be if the model flattened [H, W, C]."""
    outputs, channels, height, width = kernel.shape
    return kernel.reshape(outputs, height, width, channels).transpose(0, 3, 1, 2)


def swap_names(model: ir.Model) -> None:
    """Each head gives out what the other should."""
    one, two = model.graph.outputs
    one.name, two.name = "aside", one.name
    one.name = "y2"


def swap_kernels(model: ir.Model) -> None:
    one, two = fc_convs(model)
    kernels = constant_of(one, 1), constant_of(two, 1)
    replace_constant(one, 1, kernels[1])
    replace_constant(two, 1, kernels[0])


def softmax_over_everything(model: ir.Model) -> None:
    """Softmax-11 on [N, K, h, w] as it is: over K·h·w together."""
    softmax = last(model, "Softmax")
    softmax.attributes.pop("axis")
    logits = softmax.inputs[0].producer().inputs[0]  # type: ignore[union-attr]
    softmax.replace_input_with(0, logits)
    bypass(lambda m: last(m, "Transpose"))(model)


def drop_output(model: ir.Model) -> None:
    del model.graph.outputs[1]


def as_double(model: ir.Model) -> None:
    append("Cast", to=11)(model)
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def nudged_logits(model: ir.Model) -> None:
    """0.5 % more than every logit: the saturated output stays the same."""
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.005))(model)
    edit_constant(0, 2, lambda bias: bias * np.float32(1.005))(model)


def nudged_and_renamed(model: ir.Model) -> None:
    nudged_logits(model)
    for number, node in enumerate(model.graph):
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"renamed_{number}"


def unfold_batch_norm(model: ir.Model) -> None:
    kernel = constant_of(first_fc(model), 1).copy()
    kernel[:, 1] *= np.float32(1.001)
    replace_constant(first_fc(model), 1, kernel)


def drop_mean_axis(model: ir.Model) -> None:
    """The mean over rows only; the largest over the rest."""
    mean = last(model, "ReduceMean")
    mean.attributes.add(ir.convenience.convert_attribute("axes", [2]))
    rest = ir.node("ReduceMax", [mean.outputs[0]], {"axes": [3]})
    model.graph.insert_after(mean, rest)
    mean.outputs[0].replace_all_uses_with(rest.outputs[0])
    rest.replace_input_with(0, mean.outputs[0])


def use_one_image(model: ir.Model) -> None:
    """x - x where the original has x - z."""
    last(model, "Sub").replace_input_with(1, last(model, "Sub").inputs[0])


def permuted(kernel: Array) -> Array:
    return kernel[:, [1, 2, 0]]


def percent(amount: float) -> Callable[[Array], Array]:
    return one_element(lambda weight: weight * np.float32(1 + amount / 100))


TABLE = [
    Fault("height-width-swapped", "plain", edit_constant(0, 1, lambda k: k.swapaxes(2, 3)), ALL),
    Fault("flattened-channels-last", "plain", edit_constant(0, 1, channels_last), ALL),
    Fault("channels-permuted", "plain", edit_constant(0, 1, permuted), ALL),
    Fault("kernel-mirrored", "plain", edit_constant(0, 1, lambda k: k[:, :, ::-1, ::-1]), ALL),
    Fault("outputs-permuted", "plain", edit_constant(1, 1, lambda k: k[::-1]), ALL),
    Fault("weight-off-by-0.1-percent", "plain", edit_constant(0, 1, percent(0.1)), ALL),
    Fault("last-weight-off-by-0.1-percent", "plain", edit_constant(1, 1, percent(0.1)), ALL),
    Fault(
        "weight-off-by-1-ulp",
        "plain",
        edit_constant(0, 1, one_element(lambda w: np.nextafter(w, np.float32(9)))),
        {WEIGHTS},
    ),
    Fault("weight-nan", "plain", edit_constant(0, 1, one_element(lambda _: np.nan)), ALL),
    Fault("weight-infinite", "plain", edit_constant(0, 1, one_element(lambda _: np.inf)), ALL),
    Fault(
        "weights-in-float16",
        "plain",
        edit_constant(0, 1, lambda k: k.astype("f2").astype("f4")),
        ALL,
    ),
    Fault("bias-missing", "plain", drop_input(first_fc, 2), ALL),
    Fault("bias-off-by-1-percent", "plain", edit_constant(0, 2, percent(1)), ALL),
    Fault("bias-permuted", "plain", edit_constant(0, 2, lambda b: b[::-1]), ALL),
    Fault("relu-dropped", "plain", bypass(lambda m: last(m, "Relu")), RUNNING),
    Fault("relu-added", "plain", append("Relu"), RUNNING),
    Fault("padding", "plain", attribute(first_fc, pads=[1, 1, 1, 1]), ALL),
    Fault("end-padding", "plain", attribute(first_fc, pads=[0, 0, 0, 1]), ALL),
    Fault("stride-2", "plain", attribute(first_fc, strides=[2, 2]), {FEATURES, IMAGES}),
    Fault("dilation", "plain", attribute(first_fc, dilations=[2, 2], pads=[1] * 4), RUNNING),
    Fault(
        "softmax-over-height", "softmax", attribute(lambda m: last(m, "Softmax"), axis=2), RUNNING
    ),
    Fault("softmax-coerced", "softmax_11", softmax_over_everything, {FEATURES, IMAGES}),
    Fault("softmax-dropped", "softmax", bypass(lambda m: last(m, "Softmax")), RUNNING),
    Fault("saturated-logits", "saturated", nudged_logits, ALL),
    Fault("saturated-logits-renamed", "saturated", nudged_and_renamed, ALL),
    Fault("saturated-sigmoids", "sigmoids", nudged_logits, ALL),
    Fault("alpha-not-folded", "alpha", edit_constant(0, 1, lambda k: k / np.float32(0.3)), ALL),
    Fault("alpha-folded-twice", "alpha", edit_constant(0, 1, lambda k: k * np.float32(0.3)), ALL),
    Fault("alpha-weight-off", "alpha", edit_constant(0, 1, percent(0.1)), ALL),
    Fault("folded-scale-off-by-0.1-percent", "batch_norm", unfold_batch_norm, ALL),
    Fault("outputs-exchanged", "two_heads", swap_names, RUNNING),
    Fault("kernels-exchanged", "two_heads", swap_kernels, ALL),
    Fault("output-missing", "two_heads", drop_output, RUNNING),
    Fault("output-type-changed", "plain", as_double, RUNNING),
    Fault("output-transposed", "plain", append("Transpose", perm=[0, 1, 3, 2]), {FEATURES, IMAGES}),
    Fault("output-flattened", "plain", append("Flatten"), {FEATURES, IMAGES}),
    Fault("trunk-weight-off", "plain", edit_trunk("Conv", 1, percent(0.1)), RUNNING),
    Fault("trunk-stride", "plain", attribute(lambda m: first(m, "Conv"), strides=[2, 2]), ALL),
    Fault("trunk-padding", "plain", attribute(lambda m: first(m, "Conv"), pads=[1] * 4), ALL),
    Fault(
        "trunk-padding-at-the-end",
        "plain",
        attribute(lambda m: first(m, "MaxPool"), pads=[0, 0, 1, 1]),
        {FEATURES, IMAGES},
    ),
    Fault(
        "trunk-padded-by-the-image-size",
        "same_padding",
        attribute(lambda m: first(m, "Conv"), pads=None, auto_pad="SAME_UPPER"),
        {FEATURES},
    ),
    Fault(
        "trunk-ceil-mode",
        "padded",
        attribute(lambda m: first(m, "MaxPool"), ceil_mode=1),
        {FEATURES},
    ),
    Fault("map-averaged", "plain", append("GlobalAveragePool"), {FEATURES, IMAGES}),
    Fault("pooled-kernel-permuted", "globally_pooled", edit_constant(0, 1, permuted), SEEN),
    Fault(
        "pooled-weight-off", "flattened_mean", edit_constant(0, 1, percent(1)), {NATIVE, FEATURES}
    ),
    Fault("mean-over-height", "flattened_mean", drop_mean_axis, {NATIVE, FEATURES}),
    Fault("clip-dropped", "clipped", bypass(lambda m: last(m, "Clip")), RUNNING),
    Fault("second-image-ignored", "two_images", use_one_image, {NATIVE, FEATURES}),
    Fault("batch-fixed", "plain", fix_inputs(1, 2, "H", "W"), {NATIVE, FEATURES, IMAGES}),
    Fault("height-fixed", "plain", fix_inputs("N", 2, 8, "W"), {IMAGES}),
]


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, case_of: Callable[[str], Case]) -> None:
    case = case_of(fault.net)
    fault.plant(case.converted)
    report = case.check()
    print(report.to_markdown())
    assert failed_tiers(report) - {"geometry"} == fault.tiers  # the metadata has stayed as it was
    assert not report
    assert report.to_json()


@pytest.mark.parametrize("net", sorted({fault.net for fault in TABLE}))
def test_without_the_fault_it_passes(net: str, case_of: Callable[[str], Case]) -> None:
    report = case_of(net).check()
    assert report, report.to_markdown()
    assert all(r.elements for r in report.results if r.status != "skipped")


def test_saturated_output_itself_hides_the_error(case_of: Callable[[str], Case]) -> None:
    case = case_of("saturated")
    nudged_logits(case.converted)
    native = {r.subject: r.status for r in case.check().results if r.tier == NATIVE}
    assert native == {"y": "passed", "y before its Softmax": "failed"}
