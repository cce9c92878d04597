"""The faults that the check is held to, each with the tiers that find it.

``docs/faults.md`` is made of this table by ``tools/fault_page.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import OutputGeometry
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

TIERS = {
    "W": "weights",
    "L": "layers",
    "I": "integers",
    "N": "native",
    "E": "native (reference evaluator)",
    "F": "feature windows",
    "C": "image windows",
}
"""The tiers by a letter each; C for the crops of the image, E for the evaluator."""

NATIVE = TIERS["N"]

Claim = Callable[[OutputGeometry], OutputGeometry]


@dataclass(frozen=True)
class Fault:
    """A fault, the net that it is planted into, and the tiers that must find it and no others.

    Attributes:
        name: Its name in the table.
        net: One of `NETS`.
        plant: Changes the converted model.
        tiers: The letters of the tiers that find it.
        claim: Changes what the conversion says of its outputs.
    """

    name: str
    net: str
    plant: Plant
    tiers: str
    claim: Claim | None = None

    @property
    def found_by(self) -> set[str]:
        """The names of the tiers that find it."""
        return {TIERS[letter] for letter in self.tiers}


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


def rename_output(model: ir.Model) -> None:
    model.graph.outputs[0].name = "renamed"


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


def keep_input_too(model: ir.Model) -> None:
    """Give out the map before the first layer as well."""
    value = first_fc(model).inputs[0]
    assert value is not None
    model.graph.outputs.append(value)


def fold_windows_into_the_batch(model: ir.Model) -> None:
    """Reshape to [-1, D, 1, 1] and a 1×1 kernel: the windows of a larger image become samples."""
    conv = first_fc(model)
    kernel, source = constant_of(conv, 1), conv.inputs[0]
    flat = ir.node("Reshape", [source, None])
    model.graph.insert_before(conv, flat)
    replace_constant(flat, 1, np.array([-1, kernel[0].size, 1, 1]))
    conv.replace_input_with(0, flat.outputs[0])
    replace_constant(conv, 1, kernel.reshape(len(kernel), -1, 1, 1))


def instead(op_type: str, other: str, **attributes: object) -> Plant:
    """Another operator in the place of the last one of a type."""

    def plant(model: ir.Model) -> None:
        node = last(model, op_type)
        node.op_type = other
        attribute(lambda _: node, **attributes)(model)

    return plant


def claims(**values: object) -> Claim:
    return lambda meaning: replace(meaning, **values)  # type: ignore[arg-type]


def nothing(_: ir.Model) -> None:
    """Leave the model as it is."""


def ulp(towards: float) -> Callable[[Array], Array]:
    return one_element(lambda w: np.nextafter(w, np.float32(towards)))


def permuted(kernel: Array) -> Array:
    return kernel[:, [1, 2, 0]]


def exchanged(kernel: Array) -> Array:
    """The first and the last weight of the first output change places."""
    kernel[0, [0, -1], [0, -1], [0, -1]] = kernel[0, [-1, 0], [-1, 0], [-1, 0]]
    return kernel


def percent(amount: float) -> Callable[[Array], Array]:
    return one_element(lambda weight: weight * np.float32(1 + amount / 100))


TABLE = [
    Fault(
        "height-width-swapped", "plain", edit_constant(0, 1, lambda k: k.swapaxes(2, 3)), "WLINEFC"
    ),
    Fault("flattened-channels-last", "plain", edit_constant(0, 1, channels_last), "WLINEFC"),
    Fault("channels-permuted", "plain", edit_constant(0, 1, permuted), "WLINEFC"),
    Fault(
        "kernel-mirrored", "plain", edit_constant(0, 1, lambda k: k[:, :, ::-1, ::-1]), "WLINEFC"
    ),
    Fault("outputs-permuted", "plain", edit_constant(1, 1, lambda k: k[::-1]), "WLINEFC"),
    Fault("weight-off-by-0.1-percent", "plain", edit_constant(0, 1, percent(0.1)), "WLINFC"),
    Fault("last-weight-off-by-0.1-percent", "plain", edit_constant(1, 1, percent(0.1)), "WLINFC"),
    Fault(
        "weight-off-by-1-ulp",
        "plain",
        edit_constant(0, 1, one_element(lambda w: np.nextafter(w, np.float32(9)))),
        "WI",
    ),
    Fault("weight-nan", "plain", edit_constant(0, 1, one_element(lambda _: np.nan)), "WLINEFC"),
    Fault(
        "weight-infinite", "plain", edit_constant(0, 1, one_element(lambda _: np.inf)), "WLINEFC"
    ),
    Fault(
        "weights-in-float16",
        "plain",
        edit_constant(0, 1, lambda k: k.astype("f2").astype("f4")),
        "WLINEFC",
    ),
    Fault("bias-missing", "plain", drop_input(first_fc, 2), "WINEFC"),
    Fault("bias-off-by-1-percent", "plain", edit_constant(0, 2, percent(1)), "WNFC"),
    Fault("bias-permuted", "plain", edit_constant(0, 2, lambda b: b[::-1]), "WINEFC"),
    Fault("relu-dropped", "plain", bypass(lambda m: last(m, "Relu")), "INEFC"),
    Fault("relu-added", "plain", append("Relu"), "INEFC"),
    Fault("padding", "plain", attribute(first_fc, pads=[1, 1, 1, 1]), "WLINEFC"),
    Fault("end-padding", "plain", attribute(first_fc, pads=[0, 0, 0, 1]), "WLINEFC"),
    Fault("stride-2", "plain", attribute(first_fc, strides=[2, 2]), "IFC"),
    Fault("dilation", "plain", attribute(first_fc, dilations=[2, 2], pads=[1] * 4), "LINEFC"),
    Fault(
        "softmax-over-height", "softmax", attribute(lambda m: last(m, "Softmax"), axis=2), "NEFC"
    ),
    Fault("softmax-coerced", "softmax_11", softmax_over_everything, "EFC"),
    Fault("softmax-dropped", "softmax", bypass(lambda m: last(m, "Softmax")), "NEFC"),
    Fault("saturated-logits", "saturated", nudged_logits, "WLINEFC"),
    Fault("saturated-logits-renamed", "saturated", nudged_and_renamed, "WLINEFC"),
    Fault("saturated-sigmoids", "sigmoids", nudged_logits, "WLINEFC"),
    Fault(
        "alpha-not-folded", "alpha", edit_constant(0, 1, lambda k: k / np.float32(0.3)), "WLNEFC"
    ),
    Fault(
        "alpha-folded-twice", "alpha", edit_constant(0, 1, lambda k: k * np.float32(0.3)), "WLNEFC"
    ),
    Fault("alpha-weight-off", "alpha", edit_constant(0, 1, percent(0.1)), "WLNFC"),
    Fault("folded-scale-off-by-0.1-percent", "batch_norm", unfold_batch_norm, "WLNFC"),
    Fault("outputs-exchanged", "two_heads", swap_names, "INEFC"),
    Fault("kernels-exchanged", "two_heads", swap_kernels, "WLINEFC"),
    Fault("output-missing", "two_heads", drop_output, "NFC"),
    Fault("output-renamed", "plain", rename_output, "NFC"),
    Fault("output-type-changed", "plain", as_double, "INEFC"),
    Fault("output-transposed", "plain", append("Transpose", perm=[0, 1, 3, 2]), "IFC"),
    Fault("output-flattened", "plain", append("Flatten"), "IFC"),
    Fault("trunk-weight-off", "plain", edit_trunk("Conv", 1, percent(0.1)), "NEFC"),
    Fault("trunk-stride", "plain", attribute(lambda m: first(m, "Conv"), strides=[2, 2]), "WLINFC"),
    Fault("trunk-padding", "plain", attribute(lambda m: first(m, "Conv"), pads=[1] * 4), "WLINEFC"),
    Fault(
        "trunk-padding-at-the-end",
        "plain",
        attribute(lambda m: first(m, "MaxPool"), pads=[0, 0, 1, 1]),
        "IFC",
    ),
    Fault(
        "trunk-padded-by-the-image-size",
        "same_padding",
        attribute(lambda m: first(m, "Conv"), pads=None, auto_pad="SAME_UPPER"),
        "IF",
    ),
    Fault(
        "trunk-ceil-mode",
        "padded",
        attribute(lambda m: first(m, "MaxPool"), ceil_mode=1),
        "IF",
    ),
    Fault("map-averaged", "plain", append("GlobalAveragePool"), "FC"),
    Fault("pooled-kernel-permuted", "globally_pooled", edit_constant(0, 1, permuted), "WLINEF"),
    Fault("pooled-weight-off", "flattened_mean", edit_constant(0, 1, percent(1)), "NEF"),
    Fault("mean-over-height", "flattened_mean", drop_mean_axis, "NEF"),
    Fault("clip-dropped", "clipped", bypass(lambda m: last(m, "Clip")), "INEFC"),
    Fault("second-image-ignored", "two_images", use_one_image, "INEF"),
    Fault("batch-fixed", "plain", fix_inputs(1, 2, "H", "W"), "INFC"),
    Fault("height-fixed", "plain", fix_inputs("N", 2, 8, "W"), "IC"),
    Fault("weight-off-by-1-ulp-below", "plain", edit_constant(0, 1, ulp(-9)), "WI"),
    Fault("bias-off-by-1-ulp", "plain", edit_constant(0, 2, ulp(9)), "W"),
    Fault(
        "bias-in-float16",
        "plain",
        edit_constant(0, 2, lambda b: b.astype("f2").astype("f4")),
        "WNEFC",
    ),
    Fault("kernel-negated", "plain", edit_constant(0, 1, lambda k: -k), "WLINEFC"),
    Fault("kernel-zero", "plain", edit_constant(1, 1, lambda k: k * 0), "WLINEFC"),
    Fault(
        "kernel-shifted-by-one-cell",
        "plain",
        edit_constant(0, 1, lambda k: np.roll(k, 1, 3)),
        "WLINEFC",
    ),
    Fault("two-weights-exchanged", "plain", edit_constant(0, 1, exchanged), "WLIN"),
    Fault("behind-a-dead-relu", "dead", edit_constant(0, 1, percent(0.1)), "WLI"),
    Fault("behind-a-dead-relu-the-next-layer", "dead", edit_constant(1, 1, permuted), "WLINFC"),
    Fault("beta-ignored", "beta", edit_constant(0, 2, lambda b: b * 2), "WNEFC"),
    Fault("beta-twice", "beta", edit_constant(0, 2, lambda b: b / 2), "WNEFC"),
    Fault(
        "epsilon-of-the-trunk",
        "normalized_trunk",
        attribute(lambda m: first(m, "BatchNormalization"), epsilon=1e-5),
        "NFC",
    ),
    Fault(
        "slope-of-the-trunk",
        "averaged",
        attribute(lambda m: first(m, "LeakyRelu"), alpha=0.26),
        "NEFC",
    ),
    Fault("largest-instead-of-average", "averaged", instead("AveragePool", "MaxPool"), "NEFC"),
    Fault("average-instead-of-largest", "plain", instead("MaxPool", "AveragePool"), "INEFC"),
    Fault(
        "pads-shifted",
        "same_padding",
        attribute(lambda m: first(m, "Conv"), pads=[1, 1, 0, 0]),
        "INEF",
    ),
    Fault(
        "rounding-up-dropped",
        "rounded_up",
        attribute(lambda m: first(m, "MaxPool"), pads=[0] * 4),
        "WLINEFC",
    ),
    Fault(
        "sigmoid-instead-of-softmax", "softmax", instead("Softmax", "Sigmoid", axis=None), "NEFC"
    ),
    Fault("log-of-the-softmax", "softmax", instead("Softmax", "LogSoftmax"), "NEFC"),
    Fault("saturated-groups", "grouped", nudged_logits, "WLINEFC"),
    Fault("output-too-many", "plain", keep_input_too, "N"),
    Fault("windows-in-the-batch", "plain", fold_windows_into_the_batch, "WLINFC"),
    Fault("stride-claimed", "plain", nothing, "IC", claims(stride=(2, 3))),
    Fault("window-claimed", "plain", nothing, "C", claims(window=(8, 9))),
    Fault("offset-claimed", "plain", nothing, "C", claims(offset=(1, 0))),
    Fault("exact-windows-claimed", "padded", nothing, "IC", claims(windows_exact=True)),
]
