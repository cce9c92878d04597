"""Tiers *weights* and *layers*, layer by layer: each is read once, and given back."""

from __future__ import annotations

import gc

import onnx_ir as ir

from onnx_fc2conv.equivalence.layers import Layers
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.report import TierResult
from onnx_fc2conv.equivalence.single_layers import check_single_layer
from onnx_fc2conv.equivalence.stored import release_weights
from onnx_fc2conv.equivalence.weights import check_other_convs, check_weights

__all__ = ["check_layer_by_layer"]

_LARGE = 1 << 24
"""Bytes of a weight from which it is given back when it has been read."""


def check_layer_by_layer(pair: Pair) -> list[TierResult]:
    """Compare every layer that the converted model names with its Conv, on its own.

    Returns:
        The results of *weights*, then two of single layers for each layer; a single one if the
        converted model names no layers.
    """
    layers = Layers(pair)
    if not layers.found:
        reason = "the converted model does not say which Conv stands for which layer"
        return [TierResult("weights", "all layers", "skipped", reason)]
    weights, alone = check_other_convs(layers), list[TierResult]()
    for layer, convs in layers.together.items():
        weights.append(check_weights(layers, layer, convs))
        _give_back(layers, layer)
        alone += check_single_layer(layers, layer, convs, len(alone))
        _give_back(layers, layer)
    reason = "no Conv of the converted model says that it stands for this layer"
    weights += [TierResult("weights", key, "skipped", reason) for key in layers.silent]
    return weights + alone


def _give_back(layers: Layers, layer: ir.Node) -> None:
    """Hold no copies of a large weight in memory; it is in the files."""
    if layers.size(layer) > _LARGE:
        release_weights(layers.pair.reference)
        release_weights(layers.pair.converted)
        gc.collect()  # a graph is full of cycles, and that of one layer holds some of its weight
