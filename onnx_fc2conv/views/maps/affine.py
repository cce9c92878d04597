"""A deferred affine: a scale and a shift of the elements of a view, folded into a later layer.

A scale that varies over the positions of a flattened map cannot be applied to a larger map. A
linear layer folds it into its kernel and bias (`kernel`); on single cells, and where all positions
of a channel have the same, it is carried out at once when something else needs the map
(`channels.materialized`).
"""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.alignment import Alignment, alignments
from onnx_fc2conv.views.maps.channels import picked_channels
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import Affine, FeatureMap, FeatureView

__all__ = ["as_affine", "defer", "scaled_view"]

_HOMOGENEOUS = ("Relu", "LeakyRelu", "Abs")


def scaled_view(ctx: Context, view: FeatureView, scale: AnyArray, shift: AnyArray) -> FeatureView:
    """Return the view times a scale plus a shift, both float64 of the shape of one sample."""
    index = np.empty(view.index.size, np.int64)
    for alignment in alignments(ctx.space, [view.index], [scale, shift]):
        affine = Affine(alignment.spread(scale), alignment.spread(shift))
        elements, scaled = defer(ctx, alignment, affine)
        index[elements.where] = scaled.first_label + elements.elements
    return view.reindexed(index.reshape(view.index.shape))


def defer(ctx: Context, alignment: Alignment, affine: Affine) -> tuple[Alignment, FeatureMap]:
    """The map of an alignment of one operand with the scale and shift deferred, [T, *extent]."""
    wide = alignment.widened()
    if wide is not alignment:
        whole = np.ones(wide.size), np.zeros(wide.size)
        for target, part in zip(whole, (affine.scale, affine.shift), strict=True):
            target[wide.elements] = part.reshape(-1)[alignment.elements]
        shape = wide.sources[0].per_sample_shape
        affine = Affine(whole[0].reshape(shape), whole[1].reshape(shape))
    source = picked_channels(ctx, wide.sources[0], wide.channels[0])
    base = source.base or source
    before = source.deferred
    if before is not None:
        affine = Affine(before.scale * affine.scale, before.shift * affine.scale + affine.shift)
    return wide, ctx.new_map(source, deferred=affine, base=base)


def as_affine(ctx: Context, position: int | None, constant: AnyArray) -> Affine | None:
    """Return the scale and shift of the operator with this constant; None if it is neither.

    ``position`` is the place of the constant, None if there is none (Neg).
    """
    if not np.issubdtype(constant.dtype, np.floating):
        return None
    value = constant.astype(np.float64)
    one, zero = np.ones_like(value), np.zeros_like(value)
    match ctx.node.op_type, position:
        case "Neg", None:
            return Affine(-one, zero)
        case "Add" | "Sum", 0 | 1:
            return Affine(one, value)
        case "Mul", 0 | 1:
            return Affine(value, zero)
        case "Sub", 1:
            return Affine(one, -value)
        case "Sub", 0:
            return Affine(-one, value)
        case "Div", 1 if value.all():
            return Affine(one / value, zero)
        case _:
            return None


def positive_scale(ctx: Context, alignment: Alignment) -> tuple[Alignment, FeatureMap] | None:
    """f(a·x) = a·f(x) for a ≥ 0: the operator on the map, the scale stays deferred.

    None if the operator is none of these (Relu, LeakyRelu, Abs), or what is deferred no such scale.
    """
    wide = alignment.widened()
    (source,) = wide.sources
    if ctx.node.op_type not in _HOMOGENEOUS or not wide.shows_all_channels:
        return None
    if source.deferred is None or source.deferred.shift.any() or (source.deferred.scale < 0).any():
        return None
    base = source.base or source
    made = ctx.new_map(base, name=ctx.fresh(f"{ctx.name}.unscaled"))
    ctx.emit(ctx.node.op_type, (base,), made, carried=tuple(ctx.node.attributes))
    return wide, ctx.new_map(made, deferred=source.deferred, base=made)
