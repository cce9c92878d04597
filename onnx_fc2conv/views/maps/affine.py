"""A pending scale and shift of the elements of a view, until a layer folds it in.

A scale that varies over the positions of a flattened map cannot be applied to a larger map. A
linear layer folds it into its kernel and bias (`kernel`); on single cells, and where all positions
of a channel have the same value, it is applied when another operator needs the map
(`restore.settled`).
"""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.channels import picked_channels
from onnx_fc2conv.views.maps.frames import Frame, frames
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import Affine, FeatureMap, FeatureView

__all__ = ["as_affine", "scaled_view", "waiting"]

_HOMOGENEOUS = ("Relu", "LeakyRelu", "Abs")


def scaled_view(ctx: Context, view: FeatureView, scale: AnyArray, shift: AnyArray) -> FeatureView:
    """Return the view times a scale plus a shift, both float64 of the shape of one sample."""
    index = np.empty(view.index.size, np.int64)
    for frame in frames(ctx.space, [view.index], [scale, shift]):
        affine = Affine(frame.spread(scale), frame.spread(shift))
        elements, waits = waiting(ctx, frame, affine)
        index[elements.where] = waits.first_label + elements.elements
    return view.reindexed(index.reshape(view.index.shape))


def waiting(ctx: Context, frame: Frame, affine: Affine) -> tuple[Frame, FeatureMap]:
    """Return the map of a frame of one operand, with a pending scale and shift [T, *extent]."""
    wide = frame.widened()
    if wide is not frame:
        whole = np.ones(wide.size), np.zeros(wide.size)
        for target, part in zip(whole, (affine.scale, affine.shift), strict=True):
            target[wide.elements] = part.reshape(-1)[frame.elements]
        shape = wide.sources[0].per_sample_shape
        affine = Affine(whole[0].reshape(shape), whole[1].reshape(shape))
    source = picked_channels(ctx, wide.sources[0], wide.channels[0])
    base = source.base or source
    before = source.pending
    if before is not None:
        affine = Affine(before.scale * affine.scale, before.shift * affine.scale + affine.shift)
    return wide, ctx.new_map(source, pending=affine, base=base)


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


def positive_scale(ctx: Context, frame: Frame) -> tuple[Frame, FeatureMap] | None:
    """Apply the operator to the map and keep the scale pending: f(a·x) = a·f(x) for a ≥ 0.

    None if the operator is not Relu, LeakyRelu or Abs, or no such scale is pending.
    """
    wide = frame.widened()
    (source,) = wide.sources
    if ctx.node.op_type not in _HOMOGENEOUS or not wide.shows_all_channels:
        return None
    if source.pending is None or source.pending.shift.any() or (source.pending.scale < 0).any():
        return None
    base = source.base or source
    made = ctx.new_map(base, name=ctx.fresh(f"{ctx.name}.unscaled"))
    ctx.emit(ctx.node.op_type, (base,), made, carried=tuple(ctx.node.attributes))
    return wide, ctx.new_map(made, pending=source.pending, base=made)
