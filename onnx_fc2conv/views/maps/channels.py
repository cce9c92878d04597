"""Maps from the channels of another: a selection of them, or all scaled and shifted."""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import Affine, FeatureMap

__all__ = ["materialized", "materialized_channels", "picked_channels"]


def picked_channels(ctx: Context, source: FeatureMap, channels: IntArray) -> FeatureMap:
    """The map with these channels of another, in this order; what is deferred stays so."""
    if channels.size == source.channels and bool((channels == np.arange(channels.size)).all()):
        return source
    name = ctx.fresh(f"{ctx.name}.channels")
    base = source.base or source
    picked = ctx.new_map(base, name=name, channels=channels.size)
    indices = ctx.constant(f"{name}.indices", channels.astype(np.int64))
    ctx.emit("Gather", (base, indices), picked, {"axis": 1})
    if source.deferred is None:
        return picked
    deferred = Affine(source.deferred.scale[channels], source.deferred.shift[channels])
    return ctx.new_map(picked, name=name, deferred=deferred, base=picked)


def materialized_channels(ctx: Context, source: FeatureMap, channels: IntArray) -> FeatureMap:
    """The map with these channels of another, in order, with its deferred affine carried out."""
    return picked_channels(ctx, materialized(ctx, source), channels)


def materialized(ctx: Context, feature_map: FeatureMap) -> FeatureMap:
    """The map with its deferred scale and shift carried out, one value per channel.

    Raises:
        NodeRefused: If they differ from position to position.
    """
    if feature_map.deferred is None or feature_map.base is None:
        return feature_map
    if not feature_map.scales_by_channel:
        ctx.refuse(
            "position-dependent",
            f"follows a scale or shift that differs from position to position of "
            f"{feature_map.name}; only a linear layer can take that in",
        )
    dtype = feature_map.dtype.numpy()
    shape = (feature_map.channels, *[1] * len(feature_map.extent))
    scale, shift = (
        array.reshape(feature_map.channels, -1)[:, 0].astype(dtype).reshape(shape)
        for array in (feature_map.deferred.scale, feature_map.deferred.shift)
    )
    scaled = ctx.new_map(feature_map.base, name=ctx.fresh(f"{feature_map.name}.scaled"))
    shifted = ctx.new_map(scaled, name=ctx.fresh(f"{feature_map.name}.shifted"))
    by = ctx.constant(f"{shifted.name}.scale", scale)
    to = ctx.constant(f"{shifted.name}.shift", shift)
    ctx.emit("Mul", (feature_map.base, by), scaled)
    return ctx.emit("Add", (scaled, to), shifted)
