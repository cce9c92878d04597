"""The common parts of all fully connected layers: operand, weight and product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import node_name
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.contraction import Reading, read
from onnx_fc2conv.views.layers.kernel import Kernel, Weight
from onnx_fc2conv.views.maps.labels import SAMPLE, IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import FcLayer

__all__ = ["Layer", "as_fc_layer", "operand_name", "product_view", "read_layer"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Y = contraction of the view's ``axis`` (counted from the end, negative) with W [K, D].

    ``out_axis`` is the output axis of Y, from the end.
    """

    view: FeatureView
    axis: int
    weight: Weight
    out_axis: int = -1


def read_layer(ctx: Context, layer: Layer) -> Reading:
    """Return the elements that the layer reads, and where.

    Raises:
        NodeRefused: If its weight is no matrix, or does not contract the features of each sample.
    """
    weight = layer.weight
    shape = weight.shape
    if shape is None or weight.value.sized:
        ctx.refuse(
            "weight-not-matrix",
            f"its weight has shape {list(weight.value.shape)}; only a constant matrix is a layer",
        )
    _require_features(ctx, layer, shape[1])
    reading = read(ctx, layer.view, len(layer.view.shape) + layer.axis, shape[0])
    if 0 in shape:
        ctx.refuse("weight-not-matrix", "its weight is empty")
    return reading


def _require_features(ctx: Context, layer: Layer, features: int) -> None:
    """Refuse a contraction that is not over each sample's features."""
    view = layer.view
    if len(view.shape) < -layer.axis or view.shape[layer.axis] != features:
        ctx.refuse(
            "shape-mismatch",
            f"multiplies an operand of shape {list(view.shape)} by a weight for {features} "
            "features: at the native input size the model does not compute; check --input-shape",
        )
    batch_axis = view.batch_axis
    if batch_axis == len(view.shape) + layer.axis:
        ctx.refuse("batch-mixing", "contracts the batch axis: it mixes samples")


def as_fc_layer(node: ir.Node, weight: Weight, kernels: Sequence[Kernel]) -> FcLayer:
    """Return the layer for reports, with the largest of its kernels."""
    assert weight.shape is not None
    largest = max(kernels, key=lambda kernel: prod(kernel.constant.shape))
    return FcLayer(
        node=node_name(node),
        op_type=node.op_type,
        weight=weight.name,
        weight_shape=weight.shape,
        kernel=largest.constant.name,
        kernel_shape=largest.constant.shape,
        bytes_kept=largest.bytes_kept,
    )


def operand_name(ctx: Context, position: int) -> str:
    """Return the name of an operand, or of the output where it has none."""
    value = ctx.node.inputs[position] if position < len(ctx.node.inputs) else None
    return (value.name if value is not None else None) or ctx.node.outputs[0].name or "weight"


def product_view(ctx: Context, layer: Layer, reading: Reading, output: FeatureMap) -> FeatureView:
    """Return the product as a view of the new map, with outputs on the contracted axis."""
    view, weight_shape = layer.view, layer.weight.value.shape
    out_axis = layer.out_axis
    assert layer.weight.shape is not None
    outputs = layer.weight.shape[0]
    # A stored [1, …, D, K] gives the product as many leading axes of length 1.
    leading = max(0, len(weight_shape) - max(2, len(view.shape)))
    positions = output.size // output.channels
    batch = view.batch_axis
    # Output 0 of each row; each further output lies one channel (all positions) further.
    first = output.first_label + reading.which * (outputs * positions) + reading.at
    if batch is not None:
        contracted = len(view.shape) + layer.axis
        first = np.expand_dims(first, batch - (contracted < batch))

    def product(labels: IntArray) -> IntArray:
        samples: IntArray = np.moveaxis(labels, layer.axis, 0)[0] // SAMPLE * SAMPLE
        made: IntArray = samples + first
        if len(weight_shape) == 1:
            return made
        further = np.arange(outputs, dtype=np.int64) * positions
        if labels.ndim == 1:
            return made + further
        shape = [1] * labels.ndim
        shape[out_axis] = outputs
        made = np.expand_dims(made, out_axis) + further.reshape(shape)
        return made.reshape((1,) * leading + made.shape)

    return view.moved(product)
