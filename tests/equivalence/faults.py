"""The faults that the check is held to, each with the tiers that find it.

``docs/faults.md`` is made of this table by ``tools/fault_page.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnx_fc2conv.geometry import Geometry
from tests.equivalence.planting import (
    Plant,
    append,
    as_double,
    attribute,
    bypass,
    channels_last,
    drop_input,
    drop_mean_axis,
    drop_output,
    edit_constant,
    edit_trunk,
    exchanged,
    first,
    first_fc,
    fix_inputs,
    fold_windows_into_the_batch,
    instead,
    last,
    nothing,
    nudged_and_renamed,
    nudged_logits,
    one_element,
    percent,
    permuted,
    softmax_over_everything,
    swap_kernels,
    swap_names,
    ulp,
    unfold_batch_norm,
    use_one_image,
)

TIERS = {
    "I": "integers",
    "N": "native",
    "F": "feature windows",
    "C": "image windows",
    "L": "larger sizes",
}
"""The tiers by a letter each; C for the crops of the image."""

NATIVE = TIERS["N"]

Claim = Callable[[Geometry], Geometry]


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


def claims(**values: object) -> Claim:
    return lambda meaning: replace(meaning, **values)  # type: ignore[arg-type]


TABLE = [
    Fault("height-width-swapped", "plain", edit_constant(0, 1, lambda k: k.swapaxes(2, 3)), "INFC"),
    Fault("flattened-channels-last", "plain", edit_constant(0, 1, channels_last), "INFC"),
    Fault("channels-permuted", "plain", edit_constant(0, 1, permuted), "INFC"),
    Fault("kernel-mirrored", "plain", edit_constant(0, 1, lambda k: k[:, :, ::-1, ::-1]), "INFC"),
    Fault("outputs-permuted", "plain", edit_constant(1, 1, lambda k: k[::-1]), "INFC"),
    Fault("weight-off-by-0.1-percent", "plain", edit_constant(0, 1, percent(0.1)), "INFC"),
    Fault("last-weight-off-by-0.1-percent", "plain", edit_constant(1, 1, percent(0.1)), "INFC"),
    Fault(
        "weight-off-by-1-ulp",
        "plain",
        edit_constant(0, 1, one_element(lambda w: np.nextafter(w, np.float32(9)))),
        "I",
    ),
    Fault("weight-nan", "plain", edit_constant(0, 1, one_element(lambda _: np.nan)), "INFC"),
    Fault("weight-infinite", "plain", edit_constant(0, 1, one_element(lambda _: np.inf)), "INFC"),
    Fault(
        "weights-in-float16",
        "plain",
        edit_constant(0, 1, lambda k: k.astype("f2").astype("f4")),
        "INFC",
    ),
    Fault("bias-missing", "plain", drop_input(first_fc, 2), "INFC"),
    Fault("bias-off-by-1-percent", "plain", edit_constant(0, 2, percent(1)), "INFC"),
    Fault("bias-permuted", "plain", edit_constant(0, 2, lambda b: b[::-1]), "INFC"),
    Fault("relu-dropped", "plain", bypass(lambda m: last(m, "Relu")), "INFC"),
    Fault("relu-added", "plain", append("Relu"), "INFC"),
    Fault("padding", "plain", attribute(first_fc, pads=[1, 1, 1, 1]), "INFC"),
    Fault("end-padding", "plain", attribute(first_fc, pads=[0, 0, 0, 1]), "INFC"),
    Fault("stride-2", "plain", attribute(first_fc, strides=[2, 2]), "IFC"),
    Fault("dilation", "plain", attribute(first_fc, dilations=[2, 2], pads=[1] * 4), "INFC"),
    Fault(
        "softmax-over-height", "softmax", attribute(lambda m: last(m, "Softmax"), axis=2), "INFC"
    ),
    Fault("softmax-coerced", "softmax_11", softmax_over_everything, "IFC"),
    Fault("softmax-dropped", "softmax", bypass(lambda m: last(m, "Softmax")), "INFC"),
    Fault("saturated-logits", "saturated", nudged_logits, "I"),
    Fault("saturated-logits-renamed", "saturated", nudged_and_renamed, "I"),
    Fault("saturated-sigmoids", "sigmoids", nudged_logits, "I"),
    Fault("alpha-not-folded", "alpha", edit_constant(0, 1, lambda k: k / np.float32(0.3)), "INFC"),
    Fault(
        "alpha-folded-twice", "alpha", edit_constant(0, 1, lambda k: k * np.float32(0.3)), "INFC"
    ),
    Fault("alpha-weight-off", "alpha", edit_constant(0, 1, percent(0.1)), "INFC"),
    Fault("folded-scale-off-by-0.1-percent", "batch_norm", unfold_batch_norm, "INFC"),
    Fault("outputs-exchanged", "two_heads", swap_names, "INFC"),
    Fault("kernels-exchanged", "two_heads", swap_kernels, "INFC"),
    Fault("output-missing", "two_heads", drop_output, "INFC"),
    Fault("output-type-changed", "plain", as_double, "INFC"),
    Fault("output-transposed", "plain", append("Transpose", perm=[0, 1, 3, 2]), "IFC"),
    Fault("output-flattened", "plain", append("Flatten"), "IFC"),
    Fault("trunk-weight-off", "plain", edit_trunk("Conv", 1, percent(0.1)), "INFC"),
    Fault("trunk-stride", "plain", attribute(lambda m: first(m, "Conv"), strides=[2, 2]), "NFC"),
    Fault("trunk-padding", "plain", attribute(lambda m: first(m, "Conv"), pads=[1] * 4), "INFC"),
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
        "IFC",
    ),
    Fault(
        "trunk-ceil-mode",
        "padded",
        attribute(lambda m: first(m, "MaxPool"), ceil_mode=1),
        "IFC",
    ),
    Fault("map-averaged", "plain", append("GlobalAveragePool"), "IFC"),
    Fault("pooled-kernel-permuted", "globally_pooled", edit_constant(0, 1, permuted), "INL"),
    Fault("pooled-weight-off", "flattened_mean", edit_constant(0, 1, percent(1)), "INL"),
    Fault("mean-over-height", "flattened_mean", drop_mean_axis, "INL"),
    Fault("clip-dropped", "clipped", bypass(lambda m: last(m, "Clip")), "INFC"),
    Fault("second-image-ignored", "two_images", use_one_image, "INF"),
    Fault("second-embedding-off", "two_embeddings", edit_constant(1, 1, percent(0.1)), "INF"),
    Fault("second-bias-off", "two_embeddings", edit_constant(1, 2, percent(1)), "INF"),
    Fault("batch-fixed", "plain", fix_inputs(1, 2, "H", ""), "NFC"),
    Fault("height-fixed", "plain", fix_inputs("N", 2, 8, ""), "IC"),
    Fault("weight-off-by-1-ulp-below", "plain", edit_constant(0, 1, ulp(-9)), "I"),
    Fault("bias-off-by-1-ulp", "plain", edit_constant(0, 2, ulp(9)), "I"),
    Fault(
        "bias-in-float16",
        "plain",
        edit_constant(0, 2, lambda b: b.astype("f2").astype("f4")),
        "INFC",
    ),
    Fault("kernel-negated", "plain", edit_constant(0, 1, lambda k: -k), "INFC"),
    Fault("kernel-zero", "plain", edit_constant(1, 1, lambda k: k * 0), "INFC"),
    Fault(
        "kernel-shifted-by-one-cell",
        "plain",
        edit_constant(0, 1, lambda k: np.roll(k, 1, 3)),
        "INFC",
    ),
    Fault("two-weights-exchanged", "plain", edit_constant(0, 1, exchanged), "IN"),
    Fault("behind-a-dead-relu", "dead", edit_constant(0, 1, percent(0.1)), "I"),
    Fault("behind-a-dead-relu-the-next-layer", "dead", edit_constant(1, 1, permuted), "NFC"),
    Fault("beta-ignored", "beta", edit_constant(0, 2, lambda b: b * 2), "INFC"),
    Fault("beta-twice", "beta", edit_constant(0, 2, lambda b: b / 2), "INFC"),
    Fault(
        "epsilon-of-the-trunk",
        "normalized_trunk",
        attribute(lambda m: first(m, "BatchNormalization"), epsilon=1e-5),
        "INFC",
    ),
    Fault(
        "slope-of-the-trunk",
        "averaged",
        attribute(lambda m: first(m, "LeakyRelu"), alpha=0.26),
        "INFC",
    ),
    Fault("largest-instead-of-average", "averaged", instead("AveragePool", "MaxPool"), "INFC"),
    Fault("average-instead-of-largest", "plain", instead("MaxPool", "AveragePool"), "INFC"),
    Fault(
        "pads-shifted",
        "same_padding",
        attribute(lambda m: first(m, "Conv"), pads=[1, 1, 0, 0]),
        "INF",
    ),
    Fault(
        "rounding-up-dropped",
        "rounded_up",
        attribute(lambda m: first(m, "MaxPool"), pads=[0] * 4),
        "NFC",
    ),
    Fault(
        "sigmoid-instead-of-softmax", "softmax", instead("Softmax", "Sigmoid", axis=None), "INFC"
    ),
    Fault("log-of-the-softmax", "softmax", instead("Softmax", "LogSoftmax"), "INFC"),
    Fault("saturated-groups", "grouped", nudged_logits, "I"),
    Fault("windows-in-the-batch", "plain", fold_windows_into_the_batch, "NFC"),
    Fault("stride-claimed", "plain", nothing, "IFC", claims(stride=(2, 3))),
    Fault("window-claimed", "plain", nothing, "IFC", claims(window=(8, 9))),
    Fault("offset-claimed", "plain", nothing, "IC", claims(offset=(1, 0))),
    Fault("exact-windows-claimed", "padded", nothing, "IC", claims(verdict="windows exact")),
]
