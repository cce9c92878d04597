"""Writing a view as one map again, where some operator needs a map."""

from __future__ import annotations

from itertools import groupby
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.blocks import regridded
from onnx_fc2conv.views.maps.channels import materialized, materialized_channels, picked_channels
from onnx_fc2conv.views.maps.grids import joined_field, parting
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import Affine, FeatureMap, FeatureView, channels_first
from onnx_fc2conv.views.tape import Materialized

__all__ = [
    "as_feature_map",
    "as_feature_maps",
    "channels_as_map",
    "single_map",
]

_MAX_PADS = 8
"""Most Pad nodes for constants among the features; each copies the map."""


def single_map(ctx: Context, view: FeatureView) -> tuple[FeatureMap, IntArray]:
    """Return the one map that the view draws on (cells of several are concatenated first).

    Returns:
        The map, and the view's index into its row-major elements.

    Raises:
        NodeRefused: If there is none, or maps differ in size or grid.
    """
    if not view.maps:
        ctx.refuse(
            "shape-mismatch", "its input has no elements at the native size; check --input-shape"
        )
    if len(view.maps) == 1:
        return view.maps[0], view.local_index(view.maps[0])
    maps = tuple(sorted(view.maps, key=lambda m: m.constant is not None))
    together = _concatenated(ctx, maps)
    starts = {m.first_label: s for m, s in zip(maps, _starts(maps), strict=True)}
    index = view.index.copy()
    for feature_map in maps:
        first = feature_map.first_label
        inside = (view.index >= first) & (view.index < first + feature_map.size)
        index[inside] += starts[first] - first
    return together, index


def channels_as_map(ctx: Context, view: FeatureView) -> FeatureMap:
    """Return a map of single cells whose channels are the view's elements, row-major.

    Raises:
        NodeRefused: If the view shows more than single cells of a map.
    """
    source, local = single_map(ctx, view)
    if not source.is_single_cell:
        ctx.refuse(
            "flattened-features",
            f"its input holds all {list(source.per_sample_shape)} elements of feature map "
            f"{source.name} at once, which no cell of a larger map can hold",
        )
    return materialized_channels(ctx, source, local.reshape(-1))


def as_feature_map(ctx: Context, view: FeatureView) -> FeatureMap:
    """The map [N, C, *spatial] that the view is, its channels shuffled, split or joined.

    Raises:
        NodeRefused: Unless the view has every position of each of its channels, in order, or whole
            blocks of positions turned into channels, or back.
    """
    whole = view.whole_map
    if whole is not None and view.layout is not None:
        if view.layout != channels_first(len(view.layout)):
            ctx.refuse("layout", "takes axis 1 for the channels, which it is not here")
        return whole
    if len(view.shape) < 3 or view.batch_axis != 0 or len({m.extent for m in view.maps}) != 1:
        _refuse_baked(ctx, view)
    source, local = single_map(ctx, view)
    made = _gathered(ctx, source.base or source, local)
    if made is None:
        _refuse_baked(ctx, view)
    if source.deferred is None:
        return made
    deferred = Affine(
        *(a.reshape(-1)[local] for a in (source.deferred.scale, source.deferred.shift))
    )
    made = ctx.new_map(made, name=ctx.fresh(made.name), deferred=deferred, base=made)
    if not made.scales_by_channel:
        ctx.refuse(
            "positional-constant",
            f"reads {source.name} {list(source.extent)} after a scale or shift that differs from "
            "position to position; only a layer of a whole window can take that in",
        )
    return materialized(ctx, made)


def _refuse_baked(ctx: Context, view: FeatureView) -> NoReturn:
    ctx.refuse(
        "baked-size",
        f"works on a reshaped feature map {list(view.shape)}, whose size is written into the model",
    )


def _gathered(ctx: Context, source: FeatureMap, local: IntArray) -> FeatureMap | None:
    """Return the map [C', *extent] of these elements of a map; None if their positions differ."""
    if local.shape[1:] != source.extent:
        return regridded(ctx, source, local)
    positions = source.size // source.channels
    by_channel = local.reshape(-1, positions)
    if not (by_channel == by_channel[:, :1] // positions * positions + np.arange(positions)).all():
        return None
    return picked_channels(ctx, source, by_channel[:, 0] // positions)


def as_feature_maps(ctx: Context, *, any_layout: bool = False) -> tuple[FeatureMap, ...]:
    """The operands that depend on the image as maps [N, C, *spatial], which the node is to read.

    Args:
        ctx: The node, which stays, and its operands.
        any_layout: Whether maps that share another layout may stay in it, as for a node that
            combines cell i of each. Such a node broadcasts: a cell of the whole image that Expand
            has spread over the positions is read unexpanded.

    Raises:
        NodeRefused: If one of them is no map that grows with the image.
    """
    views = [fact for fact in ctx.operands if isinstance(fact, FeatureView)]
    same = {view.layout for view in views}
    if any_layout and len(same) == 1 and None not in same:
        return tuple(v.whole_map for v in views if v.whole_map is not None)
    maps: list[FeatureMap] = []
    made: dict[ir.Value, FeatureMap] = {}
    spread: set[tuple[int, ...]] = set()
    for value, fact in zip(ctx.node.inputs, ctx.operands, strict=True):
        if not isinstance(fact, FeatureView) or value is None:
            continue
        if value not in made:
            with ctx.attempt() as plainly:
                made[value] = as_feature_map(ctx, fact)
            if value not in made:
                cell = _spread_cell(ctx, value, fact) if any_layout else None
                if cell is None:
                    raise plainly.refused
                spread.add(fact.shape[2:])
                made[value] = cell
            if fact.layout is None:
                ctx.tape.append(Materialized(value, made[value]))
        maps.append(made[value])
    if spread - {feature_map.extent for feature_map in maps}:
        ctx.refuse("baked-size", "combines cells of the whole image, spread to a fixed size")
    return tuple(maps)


def _spread_cell(ctx: Context, value: ir.Value, view: FeatureView) -> FeatureMap | None:
    """Return the map of one cell for the whole image that the view repeats at all positions.

    None if there is none, or if another node needs the spread tensor.
    """
    source = view.only_map
    if source is None or len(view.shape) != 2 + len(source.extent) or view.batch_axis != 0:
        return None
    if not source.is_single_cell or any(axis.stride for axis in source.field):
        return None
    if len(value.uses()) > 1 or value.is_graph_output():
        return None
    by_channel = view.local_index(source).reshape(view.shape[1], -1)
    if not (by_channel == by_channel[:, :1]).all():
        return None
    return materialized_channels(ctx, source, by_channel[:, 0])


def _starts(maps: tuple[FeatureMap, ...]) -> list[int]:
    return [0, *np.cumsum([m.size for m in maps])[:-1].tolist()]


def _concatenated(ctx: Context, maps: tuple[FeatureMap, ...]) -> FeatureMap:
    """Concatenate the channels of maps, which must share size and grid, or be constants."""
    features = tuple(m for m in maps if m.constant is None) or maps
    names = " and ".join(f"{m.name} {list(m.extent)}" for m in features)
    if len({m.extent for m in features}) > 1:
        ctx.refuse("several-maps", f"draws on feature maps of several sizes: {names}")
    if any(m.deferred is not None for m in features):
        ctx.refuse("several-maps", f"scales one of several maps by position: {names}")
    field = joined_field(ctx, features, broadcasts=False)
    if len(features) == 1:
        return _padded(ctx, features[0], maps[1:])
    joined = ctx.new_map(
        features[0],
        name=ctx.fresh(f"{ctx.name}.channels"),
        channels=sum(m.channels for m in features),
        field=field,
        sources=features,
        one_per_window=any(m.one_per_window for m in features),
        parts=parting(ctx, features),
    )
    ctx.emit("Concat", features, joined, {"axis": 1})
    return _padded(ctx, joined, maps[len(features) :])


def _padded(ctx: Context, feature_map: FeatureMap, constants: tuple[FeatureMap, ...]) -> FeatureMap:
    """Append constants as channels of the map: a Pad for each run of equal ones."""
    values = [value for m in constants if m.constant is not None for value in m.constant]
    runs = [(value, len(list(run))) for value, run in groupby(values)]
    if constants and (len(runs) > _MAX_PADS or not feature_map.is_single_cell):
        ctx.refuse(
            "constant-features",
            f"joins {feature_map} with {len(values)} constants; only a layer can take that in",
        )
    for value, count in runs:
        name = ctx.fresh(f"{ctx.name}.padded")
        more = ctx.new_map(feature_map, name=name, channels=feature_map.channels + count)
        rank = 2 + len(feature_map.extent)
        pads = (0,) * (rank + 1) + (count,) + (0,) * (rank - 2)
        if ctx.opset < 11:
            ctx.emit("Pad", (feature_map,), more, {"pads": pads, "value": float(value)})
        else:
            by = ctx.constant(f"{name}.pads", np.array(pads, np.int64))
            filler = np.array(value, feature_map.dtype.numpy())
            ctx.emit("Pad", (feature_map, by, ctx.constant(f"{name}.value", filler)), more)
        feature_map = more
    return feature_map
