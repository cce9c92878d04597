"""Writing a view as one map again, where some operator needs a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.labels import AnyArray, IntArray
from onnx_fc2conv.views.plan import AttributeValue, Constant, Step
from onnx_fc2conv.views.rules.blocks import regridded
from onnx_fc2conv.views.rules.grids import joined_field, parting
from onnx_fc2conv.views.rules.registry import Application, NodeRefused
from onnx_fc2conv.views.view import Affine, FeatureMap, FeatureView, channels_first

__all__ = [
    "Restored",
    "as_map",
    "channels_as_map",
    "picked_channels",
    "restored",
    "settled",
    "single_map",
]

_MAX_PADS = 8
"""Nodes that constants among the features may take; each copies the map."""


def single_map(
    app: Application, view: FeatureView
) -> tuple[tuple[Step, ...], FeatureMap, IntArray]:
    """The one map that the view draws on (cells of several are concatenated first).

    Returns the steps that make it, the map, and the view's index into its row-major elements.

    Raises:
        NodeRefused: If there is none, or maps differ in size or grid.
    """
    if not view.maps:
        app.refuse(
            "shape-mismatch", "its input has no elements at the native size; check --input-shape"
        )
    if len(view.maps) == 1:
        return (), view.maps[0], view.local_index(view.maps[0])
    maps = tuple(sorted(view.maps, key=lambda m: m.constant is not None))
    steps, together = _concatenated(app, maps)
    starts = {m.first_label: s for m, s in zip(maps, _starts(maps), strict=True)}
    index = view.index.copy()
    for feature_map in maps:
        first = feature_map.first_label
        inside = (view.index >= first) & (view.index < first + feature_map.size)
        index[inside] += starts[first] - first
    return steps, together, index


def channels_as_map(app: Application, view: FeatureView) -> tuple[tuple[Step, ...], FeatureMap]:
    """A map of single cells whose channels are the view's elements in row-major order.

    Raises:
        NodeRefused: If the view shows more than single cells of a map.
    """
    steps, source, local = single_map(app, view)
    if not source.is_cell:
        app.refuse(
            "flattened-features",
            f"its input holds all {list(source.per_sample_shape)} elements of feature map "
            f"{source.name} at once, which no cell of a larger map can hold",
        )
    more, source = settled(app, source)
    picked, source = picked_channels(app, source, local.reshape(-1))
    return (*steps, *more, *picked), source


def as_map(app: Application, view: FeatureView) -> tuple[tuple[Step, ...], FeatureMap]:
    """The map [N, C, *spatial] that the view is, its channels shuffled, split or joined.

    Raises:
        NodeRefused: Unless the view has every position of each of its channels, in order, or whole
            blocks of positions turned into channels, or back.
    """
    whole = view.whole_map
    if whole is not None and view.layout is not None:
        if view.layout != channels_first(len(view.layout)):
            app.refuse("layout", "takes axis 1 for the channels, which it is not here")
        return (), whole
    if len(view.shape) < 3 or view.batch_axis != 0 or len({m.extent for m in view.maps}) != 1:
        _refuse_baked(app, view)
    steps, source, local = single_map(app, view)
    gathered = _gathered(app, source.base or source, local)
    if gathered is None:
        _refuse_baked(app, view)
    more, made = gathered
    if source.pending is None:
        return (*steps, *more), made
    waits = Affine(*(a.reshape(-1)[local] for a in (source.pending.scale, source.pending.shift)))
    made = app.new_map(made, name=app.names.fresh(made.name), pending=waits, base=made)
    if not made.scales_by_channel:
        app.refuse(
            "positional-constant",
            f"reads {source.name} {list(source.extent)} after a scale or shift that differs from "
            "position to position; only a layer of a whole window can take that in",
        )
    scaled, made = settled(app, made)
    return (*steps, *more, *scaled), made


def _refuse_baked(app: Application, view: FeatureView) -> NoReturn:
    app.refuse(
        "baked-size",
        f"works on a reshaped feature map {list(view.shape)}, whose size is written into the model",
    )


def _gathered(
    app: Application, source: FeatureMap, local: IntArray
) -> tuple[tuple[Step, ...], FeatureMap] | None:
    """The map [C', *extent] of these elements of a map; None if they are not at its positions."""
    if local.shape[1:] != source.extent:
        return regridded(app, source, local, lambda of, wanted: picked_channels(app, of, wanted))
    positions = source.size // source.channels
    by_channel = local.reshape(-1, positions)
    if not (by_channel == by_channel[:, :1] // positions * positions + np.arange(positions)).all():
        return None
    return picked_channels(app, source, by_channel[:, 0] // positions)


@dataclass(frozen=True, eq=False)
class Restored:
    """The operands of a node that must be maps for it to stay.

    Attributes:
        maps: The map that each image-dependent operand is, in order.
        restored: The tensors that are maps by ``steps`` only.
        steps: The nodes that make these.
    """

    maps: tuple[FeatureMap, ...]
    restored: Mapping[ir.Value, FeatureMap]
    steps: tuple[Step, ...]


def restored(app: Application, *, any_layout: bool = False) -> Restored:
    """All operands that depend on the image as maps [N, C, *spatial].

    Args:
        app: The node and its operands.
        any_layout: Whether maps that are all in one other layout will do as they are, as for a
            node that combines cell i of each. It broadcasts: a cell of the whole image that Expand
            has spread over the positions is taken as it was before.

    Raises:
        NodeRefused: If one of them is no map of the size that the image decides.
    """
    views = [fact for fact in app.operands if isinstance(fact, FeatureView)]
    same = {view.layout for view in views}
    if any_layout and len(same) == 1 and None not in same:
        return Restored(tuple(v.whole_map for v in views if v.whole_map is not None), {}, ())
    maps: list[FeatureMap] = []
    made: dict[ir.Value, FeatureMap] = {}
    steps: tuple[Step, ...] = ()
    spread: set[tuple[int, ...]] = set()
    for value, fact in zip(app.node.inputs, app.operands, strict=True):
        if not isinstance(fact, FeatureView) or value is None:
            continue
        if value in made:
            maps.append(made[value])
            continue
        try:
            more, feature_map = as_map(app, fact)
        except NodeRefused:
            cell = _spread_cell(app, value, fact) if any_layout else None
            if cell is None:
                raise
            spread.add(fact.shape[2:])
            more, feature_map = cell
        steps = (*steps, *more)
        maps.append(feature_map)
        if fact.layout is None:
            made[value] = feature_map
    if spread - {feature_map.extent for feature_map in maps}:
        app.refuse("baked-size", "combines cells of the whole image, spread to a fixed size")
    return Restored(tuple(maps), made, steps)


def _spread_cell(
    app: Application, value: ir.Value, view: FeatureView
) -> tuple[tuple[Step, ...], FeatureMap] | None:
    """The map of one cell for the whole image that the view repeats at all positions.

    None if it is anything else, or if another node reads the tensor, for which it must be spread.
    """
    source = view.only_map
    if source is None or len(view.shape) != 2 + len(source.extent) or view.batch_axis != 0:
        return None
    if not source.is_cell or any(axis.stride for axis in source.field):
        return None
    if len(value.uses()) > 1 or value.is_graph_output():
        return None
    by_channel = view.local_index(source).reshape(view.shape[1], -1)
    if not (by_channel == by_channel[:, :1]).all():
        return None
    steps, source = settled(app, source)
    picked, source = picked_channels(app, source, by_channel[:, 0])
    return (*steps, *picked), source


def picked_channels(
    app: Application, source: FeatureMap, channels: IntArray
) -> tuple[tuple[Step, ...], FeatureMap]:
    """The map with these channels of another, in this order; what waits goes on waiting."""
    if channels.size == source.channels and bool((channels == np.arange(channels.size)).all()):
        return (), source
    name = app.names.fresh(f"{app.node.outputs[0].name}.channels")
    base = source.base or source
    picked = app.new_map(base, name=name, channels=channels.size)
    indices = Constant(
        app.names.fresh(f"{name}.indices"),
        (channels.size,),
        lambda: ir.Tensor(channels.astype(np.int64)),
    )
    step = Step("Gather", (base, indices), picked, app.node, {"axis": 1})
    if source.pending is None:
        return (step,), picked
    waits = Affine(source.pending.scale[channels], source.pending.shift[channels])
    return (step,), app.new_map(picked, name=name, pending=waits, base=picked)


def settled(app: Application, feature_map: FeatureMap) -> tuple[tuple[Step, ...], FeatureMap]:
    """Carry out a pending scale and shift that has one value per channel."""
    if feature_map.pending is None or feature_map.base is None:
        return (), feature_map
    assert feature_map.scales_by_channel
    dtype = feature_map.dtype.numpy()
    shape = (feature_map.channels, *[1] * len(feature_map.extent))
    scale, shift = (
        array.reshape(feature_map.channels, -1)[:, 0].astype(dtype).reshape(shape)
        for array in (feature_map.pending.scale, feature_map.pending.shift)
    )
    scaled = app.new_map(feature_map.base, name=app.names.fresh(f"{feature_map.name}.scaled"))
    shifted = app.new_map(scaled, name=app.names.fresh(f"{feature_map.name}.shifted"))
    by = Constant(app.names.fresh(f"{shifted.name}.scale"), shape, lambda: ir.Tensor(scale))
    to = Constant(app.names.fresh(f"{shifted.name}.shift"), shape, lambda: ir.Tensor(shift))
    return (
        Step("Mul", (feature_map.base, by), scaled, app.node),
        Step("Add", (scaled, to), shifted, app.node),
    ), shifted


def _starts(maps: tuple[FeatureMap, ...]) -> list[int]:
    return [0, *np.cumsum([m.size for m in maps])[:-1].tolist()]


def _concatenated(
    app: Application, maps: tuple[FeatureMap, ...]
) -> tuple[tuple[Step, ...], FeatureMap]:
    """One map of the channels of all; they must have the same size and grid, or be constants."""
    features = tuple(m for m in maps if m.constant is None) or maps
    names = " and ".join(f"{m.name} {list(m.extent)}" for m in features)
    if len({m.extent for m in features}) > 1:
        app.refuse("several-maps", f"draws on feature maps of several sizes: {names}")
    if any(m.pending is not None for m in features):
        app.refuse("several-maps", f"scales one of several maps by position: {names}")
    field = joined_field(app, features, broadcasts=False)
    if len(features) == 1:
        return _padded(app, features[0], maps[1:])
    joined = app.new_map(
        features[0],
        name=app.names.fresh(f"{app.node.outputs[0].name}.channels"),
        channels=sum(m.channels for m in features),
        field=field,
        sources=features,
        one_per_window=any(m.one_per_window for m in features),
        parts=parting(app, features),
    )
    step = Step("Concat", features, joined, app.node, {"axis": 1})
    steps, joined = _padded(app, joined, maps[len(features) :])
    return (step, *steps), joined


def _padded(
    app: Application, feature_map: FeatureMap, constants: tuple[FeatureMap, ...]
) -> tuple[tuple[Step, ...], FeatureMap]:
    """The map with constants for further channels: a Pad for each run of equal ones."""
    if not constants:
        return (), feature_map
    values = [value for m in constants if m.constant is not None for value in m.constant]
    runs = [(value, len(list(run))) for value, run in groupby(values)]
    if len(runs) > _MAX_PADS or not feature_map.is_cell:
        app.refuse(
            "constant-features",
            f"joins {feature_map.name} {list(feature_map.per_sample_shape)} with {len(values)} "
            "constants; only a layer can take that in",
        )
    steps: list[Step] = []
    for value, count in runs:
        name = app.names.fresh(f"{app.node.outputs[0].name}.padded")
        more = app.new_map(feature_map, name=name, channels=feature_map.channels + count)
        rank = 2 + len(feature_map.extent)
        pads = (0,) * (rank + 1) + (count,) + (0,) * (rank - 2)
        if app.opset < 11:
            attributes: dict[str, AttributeValue] = {"pads": pads, "value": float(value)}
            steps.append(Step("Pad", (feature_map,), more, app.node, attributes))
        else:
            amounts = np.array(pads, np.int64)
            by = _stored(app, f"{name}.pads", amounts)
            filler = _stored(app, f"{name}.value", np.array(value, feature_map.dtype.numpy()))
            steps.append(Step("Pad", (feature_map, by, filler), more, app.node))
        feature_map = more
    return tuple(steps), feature_map


def _stored(app: Application, name: str, array: AnyArray) -> Constant:
    return Constant(app.names.fresh(name), tuple(array.shape), lambda: ir.Tensor(array))
