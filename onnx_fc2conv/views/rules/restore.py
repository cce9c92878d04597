"""Writing a view as one map again, where some operator needs a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.labels import IntArray
from onnx_fc2conv.views.plan import Constant, Step
from onnx_fc2conv.views.rules.grids import joined_field
from onnx_fc2conv.views.rules.registry import Application
from onnx_fc2conv.views.view import FeatureMap, FeatureView, channels_first

__all__ = ["Restored", "as_map", "channels_as_map", "restored", "settled", "single_map"]


def single_map(
    app: Application, view: FeatureView
) -> tuple[tuple[Step, ...], FeatureMap, IntArray] | Refusal:
    """The one map that the view draws on (cells of several are concatenated first).

    Returns the steps that make it, the map, and the view's index into its row-major elements.
    """
    if not view.maps:
        return app.refuse(
            "shape-mismatch", "its input has no elements at the native size; check --input-shape"
        )
    if len(view.maps) == 1:
        return (), view.maps[0], view.local_index(view.maps[0])
    joined = _concatenated(app, view.maps)
    if isinstance(joined, Refusal):
        return joined
    step, together = joined
    starts = {m.first_label: s for m, s in zip(view.maps, _starts(view.maps), strict=True)}
    index = view.index.copy()
    for feature_map in view.maps:
        first = feature_map.first_label
        inside = (view.index >= first) & (view.index < first + feature_map.size)
        index[inside] += starts[first] - first
    return (step,), together, index


def channels_as_map(
    app: Application, view: FeatureView
) -> tuple[tuple[Step, ...], FeatureMap] | Refusal:
    """A map of single cells whose channels are the view's elements in row-major order."""
    found = single_map(app, view)
    if isinstance(found, Refusal):
        return found
    steps, source, local = found
    if not source.is_cell:
        return app.refuse(
            "flattened-features",
            f"its input holds all {list(source.per_sample_shape)} elements of feature map "
            f"{source.name} at once, which no cell of a larger map can hold",
        )
    more, source = settled(app, source)
    picked, source = _picked(app, source, local.reshape(-1))
    return (*steps, *more, *picked), source


def as_map(app: Application, view: FeatureView) -> tuple[tuple[Step, ...], FeatureMap] | Refusal:
    """The map [N, C, *spatial] that the view is, its channels shuffled, split or joined.

    Refused unless the view has every position of each of its channels, in order.
    """
    whole = view.whole_map
    if whole is not None and view.layout is not None:
        if view.layout != channels_first(len(view.layout)):
            return app.refuse("layout", "takes axis 1 for the channels, which it is not here")
        return (), whole
    extent = view.shape[2:]
    baked = app.refuse(
        "baked-size",
        f"works on a reshaped feature map {list(view.shape)}, whose size is written into the model",
    )
    if len(view.shape) < 3 or view.batch_axis != 0 or {m.extent for m in view.maps} != {extent}:
        return baked
    found = single_map(app, view)
    if isinstance(found, Refusal):
        return found
    steps, source, local = found
    if source.pending is not None and not source.is_cell:
        return app.refuse("position-dependent", "follows a scale that differs between positions")
    more, source = settled(app, source)
    positions = source.size // source.channels
    by_channel = local.reshape(-1, positions)
    if not (by_channel == by_channel[:, :1] // positions * positions + np.arange(positions)).all():
        return baked
    picked, source = _picked(app, source, by_channel[:, 0] // positions)
    return (*steps, *more, *picked), source


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


def restored(app: Application, *, any_layout: bool = False) -> Restored | Refusal:
    """All operands that depend on the image as maps [N, C, *spatial].

    Args:
        app: The node and its operands.
        any_layout: Whether maps that are all in one other layout will do as they are.
    """
    views = [fact for fact in app.operands if isinstance(fact, FeatureView)]
    same = {view.layout for view in views}
    if any_layout and len(same) == 1 and None not in same:
        return Restored(tuple(v.whole_map for v in views if v.whole_map is not None), {}, ())
    maps: list[FeatureMap] = []
    made: dict[ir.Value, FeatureMap] = {}
    steps: tuple[Step, ...] = ()
    for value, fact in zip(app.node.inputs, app.operands, strict=True):
        if not isinstance(fact, FeatureView) or value is None:
            continue
        if value in made:
            maps.append(made[value])
            continue
        found = as_map(app, fact)
        if isinstance(found, Refusal):
            return found
        more, feature_map = found
        steps = (*steps, *more)
        maps.append(feature_map)
        if fact.layout is None:
            made[value] = feature_map
    return Restored(tuple(maps), made, steps)


def _picked(
    app: Application, source: FeatureMap, channels: IntArray
) -> tuple[tuple[Step, ...], FeatureMap]:
    """The map with these channels of another, in this order."""
    if channels.size == source.channels and bool((channels == np.arange(channels.size)).all()):
        return (), source
    name = app.names.fresh(f"{app.node.outputs[0].name}.channels")
    picked = app.new_map(source, name=name, channels=channels.size)
    indices = Constant(
        app.names.fresh(f"{name}.indices"),
        (channels.size,),
        lambda: ir.Tensor(channels.astype(np.int64)),
    )
    return (Step("Gather", (source, indices), picked, app.node, {"axis": 1}),), picked


def settled(app: Application, feature_map: FeatureMap) -> tuple[tuple[Step, ...], FeatureMap]:
    """Carry out a pending scale and shift on a map of single cells: one per channel."""
    if feature_map.pending is None or feature_map.base is None:
        return (), feature_map
    dtype = feature_map.dtype.numpy()
    shape = feature_map.per_sample_shape
    scale = feature_map.pending.scale.astype(dtype).reshape(shape)
    shift = feature_map.pending.shift.astype(dtype).reshape(shape)
    scaled = app.new_map(feature_map.base, name=app.names.fresh(f"{feature_map.name}.scaled"))
    shifted = app.new_map(scaled, name=app.names.fresh(f"{feature_map.name}.shifted"))
    return (
        Step(
            "Mul",
            (
                feature_map.base,
                Constant(app.names.fresh(f"{shifted.name}.scale"), shape, lambda: ir.Tensor(scale)),
            ),
            scaled,
            app.node,
        ),
        Step(
            "Add",
            (
                scaled,
                Constant(app.names.fresh(f"{shifted.name}.shift"), shape, lambda: ir.Tensor(shift)),
            ),
            shifted,
            app.node,
        ),
    ), shifted


def _starts(maps: tuple[FeatureMap, ...]) -> list[int]:
    return [0, *np.cumsum([m.size for m in maps])[:-1].tolist()]


def _concatenated(
    app: Application, maps: tuple[FeatureMap, ...]
) -> tuple[Step, FeatureMap] | Refusal:
    """One map of the channels of all; they must have the same size and grid."""
    names = " and ".join(f"{m.name} {list(m.extent)}" for m in maps)
    if len({m.extent for m in maps}) > 1:
        return app.refuse("several-maps", f"draws on feature maps of several sizes: {names}")
    if any(m.pending is not None for m in maps):
        return app.refuse("several-maps", f"scales one of several maps by position: {names}")
    field = joined_field(app, maps, broadcasts=False)
    if isinstance(field, Refusal):
        return field
    joined = app.new_map(
        maps[0],
        name=app.names.fresh(f"{app.node.outputs[0].name}.channels"),
        channels=sum(m.channels for m in maps),
        field=field,
        sources=maps,
        made_by_fc=any(m.made_by_fc for m in maps),
    )
    return Step("Concat", maps, joined, app.node, {"axis": 1}), joined
