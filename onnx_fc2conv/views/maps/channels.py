"""Maps from the channels of another: a selection of them, or all scaled and shifted."""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import Affine, FeatureMap

__all__ = ["picked_channels", "settled", "settled_channels"]


def picked_channels(ctx: Context, source: FeatureMap, channels: IntArray) -> FeatureMap:
    """Return a map of these channels in this order; a pending scale stays pending."""
    if channels.size == source.channels and bool((channels == np.arange(channels.size)).all()):
        return source
    name = ctx.fresh(f"{ctx.name}.channels")
    base = source.base or source
    picked = ctx.new_map(base, name=name, channels=channels.size)
    indices = ctx.constant(f"{name}.indices", channels.astype(np.int64))
    ctx.emit("Gather", (base, indices), picked, {"axis": 1})
    if source.pending is None:
        return picked
    waits = Affine(source.pending.scale[channels], source.pending.shift[channels])
    return ctx.new_map(picked, name=name, pending=waits, base=picked)


def settled_channels(ctx: Context, source: FeatureMap, channels: IntArray) -> FeatureMap:
    """Return a map of these channels in this order, with its pending scale applied."""
    return picked_channels(ctx, settled(ctx, source), channels)


def settled(ctx: Context, feature_map: FeatureMap) -> FeatureMap:
    """Return the map with its pending scale and shift applied, one value per channel."""
    if feature_map.pending is None or feature_map.base is None:
        return feature_map
    assert feature_map.scales_by_channel
    dtype = feature_map.dtype.numpy()
    shape = (feature_map.channels, *[1] * len(feature_map.extent))
    scale, shift = (
        array.reshape(feature_map.channels, -1)[:, 0].astype(dtype).reshape(shape)
        for array in (feature_map.pending.scale, feature_map.pending.shift)
    )
    scaled = ctx.new_map(feature_map.base, name=ctx.fresh(f"{feature_map.name}.scaled"))
    shifted = ctx.new_map(scaled, name=ctx.fresh(f"{feature_map.name}.shifted"))
    by = ctx.constant(f"{shifted.name}.scale", scale)
    to = ctx.constant(f"{shifted.name}.shift", shift)
    ctx.emit("Mul", (feature_map.base, by), scaled)
    return ctx.emit("Add", (scaled, to), shifted)
