"""Elementwise operators: the same operator on the map.

On a map in the model the node simply stays. On a view it is carried out on the map that the view
draws on, once for every element, and the view is then the same view of the new map. Constants that
vary over the features become [C, 1, …] where they are the same at every position; a scale or shift
that varies over positions is deferred (`affine`) until the next linear layer takes it in.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.operators import BROADCASTING, UNARY
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.parameters import by_channel
from onnx_fc2conv.views.maps.affine import as_affine, defer, positive_scale
from onnx_fc2conv.views.maps.alignment import Alignment, NotAligned, alignments
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps
from onnx_fc2conv.views.maps.broadcasting import Broadcast, broadcast
from onnx_fc2conv.views.maps.channels import materialized_channels
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.grids import joined_field, parting
from onnx_fc2conv.views.maps.side_inputs import with_side_inputs
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView, channels_first
from onnx_fc2conv.views.registry import rule

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

Other operators must not be applied to an element that the view leaves out: its logarithm, say, may
be NaN, and a zero weight in the next layer does not remove that.
"""


@rule(*UNARY, *BROADCASTING, *_BOOLEAN, "Where")
def elementwise(ctx: Context) -> FeatureView:
    """Keep the node on maps, or apply it to the maps of its views."""
    start = len(ctx.tape)
    ready = with_side_inputs(ctx)
    made = carried_out(ready, _result_type(ready), again=len(ctx.tape) == start)
    if made.layout is not None:  # a node that stays reads values shared by all samples as they are
        ctx.tape.forget_readers(_same_for_all(ctx), start)
    return made


def _same_for_all(ctx: Context) -> frozenset[ir.Value]:
    """The inputs of the node that are the same for all samples."""
    return frozenset(
        value
        for value, fact in zip(ctx.node.inputs, ctx.operands, strict=True)
        if value is not None and isinstance(fact, Unknown) and fact.uniform is not None
    )


@rule("Cast")
def cast(ctx: Context) -> FeatureView:
    """Apply `elementwise`; a cast to the type that the map has already is dropped."""
    view = ctx.first_view()
    dtype = ir.DataType(ctx.int_attribute("to", 0))
    if all(feature_map.dtype == dtype for feature_map in view.maps):
        return view
    return carried_out(ctx, dtype)


def carried_out(ctx: Context, dtype: ir.DataType | None, *, again: bool = True) -> FeatureView:
    """Apply the operator, whose result has this type, to its maps or views.

    A refused attempt is followed by another one; if all are refused, the first reason is reported.

    Args:
        ctx: The node.
        dtype: Element type of the result; None for that of the maps.
        again: Whether views may become maps again for the node to stay.

    Raises:
        NodeRefused: If it can be applied to neither.
    """
    with ctx.attempt() as first:
        return _kept_on_maps(ctx, dtype) or _on_views(ctx, dtype)
    with ctx.attempt():
        if first.refused.refusal.code == "positional-constant":
            return _on_views(ctx, dtype)  # a layer of the whole window may take it in
        if again and (kept := _kept_on_maps(ctx, dtype, again=True)) is not None:
            return kept
    raise first.refused


def _result_type(ctx: Context) -> ir.DataType | None:
    """Return the element type of the output; None if it is that of the maps."""
    if ctx.node.op_type in _BOOLEAN:
        return ir.DataType.BOOL
    if ctx.node.op_type != "Where":
        return None
    chosen = ctx.operand(1)
    if isinstance(chosen, FeatureView):
        return chosen.maps[0].dtype
    return ir.DataType.from_numpy(chosen.array.dtype) if isinstance(chosen, Constant) else None


def _kept_on_maps(
    ctx: Context, dtype: ir.DataType | None, *, again: bool = False
) -> FeatureView | None:
    """Keep the node if every view is a map in one layout; return None if it cannot stay.

    With ``again``, views that can be written as maps again also count, whatever was done to them
    since (blocks of cells that are channels now, each with a scale of its own).
    """
    views = [fact for fact in ctx.operands if isinstance(fact, FeatureView)]
    layout = next((view.layout for view in views if view.layout is not None), None)
    if again and layout is None and len(views[0].shape) > 2:
        layout = channels_first(len(views[0].shape))
    if layout is None or any(len(view.shape) != len(layout) for view in views):
        return None
    if layout != channels_first(len(layout)) and any(view.layout != layout for view in views):
        return None
    maps = as_feature_maps(ctx, any_layout=True)
    channels = {feature_map.channels for feature_map in maps}
    for position, fact in enumerate(ctx.operands):
        if isinstance(fact, Constant):
            channels.add(_channels_of(ctx, position, fact, layout, maps[0]))
    field = joined_field(ctx, maps)
    if len(channels - {1}) > 1:
        listed = " and ".join(map(str, sorted(channels - {1})))
        ctx.refuse("misaligned", f"combines {listed} channels")
    return ctx.kept(
        maps[0],
        layout=layout,
        channels=max(channels),
        extent=tuple(max(lengths) for lengths in zip(*(m.extent for m in maps), strict=True)),
        field=field,
        sources=maps,
        dtype=dtype or maps[0].dtype,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(ctx, maps),
    )


def _channels_of(
    ctx: Context, position: int, constant: Constant, layout: tuple[int, ...], like: FeatureMap
) -> int:
    """Channels of a constant operand, or why it ties the map to the native size."""
    shape = constant.shape
    if constant.sized:
        ctx.refuse("baked-size", "combines the map with a tensor computed from its size")
    rank = len(layout)
    if len(shape) > rank:
        ctx.refuse("baked-size", f"its constant of shape {list(shape)} adds axes to the map")
    aligned = (1,) * (rank - len(shape)) + shape
    spatial = [aligned[axis] for axis in layout[2:]]
    if aligned[layout[0]] != 1 or any(length != 1 for length in spatial):
        ctx.refuse(
            "positional-constant",
            f"its operand {position} of shape {list(shape)} has other values at other positions "
            f"of {like.name} {list(like.extent)}, so it fits the native size only",
        )
    return aligned[layout[1]]


def _on_views(ctx: Context, dtype: ir.DataType | None) -> FeatureView:
    """Apply the operator to the maps that the views draw on."""
    together = broadcast(ctx)
    try:
        found = alignments(
            ctx.space, list(together.indices.values()), list(together.arrays.values())
        )
    except NotAligned as reason:
        ctx.refuse("misaligned", str(reason))
    index = np.empty(together.size, np.int64)
    for alignment in found:
        one = len(found) == 1
        name = ctx.name if one else ctx.fresh(f"{ctx.name}.{alignment.sources[0].name}")
        shown, output = _on_alignment(ctx, together, alignment, dtype, name)
        index[shown.where] = output.first_label + shown.elements
    return together.view(ctx, index)


def _on_alignment(
    ctx: Context,
    together: Broadcast,
    alignment: Alignment,
    dtype: ir.DataType | None,
    name: str,
) -> tuple[Alignment, FeatureMap]:
    """Carry the operator out on the maps of one alignment."""
    if len(together.indices) == 1:
        affine = _deferred(ctx, together, alignment)
        if affine is not None:
            return affine
        if ctx.node.op_type in _TOTAL and not _is_wasteful(wide := alignment.widened()):
            alignment = wide
    if not alignment.is_covered:
        _refuse_partly(ctx, alignment)
    constants = by_channel(ctx, together, alignment)
    maps = _sources(ctx, alignment)
    field = joined_field(ctx, maps)
    read = {**constants, **dict(zip(together.indices, maps, strict=True))}
    output = ctx.new_map(
        maps[0],
        name=name,
        channels=alignment.channels[0].size,
        extent=alignment.extent,
        field=field,
        sources=maps,
        dtype=dtype or maps[0].dtype,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(ctx, maps),
    )
    operands = tuple(read.get(position) for position in range(len(ctx.operands)))
    node = ctx.node
    ctx.emit(node.op_type, operands, output, carried=tuple(node.attributes), domain=node.domain)
    return alignment, output


def _deferred(
    ctx: Context, together: Broadcast, alignment: Alignment
) -> tuple[Alignment, FeatureMap] | None:
    """The map with this operator as a deferred scale or shift; None if it is carried out."""
    (source,) = alignment.sources
    deferred = source.deferred is not None and not source.is_single_cell
    constants = {
        position: alignment.spread(array) for position, array in together.constants.items()
    }
    varying = {
        position: array
        for position, array in constants.items()
        if not (by_channel := array.reshape(len(array), -1)).size
        or not (by_channel == by_channel[:, :1]).all()
    }
    if not deferred and not varying:
        return None
    if len(ctx.operands) == 1 + len(constants) <= 2:
        position = next(iter(constants), None)
        constant = constants.get(
            position or 0, np.ones((alignment.channels[0].size, *alignment.extent))
        )
        affine = as_affine(ctx, position, constant)
        if affine is not None:
            return defer(ctx, alignment, affine)
    if varying:
        position = next(iter(varying))
        ctx.refuse(
            "position-dependent",
            f"its constant of shape {list(together.shapes[position])} has other values at other "
            f"positions of {source.name} {list(source.extent)}; only a scale or a shift can be "
            "folded",
        )
    return positive_scale(ctx, alignment) if len(ctx.operands) == 1 else None


def _refuse_partly(ctx: Context, alignment: Alignment) -> None:
    """Refuse what cannot be carried out on elements of which some are not shown."""
    names = " and ".join(map(str, alignment.sources))
    if ctx.node.op_type not in _TOTAL:
        ctx.refuse(
            "flattened-features",
            f"works on {alignment.elements.size} elements of {names} only, and may not be finite "
            "at the others",
        )
    if _is_wasteful(alignment):
        ctx.refuse("position-dependent", f"combines other channels at each position of {names}")


def _is_wasteful(alignment: Alignment) -> bool:
    """Whether most elements of the alignment would be computed for nothing."""
    return alignment.size > 4 * alignment.elements.size


def _sources(ctx: Context, alignment: Alignment) -> tuple[FeatureMap, ...]:
    """The maps that the operator combines: the alignment's channels, or one for all of them."""
    maps: list[FeatureMap] = []
    constant = [bool((channels == channels[:1]).all()) for channels in alignment.channels]
    full = constant.index(False) if False in constant else 0
    for position, (source, channels) in enumerate(
        zip(alignment.sources, alignment.channels, strict=True)
    ):
        wanted = channels[:1] if constant[position] and position != full else channels
        maps.append(materialized_channels(ctx, source, wanted))
    return tuple(maps)
