"""Elementwise operators: the same operator on the map.

On a map in the model the node simply stays. On a view it is carried out on the map that the view
draws on, once for every element, and the view is then the same view of the new map. Constants that
vary over the features become [C, 1, …] where they are the same at every position; a scale or shift
that varies over positions waits (`FeatureMap.pending`) until the next linear layer takes it in.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.labels import AnyArray
from onnx_fc2conv.views.plan import Constant, Emitted, Kept, Outcome, Step, Viewed
from onnx_fc2conv.views.rules.grids import joined_field
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.rules.restore import channels_as_map, restored, settled
from onnx_fc2conv.views.view import Affine, FeatureMap, FeatureView, Known, Mixed

__all__ = ["elementwise", "pending_affine"]

_BOOLEAN = {"IsNaN", "IsInf", "Not", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


@rule(
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos"),
    *("Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN"),
    *("LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh"),
    *("ThresholdedRelu", "Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Min", "Max", "Sum"),
    *("Mean", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"),
)
def elementwise(app: Application) -> Outcome:
    """Keep the node on maps, or carry it out on the maps of its views."""
    dtype = _result_type(app)
    return _kept_on_maps(app, dtype) or _on_views(app, dtype)


@rule("Cast")
def cast(app: Application) -> Outcome:
    """As `elementwise`; a cast to the type that the map has already is no operation."""
    view = app.view(0)
    assert view is not None
    dtype = ir.DataType(app.int_attribute("to", 0))
    if all(feature_map.dtype == dtype for feature_map in view.maps):
        return Viewed((view,))
    return _kept_on_maps(app, dtype) or _on_views(app, dtype)


def _result_type(app: Application) -> ir.DataType | None:
    """Element type of the output; None if it is that of the maps."""
    if app.node.op_type in _BOOLEAN:
        return ir.DataType.BOOL
    if app.node.op_type != "Where":
        return None
    chosen = app.operand(1)
    if isinstance(chosen, FeatureView):
        return chosen.maps[0].dtype
    return ir.DataType.from_numpy(chosen.array.dtype) if isinstance(chosen, Known) else None


def _kept_on_maps(app: Application, dtype: ir.DataType | None) -> Outcome | None:
    """The node stays if every view is a map in one layout; None if it cannot."""
    views = [fact for fact in app.operands if isinstance(fact, FeatureView)]
    layout = next((view.layout for view in views if view.layout is not None), None)
    if layout is None or any(len(view.shape) != len(layout) for view in views):
        return None
    found = restored(app, any_layout=True)
    if isinstance(found, Refusal):
        return found
    maps = found.maps
    channels = {feature_map.channels for feature_map in maps}
    for position, fact in enumerate(app.operands):
        if isinstance(fact, Known):
            constant_channels = _channels_of(app, position, fact, layout, maps[0])
            if isinstance(constant_channels, Refusal):
                return constant_channels
            channels.add(constant_channels)
        elif fact is not None and not isinstance(fact, FeatureView):
            return app.refuse("other-input", "combines the map with a tensor that is not from it")
    field = joined_field(app, maps)
    if isinstance(field, Refusal):
        return field
    if len(channels - {1}) > 1:
        listed = " and ".join(map(str, sorted(channels - {1})))
        return app.refuse("misaligned", f"combines {listed} channels")
    output = app.new_map(
        maps[0],
        value=app.node.outputs[0],
        layout=layout,
        channels=max(channels),
        extent=tuple(max(lengths) for lengths in zip(*(m.extent for m in maps), strict=True)),
        field=field,
        sources=maps,
        dtype=dtype or maps[0].dtype,
        made_by_fc=any(m.made_by_fc for m in maps),
    )
    return Kept((output,), restored=found.restored, steps=found.steps)


def _channels_of(
    app: Application, position: int, known: Known, layout: tuple[int, ...], like: FeatureMap
) -> int | Refusal:
    """Channels of a constant operand, or why it ties the map to the native size."""
    shape = known.shape
    if known.sized:
        return app.refuse("baked-size", "combines the map with a tensor computed from its size")
    rank = len(layout)
    if len(shape) > rank:
        return app.refuse("baked-size", f"its constant of shape {list(shape)} adds axes to the map")
    aligned = (1,) * (rank - len(shape)) + shape
    spatial = [aligned[axis] for axis in layout[2:]]
    if aligned[layout[0]] != 1 or any(length != 1 for length in spatial):
        return app.refuse(
            "positional-constant",
            f"its operand {position} of shape {list(shape)} has other values at other positions "
            f"of {like.name} {list(like.extent)}, so it fits the native size only",
        )
    return aligned[layout[1]]


def _on_views(app: Application, dtype: ir.DataType | None) -> Outcome:
    """Carry the operator out on the maps that the views draw on."""
    aligned = _aligned(app)
    if isinstance(aligned, Refusal):
        return aligned
    steps, views = aligned
    lead_position, lead = next(iter(views.items()))
    source = lead.only_map
    assert source is not None
    constants = _constants(app, lead, source)
    if isinstance(constants, Refusal):
        return constants
    if isinstance(constants, Affine):
        return pending_affine(app, lead, constants, steps)

    operands: list[FeatureMap | Constant | ir.Value | None] = []
    for position in range(len(app.operands)):
        feature_map = views[position].only_map if position in views else None
        if feature_map is None:
            operands.append(constants.get(position))
            continue
        if feature_map.pending is not None and not feature_map.is_cell:
            return app.refuse(
                "position-dependent",
                f"follows a scale or shift that differs from position to position of "
                f"{source.name}; only a linear layer can take that in",
            )
        more, feature_map = settled(app, feature_map)
        steps = (*steps, *more)
        operands.append(feature_map)
    maps = tuple(operand for operand in operands if isinstance(operand, FeatureMap))
    field = joined_field(app, maps)
    if isinstance(field, Refusal):
        return field
    like = operands[lead_position]
    assert isinstance(like, FeatureMap)
    output = app.new_map(like, field=field, sources=maps, dtype=dtype or like.dtype)
    carried = tuple(app.node.attributes)
    step = Step(app.node.op_type, tuple(operands), output, app.node, carried=carried)
    return Emitted((*steps, step), lead.relabelled(source, output))


def pending_affine(
    app: Application, view: FeatureView, affine: Affine, steps: tuple[Step, ...] = ()
) -> Outcome:
    """The view of a map that waits for its scale and shift; ``affine`` is [C, *spatial]."""
    source = view.only_map
    assert source is not None
    if source.pending is not None:
        before = source.pending
        affine = Affine(before.scale * affine.scale, before.shift * affine.scale + affine.shift)
    waiting = app.new_map(source, pending=affine, base=source.base or source)
    return Emitted(steps, view.relabelled(source, waiting))


def _aligned(app: Application) -> tuple[tuple[Step, ...], dict[int, FeatureView]] | Refusal:
    """The views by operand position, brought to show the same elements of maps of one shape.

    Views of single cells that do not are gathered to maps of one channel an element first. A view
    of one feature is broadcast against the others, which come first in the result.
    """
    views = {p: fact for p, fact in enumerate(app.operands) if isinstance(fact, FeatureView)}
    if len(views) + sum(fact is None or isinstance(fact, Known) for fact in app.operands) < len(
        app.operands
    ):
        return app.refuse("other-input", "combines features of the image with another input")
    shape = max((view.shape for view in views.values()), key=lambda s: (prod(s), len(s)))
    whole = {position: view for position, view in views.items() if view.shape == shape}
    single = {position: view for position, view in views.items() if view.shape != shape}
    try:
        axes = {(view.batch_axis or 0) - len(view.shape) for view in views.values()}
        if len(axes) > 1:
            return app.refuse("batch-mixing", "its operands hold the samples on different axes")
        if any(view.index.size != 1 for view in single.values()):
            listed = " and ".join(str(list(s)) for s in sorted({v.shape for v in views.values()}))
            return app.refuse(
                "misaligned", f"broadcasts features of the image against others: {listed}"
            )
        gathered = single if _parallel(list(whole.values())) else whole | single
    except Mixed:
        return app.refuse("batch-mixing", "its operand mixes the samples of a batch")
    steps: tuple[Step, ...] = ()
    views = whole | single
    for position, view in gathered.items():
        found = channels_as_map(app, view)
        if isinstance(found, Refusal):
            return found
        more, feature_map = found
        steps = (*steps, *more)
        views[position] = view.row_major_of(feature_map)
    return steps, views


def _parallel(views: list[FeatureView]) -> bool:
    """Whether all views show the same elements, and all elements, of maps of the same shape.

    An element that a view leaves out must not be computed with: its logarithm, say, may be NaN,
    which a weight of zero in the next layer does not take away.
    """
    first = views[0].only_map
    if first is None:
        return False
    index = views[0].local_index(first)
    for view in views[1:]:
        other = view.only_map
        if other is None or other.per_sample_shape != first.per_sample_shape:
            return False
        if not np.array_equal(index, view.local_index(other)):
            return False
    return np.unique(index).size == first.size


def _constants(
    app: Application, view: FeatureView, source: FeatureMap
) -> dict[int, Constant | ir.Value] | Affine | Refusal:
    """The constant operands in the map's shape: scalars as they are, others as [C, 1, …].

    If the operator is a scale or a shift, one that varies over the positions of the map is an
    `Affine`, and so is any that follows one which waits.
    """
    constants: dict[int, Constant | ir.Value] = {}
    waits = source.pending is not None and not source.is_cell
    for position, fact in enumerate(app.operands):
        if not isinstance(fact, Known):
            continue
        if _varies_with_batch(view, fact):
            return app.refuse("batch-mixing", "its constant is computed from the number of samples")
        value = app.node.inputs[position]
        if len(fact.shape) == 0 and value is not None and not waits:
            # One computed from the image size would not keep the value that it has at a window.
            constants[position] = (
                _constant(app, position, fact.array, in_order=False) if fact.sized else value
            )
            continue
        on_map = _on_map(app, view, source, fact.array)
        if isinstance(on_map, Refusal):
            return on_map
        per_channel = on_map.reshape(source.channels, -1)
        if not waits and (per_channel == per_channel[:, :1]).all():
            array = per_channel[:, 0].reshape(-1, *[1] * len(source.extent))
            in_order = np.array_equal(fact.array.reshape(-1), array.reshape(-1))
            constants[position] = _constant(app, position, array, in_order)
            continue
        affine = _as_affine(app, position, on_map)
        if affine is None and waits:
            continue
        if affine is None:
            return app.refuse(
                "position-dependent",
                f"its constant of shape {list(fact.shape)} has other values at other positions of "
                f"{source.name} {list(source.extent)}; only a scale or a shift can be folded",
            )
        return affine
    return constants


def _varies_with_batch(view: FeatureView, known: Known) -> bool:
    """Whether a tensor computed from shapes gives a sample other values in another batch."""
    other = view.labels.other
    if not known.sized or other is None or view.batch_axis is None:
        return False
    samples = (
        np.broadcast_to(known.at(batch), shape).take(0, axis=view.batch_axis)
        for batch, shape in ((view.batches.native, view.shape), (view.batches.other, other.shape))
    )
    return not np.array_equal(*samples)


def _on_map(
    app: Application, view: FeatureView, source: FeatureMap, array: AnyArray
) -> AnyArray | Refusal:
    """A constant that is broadcast to the view, as [C, *spatial] of the map."""
    try:
        spread = np.broadcast_to(array, view.shape)
    except ValueError:
        return app.refuse(
            "shape-mismatch",
            f"its constant of shape {list(array.shape)} would enlarge its input {list(view.shape)}",
        )
    if view.batch_axis is not None:
        rows = np.moveaxis(spread, view.batch_axis, 0)
        if not (rows == rows[:1]).all():
            return app.refuse("batch-mixing", "its constant differs from sample to sample")
        spread = rows[0]
    on_map = np.empty(source.size, array.dtype)
    on_map[view.local_index(source).reshape(-1)] = spread.reshape(-1)
    if not (on_map[view.local_index(source)] == spread).all():
        return app.refuse("position-dependent", "treats one feature in two ways")
    return on_map.reshape(source.per_sample_shape)


def _as_affine(app: Application, position: int, constant: AnyArray) -> Affine | None:
    """The scale and shift that the operator with this constant is; None if it is neither."""
    if len(app.operands) != 2 or not np.issubdtype(constant.dtype, np.floating):
        return None
    value = constant.astype(np.float64)
    one, zero = np.ones_like(value), np.zeros_like(value)
    match app.node.op_type, position:
        case "Add", _:
            return Affine(one, value)
        case "Mul", _:
            return Affine(value, zero)
        case "Sub", 1:
            return Affine(one, -value)
        case "Sub", 0:
            return Affine(-one, value)
        case "Div", 1 if value.all():
            return Affine(one / value, zero)
        case _:
            return None


def _constant(app: Application, position: int, array: AnyArray, in_order: bool) -> Constant:
    value = app.node.inputs[position]
    name = (value.name if value is not None else None) or app.node.outputs[0].name or "constant"
    return Constant(
        app.names.fresh(f"{name}.channels"),
        tuple(array.shape),
        lambda: ir.Tensor(array.copy()),
        stored=value if in_order else None,
    )
