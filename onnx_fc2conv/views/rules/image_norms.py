"""Operators that normalize over the whole image: every cell depends on all of it.

InstanceNormalization of each channel, GroupNormalization of groups of channels (Wu & He 2018), also
as exporters write it:

    Reshape [0, G, -1]  →  InstanceNormalization  →  Reshape back, to a size that is a constant

The groups are whole channels in order; the emitted nodes fit any size. Where a norm is written as
a sum, a difference and so on, the mean of each group is one cell for the whole image.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.rows import rows_along, sample_axes
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps, single_map
from onnx_fc2conv.views.maps.channels import materialized_channels
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.groups import reduced_view
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.registry import rule
from onnx_fc2conv.views.rules.pooling import pooled_map, reduced

__all__ = ["group_means", "instance_normalization", "whole_image_normalization"]


@rule("InstanceNormalization")
def instance_normalization(ctx: Context) -> FeatureView:
    """InstanceNormalization-1/6/22: over axes 2 and up, of channels or of groups of them."""
    view = ctx.view(0)
    if view is None or any(ctx.constant_operand(position) is None for position in (1, 2)):
        ctx.refuse("weight-not-constant", "its parameters are not constants")
    if view.layout is not None:
        return whole_image_normalization(ctx)
    if view.batch_axis != 0 or len(view.shape) < 3:
        ctx.refuse("layout", f"normalizes axis 1 of a view of shape {list(view.shape)}")
    source = _channels_in_groups(ctx, view)
    grouped, normal = (
        ctx.tensor(f"{ctx.name}.{part}", source.dtype) for part in ("groups", "normalized")
    )
    size = ctx.tensor(f"{ctx.name}.shape", ir.DataType.INT64)
    made = ctx.new_map(source, mixes_positions=describe(ctx.node))
    shape = ctx.integers(f"{ctx.name}.groups", [0, view.shape[1], -1])
    parameters, carried = ctx.node.inputs[1:3], tuple(ctx.node.attributes)
    ctx.emit("Reshape", (source, shape), grouped)
    ctx.emit("InstanceNormalization", (grouped, *parameters), normal, carried=carried)
    ctx.emit("Shape", (source,), size)
    return view.row_major_of(ctx.emit("Reshape", (normal, size), made))


def _channels_in_groups(ctx: Context, view: FeatureView) -> FeatureMap:
    """Return the map whose whole channels axis 1 of the view holds in consecutive groups."""
    source, local = single_map(ctx, view)
    ctx.require_several_cells(source, "normalizes")
    channels = _whole_channels(source, local.reshape(view.shape[1], -1))
    if channels is None:
        why = f"normalizes groups of elements of {source} that are not whole channels"
        ctx.refuse("flattened-features", why)
    return materialized_channels(ctx, source, channels)


def _whole_channels(source: FeatureMap, lists: IntArray) -> IntArray | None:
    """Return the channels that these lists [G, D] hold whole and in order, None if they do not."""
    positions = source.size // source.channels
    if lists.shape[1] % positions:
        return None
    elements = lists.reshape(-1, positions)
    channels: IntArray = elements[:, 0] // positions
    whole = (elements == channels[:, None] * positions + np.arange(positions)).all()
    return channels if whole else None


def group_means(ctx: Context, view: FeatureView, axes: tuple[int, ...]) -> FeatureView | None:
    """Apply a ReduceMean of groups of whole channels over the whole image; None if it is another.

    A single list of all features is not a group: it lies in one window.
    """
    start = len(ctx.tape)
    source, local = single_map(ctx, view)
    rows = np.sort(rows_along(local, sample_axes(view, axes)), axis=-1)
    groups = rows.reshape(-1, rows.shape[-1])
    fits = not source.is_single_cell and rows.ndim > 1 and source.scales_by_channel
    channels = _whole_channels(source, groups) if fits else None
    if channels is None:
        ctx.tape.rewind(start)
        return None
    if ctx.windowed:
        why = "no pooling operator takes the mean of several channels in a window"
        ctx.refuse("window-pooling", why)
    source = materialized_channels(ctx, source, channels)
    rank = len(source.extent)
    made = pooled_map(ctx, source, tuple(range(rank)), channels=len(groups))
    grouped = ctx.tensor(f"{made.name}.groups", source.dtype)
    shape = ctx.integers(f"{made.name}.groups", [0, len(groups), -1, *[1] * (rank - 1)])
    ctx.emit("Reshape", (source, shape), grouped)
    reduced(ctx, grouped, made, (2,))
    which = np.arange(len(groups)).reshape(rows.shape[:-1])
    keepdims = bool(ctx.int_attribute("keepdims", 1))
    return reduced_view(view, axes, made.first_label + which, keepdims=keepdims)


@rule("GroupNormalization")
def whole_image_normalization(ctx: Context) -> FeatureView:
    """GroupNormalization-18/21: each group of channels over all positions."""
    if any(not isinstance(fact, Constant) for fact in ctx.operands[1:] if fact is not None):
        ctx.refuse("weight-not-constant", "its parameters are not constants")
    (source,) = as_feature_maps(ctx)
    ctx.require_several_cells(source, "normalizes")
    return ctx.kept(source, mixes_positions=describe(ctx.node))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(ctx: Context) -> FeatureView:
    """MeanVarianceNormalization-9/13, over axes [0, 2, 3] by default: over the samples too."""
    axes = ctx.ints_attribute("axes") or (0, 2, 3)
    view = ctx.first_view()
    if view.batch_axis in {axis % len(view.shape) for axis in axes}:
        ctx.refuse("batch-mixing", f"normalizes over axes {list(axes)}, the samples too")
    return whole_image_normalization(ctx)
