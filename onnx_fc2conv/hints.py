"""Remedies for refusals, by code.

``docs/refusals.md`` shows the same sentences beside the meaning of each code; a test compares them,
and follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from onnx_fc2conv.errors import Refusal

__all__ = ["HINTS", "what_to_do"]

_STATIC = "`--static` leaves it as it is and converts the layers around it, for one image size."

HINTS: Mapping[str, str] = MappingProxyType(
    {
        "attention": _STATIC,
        "baked-size": f"Export that reshape by channels, that resize by `scale_factor`. {_STATIC}",
        "batch-mixing": "Export the model with batch size 1, or with a symbolic batch.",
        "batch-sizes": "Export the model with one batch size, or with a symbolic one.",
        "bias-not-constant": f"Add the bias outside the layer. {_STATIC}",
        "ceil-mode": f"Export with `count_include_pad=0` or without `ceil_mode`. {_STATIC}",
        "constant-features": f"Leave the constants out. {_STATIC}",
        "data-dependent": f"Export with constants. {_STATIC}",
        "dropout-mask": "Export for inference: `model.eval()`.",
        "dynamic-quantization": "Quantize statically "
        "(`onnxruntime.quantization.quantize_static`), convert the model before it is quantized, "
        "or keep its size with `--static`.",
        "flattened-features": "Remove that output or operator; normalize the product of the layer, "
        f"or groups of channels before it. {_STATIC}",
        "function": "Inline them first: "
        "`onnx.inliner.inline_local_functions(model, convert_version=True)`.",
        "invalid-node": "Repair the model: it is damaged.",
        "layout": f"Check the model: does it compute what you think? {_STATIC}",
        "misaligned": f"Give the branches the same strides. {_STATIC}",
        "no-dilation": "Give a larger `--stride`, which leaves that layer alone, or export at a "
        "newer opset.",
        "no-map": "Convert with `--pool window`, without `--reduce`.",
        "no-rule": f"Report it with the operator's name. {_STATIC}",
        "not-a-matrix": "`--input-shape`, or choose other layers with `--layers`.",
        "not-computable": "Fold the model's constants first, or repair it.",
        "nothing-to-convert": "Use the model as it is; for `--stride` or `--detector`, convert the "
        "original. With `fc2conv --pool window` a global pooling is replaced, so that it gives a "
        "map.",
        "old-opset": "Export the model again, or replace the node.",
        "other-domain": f"Export with standard operators, or cut it off. {_STATIC}",
        "other-input": "Give that input the shape [N, D].",
        "pool-indices": f"Export without unpooling. {_STATIC}",
        "position-dependent": "Carry out the operator before that scale or shift, which only a "
        "linear layer can take in.",
        "positional-constant": _STATIC,
        "post-processing": f"Cut it off the model and apply it outside, to the map. {_STATIC}",
        "quantized-form": "Quantize per tensor or per channel.",
        "recurrent": _STATIC,
        "reduced-integers": "Output the scores, or leave out `--reduce`.",
        "reshaped-map": f"Resize the map before it is reshaped. {_STATIC}",
        "several-maps": f"Apply the operator to each of the maps. {_STATIC}",
        "shape-mismatch": "Give the native size: `--input-shape`.",
        "slides-after-fc": _STATIC,
        "subdivided-cells": _STATIC,
        "subgraph": f"Export without control flow. {_STATIC}",
        "tiles-of-whole-image": "Raise `--memory`, or scan smaller images.",
        "token-wise": _STATIC,
        "too-large": "`--form im2col`, fewer `--layers`, a smaller `--input-shape`, or a larger "
        "`--max-bytes`.",
        "training-mode": "Export for inference: `model.eval()`, without the loss.",
        "unsupported-type": "Cast the operand and the weight to floating point; for bfloat16, "
        "export at opset 22 or later.",
        "weight-not-constant": _STATIC,
        "weight-not-matrix": f"Write a layer for each of the matrices. {_STATIC}",
        "window-pooling": "Leave out `--pool window`.",
    }
)
"""A sentence or two for each code, with options and Python in backquotes."""


def what_to_do(refusals: Iterable[Refusal]) -> list[str]:
    """Return a line of advice for each code among the refusals."""
    codes = dict.fromkeys(refusal.code for refusal in refusals)
    return [f"what to do [{code}]: {HINTS[code]}" for code in codes]
