"""Elementwise operators: the same operator on the map.

On a map in the model the node simply stays. On a view it is carried out on the map that the view
draws on, once for every element, and the view is then the same view of the new map. Constants that
vary over the features become [C, 1, …] where they are the same at every position; a scale or shift
that varies over positions waits (`affine`) until the next linear layer takes it in.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.known import Known, Opaque
from onnx_fc2conv.views.plan import (
    Constant,
    Emitted,
    Intermediate,
    Kept,
    Outcome,
    Step,
    Viewed,
)
from onnx_fc2conv.views.rules.affine import as_affine, positive_scale, waiting
from onnx_fc2conv.views.rules.broadcasting import Broadcast, broadcast
from onnx_fc2conv.views.rules.frames import Frame, NoFrame, frames
from onnx_fc2conv.views.rules.grids import joined_field, parting
from onnx_fc2conv.views.rules.parameters import by_channel
from onnx_fc2conv.views.rules.registry import Application, NodeRefused, rule
from onnx_fc2conv.views.rules.restore import picked_channels, restored, settled
from onnx_fc2conv.views.rules.sides import with_sides
from onnx_fc2conv.views.view import FeatureMap, FeatureView, channels_first

__all__ = ["carried_out", "elementwise"]

_BOOLEAN = {
    *("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not"),
    *("Or", "Xor"),
}

_TOTAL = {
    *("Abs", "Add", "Atan", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu"),
    *("Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sub"),
    *("Sum", "Swish", "Tanh", "ThresholdedRelu", "QuantizeLinear", "DequantizeLinear"),
    *("QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "QLinearSigmoid"),
}
"""Operators that are finite wherever their operands are.

With the others an element that the view leaves out must not be computed with: its logarithm, say,
may be NaN, which a weight of zero in the next layer does not take away.
"""


@rule(
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos"),
    *("Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN"),
    *("LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh"),
    *("ThresholdedRelu", "Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Min", "Max", "Sum"),
    *("Mean", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where", "And", "Or"),
    *("Xor",),
)
def elementwise(app: Application) -> Outcome:
    """Keep the node on maps, or carry it out on the maps of its views."""
    steps, ready = with_sides(app)
    outcome = carried_out(ready, _result_type(ready), steps)
    if not isinstance(outcome, Kept):
        return outcome
    # A node that stays reads numbers that are the same for all samples as they are.
    same = {
        value
        for value, fact in zip(app.node.inputs, app.operands, strict=True)
        if isinstance(fact, Opaque) and fact.uniform is not None
    }
    others = {value: made for value, made in outcome.restored.items() if value not in same}
    return replace(outcome, restored=others)


@rule("Cast")
def cast(app: Application) -> Outcome:
    """As `elementwise`; a cast to the type that the map has already is no operation."""
    view = app.view(0)
    assert view is not None
    dtype = ir.DataType(app.int_attribute("to", 0))
    if all(feature_map.dtype == dtype for feature_map in view.maps):
        return Viewed((view,))
    return carried_out(app, dtype)


def carried_out(
    app: Application, dtype: ir.DataType | None, steps: tuple[Step, ...] = ()
) -> Outcome:
    """The operator, whose result is of this type, on the maps or the views that it is given.

    Where that is refused it is tried in another way; if that is refused too, the first reason says
    more.

    Raises:
        NodeRefused: If it can be carried out on neither.
    """
    try:
        return _kept_on_maps(app, dtype) or _on_views(app, dtype, steps)
    except NodeRefused as refused:
        with suppress(NodeRefused):
            if refused.refusal.code == "positional-constant":
                return _on_views(app, dtype, steps)  # a layer of the whole window may take it in
            if not steps and (kept := _kept_on_maps(app, dtype, again=True)) is not None:
                return kept
        raise


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


def _kept_on_maps(
    app: Application, dtype: ir.DataType | None, *, again: bool = False
) -> Outcome | None:
    """The node stays if every view is a map in one layout; None if it cannot.

    With ``again`` views that can be written as maps again will do, of whatever was done to them
    since (blocks of cells that are channels now, each with a scale of its own).
    """
    views = [fact for fact in app.operands if isinstance(fact, FeatureView)]
    layout = next((view.layout for view in views if view.layout is not None), None)
    if again and layout is None and len(views[0].shape) > 2:
        layout = channels_first(len(views[0].shape))
    if layout is None or any(len(view.shape) != len(layout) for view in views):
        return None
    if layout != channels_first(len(layout)) and any(view.layout != layout for view in views):
        return None
    found = restored(app, any_layout=True)
    maps = found.maps
    channels = {feature_map.channels for feature_map in maps}
    for position, fact in enumerate(app.operands):
        if isinstance(fact, Known):
            constant_channels = _channels_of(app, position, fact, layout, maps[0])
            channels.add(constant_channels)
    field = joined_field(app, maps)
    if len(channels - {1}) > 1:
        listed = " and ".join(map(str, sorted(channels - {1})))
        app.refuse("misaligned", f"combines {listed} channels")
    output = app.new_map(
        maps[0],
        value=app.node.outputs[0],
        layout=layout,
        channels=max(channels),
        extent=tuple(max(lengths) for lengths in zip(*(m.extent for m in maps), strict=True)),
        field=field,
        sources=maps,
        dtype=dtype or maps[0].dtype,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(app, maps),
    )
    return Kept((output,), restored=found.restored, steps=found.steps)


def _channels_of(
    app: Application, position: int, known: Known, layout: tuple[int, ...], like: FeatureMap
) -> int:
    """Channels of a constant operand, or why it ties the map to the native size."""
    shape = known.shape
    if known.sized:
        app.refuse("baked-size", "combines the map with a tensor computed from its size")
    rank = len(layout)
    if len(shape) > rank:
        app.refuse("baked-size", f"its constant of shape {list(shape)} adds axes to the map")
    aligned = (1,) * (rank - len(shape)) + shape
    spatial = [aligned[axis] for axis in layout[2:]]
    if aligned[layout[0]] != 1 or any(length != 1 for length in spatial):
        app.refuse(
            "positional-constant",
            f"its operand {position} of shape {list(shape)} has other values at other positions "
            f"of {like.name} {list(like.extent)}, so it fits the native size only",
        )
    return aligned[layout[1]]


def _on_views(app: Application, dtype: ir.DataType | None, steps: tuple[Step, ...]) -> Outcome:
    """Carry the operator out on the maps that the views draw on."""
    together = broadcast(app)
    try:
        found = frames(app.space, list(together.indices.values()), list(together.arrays.values()))
    except NoFrame as reason:
        app.refuse("misaligned", str(reason))
    index = np.empty(together.size, np.int64)
    name = app.node.outputs[0].name or app.node.op_type
    for frame in found:
        of_frame = name if len(found) == 1 else app.names.fresh(f"{name}.{frame.sources[0].name}")
        more, shown, output = _on_frame(app, together, frame, dtype, of_frame)
        steps = (*steps, *more)
        index[shown.where] = output.first_label + shown.elements
    return Emitted(steps, together.view(app, index))


_Made = tuple[tuple[Step, ...], Frame, FeatureMap]


def _on_frame(
    app: Application,
    together: Broadcast,
    frame: Frame,
    dtype: ir.DataType | None,
    name: str,
) -> _Made:
    """Carry the operator out on the maps of one frame."""
    if len(together.indices) == 1:
        affine = _waits(app, together, frame)
        if affine is not None:
            return affine
        if app.node.op_type in _TOTAL and not _is_wasteful(wide := frame.widened()):
            frame = wide
    if not frame.is_covered:
        _refuse_partly(app, frame)
    constants, stored = by_channel(app, together, frame)
    steps, maps = _sources(app, frame)
    field = joined_field(app, maps)
    operands: list[FeatureMap | Intermediate | Constant | ir.Value | None] = [
        constants.get(position) for position in range(len(app.operands))
    ]
    for position, feature_map in zip(together.indices, maps, strict=True):
        operands[position] = feature_map
    output = app.new_map(
        maps[0],
        name=name,
        channels=frame.channels[0].size,
        extent=frame.extent,
        field=field,
        sources=maps,
        dtype=dtype or maps[0].dtype,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(app, maps),
    )
    carried = tuple(app.node.attributes)
    node = app.node
    step = Step(node.op_type, tuple(operands), output, node, carried=carried, domain=node.domain)
    return (*steps, *stored, step), frame, output


def _waits(app: Application, together: Broadcast, frame: Frame) -> _Made | None:
    """The map that waits for the scale or shift that the operator is; None if it is not to wait."""
    (source,) = frame.sources
    waits = source.pending is not None and not source.is_cell
    constants = {position: frame.spread(array) for position, array in together.constants.items()}
    varying = {
        position: array
        for position, array in constants.items()
        if not (by_channel := array.reshape(len(array), -1)).size
        or not (by_channel == by_channel[:, :1]).all()
    }
    if not waits and not varying:
        return None
    if len(app.operands) == 1 + len(constants) <= 2:
        position = next(iter(constants), None)
        constant = constants.get(position or 0, np.ones((frame.channels[0].size, *frame.extent)))
        affine = as_affine(app, position, constant)
        if affine is not None:
            return waiting(app, frame, affine)
    if varying:
        position = next(iter(varying))
        app.refuse(
            "position-dependent",
            f"its constant of shape {list(together.shapes[position])} has other values at other "
            f"positions of {source.name} {list(source.extent)}; only a scale or a shift can be "
            "folded",
        )
    return positive_scale(app, frame) if len(app.operands) == 1 else None


def _refuse_partly(app: Application, frame: Frame) -> None:
    """Refuse what cannot be carried out on elements of which some are not shown."""
    names = " and ".join(f"{m.name} {list(m.per_sample_shape)}" for m in frame.sources)
    if app.node.op_type not in _TOTAL:
        app.refuse(
            "flattened-features",
            f"works on {frame.elements.size} elements of {names} only, and may not be finite at "
            "the others",
        )
    if _is_wasteful(frame):
        app.refuse("position-dependent", f"combines other channels at each position of {names}")


def _is_wasteful(frame: Frame) -> bool:
    """Whether most elements of the frame would be computed for nothing."""
    return frame.size > 4 * frame.elements.size


def _sources(app: Application, frame: Frame) -> tuple[tuple[Step, ...], tuple[FeatureMap, ...]]:
    """The maps that the operator combines: the channels of the frame, or one for all of them."""
    steps: tuple[Step, ...] = ()
    maps: list[FeatureMap] = []
    constant = [bool((channels == channels[:1]).all()) for channels in frame.channels]
    full = constant.index(False) if False in constant else 0
    for position, (source, channels) in enumerate(zip(frame.sources, frame.channels, strict=True)):
        if not source.scales_by_channel:
            app.refuse(
                "position-dependent",
                f"follows a scale or shift that differs from position to position of "
                f"{source.name}; only a linear layer can take that in",
            )
        wanted = channels[:1] if constant[position] and position != full else channels
        more, ready = settled(app, source)
        picked, ready = picked_channels(app, ready, wanted)
        steps = (*steps, *more, *picked)
        maps.append(ready)
    return steps, tuple(maps)
