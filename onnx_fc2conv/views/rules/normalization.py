"""Operators that normalize: BatchNormalization, Softmax, LRN."""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.affine import scaled_view
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps
from onnx_fc2conv.views.maps.groups import Along, along_features
from onnx_fc2conv.views.maps.view import FeatureView, channels_first
from onnx_fc2conv.views.registry import Answer, rule

__all__ = ["batch_normalization", "softmax", "softmax_of"]


@rule("BatchNormalization")
def batch_normalization(ctx: Context) -> FeatureView:
    """Y = (x - mean) / √(var + ε) · scale + B per channel (BatchNormalization-7/9/14/15).

    On features (axis 1 of a flattened tensor) it is a scale and a shift per feature, deferred to
    the next linear layer unless the features are single cells.
    """
    view = ctx.view(0)
    parameters = [ctx.constant_operand(position) for position in range(1, 5)]
    if view is None or any(parameter is None for parameter in parameters):
        ctx.refuse("weight-not-constant", "its parameters are not constants")
    if ctx.int_attribute("spatial", 1) == 0 and len(view.shape) > 2:  # BatchNormalization-7
        why = f"normalizes each position of {list(view.shape)} by itself, so it fits one size only"
        ctx.refuse("positional-constant", why)
    if ctx.int_attribute("training_mode", 0):
        ctx.refuse("training-mode", "is in training mode: export the model for inference")
    if any(output.uses() or output.is_graph_output() for output in ctx.node.outputs[1:]):
        ctx.refuse("training-mode", "its running statistics are used")
    if view.layout is not None and view.whole_map is not None:
        if view.layout != channels_first(len(view.layout)):
            ctx.refuse("layout", "normalizes axis 1, which is not the channel axis here")
        return ctx.kept(view.whole_map)

    if view.batch_axis != 0 or len(view.shape) < 2:
        ctx.refuse("layout", f"normalizes axis 1 of a view of shape {list(view.shape)}")
    source = view.only_map
    if source is None or not source.is_single_cell or source.deferred is not None:
        return _waiting_normalization(ctx, view)
    local = view.local_index(source)
    in_order = np.array_equal(local.reshape(-1), np.arange(source.channels))
    if not in_order or local.shape[0] != source.channels:
        return _waiting_normalization(ctx, view)
    output = ctx.new_map(source)
    inputs = (source, *ctx.node.inputs[1:5])
    carried = tuple(name for name in ctx.node.attributes if name != "spatial")
    ctx.emit("BatchNormalization", inputs, output, carried=carried)
    return view.relabelled(source, output)


def _waiting_normalization(ctx: Context, view: FeatureView) -> FeatureView:
    """The normalization as a deferred scale and shift of every element of the maps."""
    scale, bias, mean, variance = (
        constant.array.astype(np.float64)
        for constant in (ctx.constant_operand(position) for position in range(1, 5))
        if constant is not None
    )
    epsilon = ctx.node.attributes.get_float("epsilon", 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    offset = bias - mean * factor
    shape = view.index.shape
    if factor.shape != shape[:1]:
        ctx.refuse(
            "shape-mismatch", f"has {factor.size} channels for an input of {list(view.shape)}"
        )
    by_channel = (-1, *[1] * (len(shape) - 1))
    return scaled_view(
        ctx,
        view,
        np.broadcast_to(factor.reshape(by_channel), shape),
        np.broadcast_to(offset.reshape(by_channel), shape),
    )


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(ctx: Context) -> Answer:
    """Over features of a window or a position: along the channels of the map.

    From opset 13 the operator works along one axis (default -1); before, over all axes from
    ``axis`` (default 1) on, as one (Softmax-1/11/13).
    """
    coerces = ctx.opset < 13
    symmetric = ctx.node.op_type != "Hardmax"
    along = Along(lambda axis: {"axis": axis}, last=coerces, symmetric=symmetric)
    return softmax_of(ctx, along, coerces=coerces)


def softmax_of(ctx: Context, along: Along, *, coerces: bool) -> Answer:
    """Apply a Softmax over the node's axis; if it ``coerces``, over that and all later axes."""
    view = ctx.first_view()
    axis = ctx.int_attribute("axis", 1 if coerces else -1)
    axes = ctx.feature_axes(view, [axis], "normalizes over", and_later=coerces)
    if axes == (view.channel_axis,):
        return ctx.kept_in_layout(view)
    return along_features(ctx, view, axes, along)


@rule("LRN")
def local_response_normalization(ctx: Context) -> FeatureView:
    """LRN-1/13 normalizes over neighboring channels, cell by cell."""
    (source,) = as_feature_maps(ctx)
    return ctx.kept(source)
