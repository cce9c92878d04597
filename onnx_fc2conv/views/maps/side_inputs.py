"""Tensors that are not made from the image, where they meet its features.

A vector [N, D] beside the image (a second input, or computed from one) is a map of D channels with
one cell for the whole image, like a globally pooled map: every cell of a larger map is combined
with it. The nodes that compute it stay as they are. Constants that are joined with features are
such a map too.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView, channels_first
from onnx_fc2conv.views.registry import Fact

__all__ = ["constant_map", "with_side_inputs"]


def with_side_inputs(ctx: Context, *, constants: bool = False) -> Context:
    """The node with each operand that is not from the image as a view of a map of one cell.

    Args:
        ctx: The node.
        constants: Whether constant operands become maps as well.

    Raises:
        NodeRefused: Unless the operand's shape is known, with the samples on axis 0.
    """
    operands: list[Fact | None] = []
    for value, fact in zip(ctx.node.inputs, ctx.operands, strict=True):
        if isinstance(fact, Unknown) and value is not None:
            if fact.uniform is None:
                operands.append(_side_input(ctx, value, constants=constants))
            else:
                operands.append(_uniform(ctx, value, fact.uniform))
        elif isinstance(fact, Constant) and constants:
            operands.append(_constant(ctx, fact))
        else:
            operands.append(fact)
    return replace(ctx, operands=tuple(operands))


def constant_map(ctx: Context, values: AnyArray) -> FeatureMap:
    """Return a map of one cell with these values [C] as channels, whatever the image."""
    like = next(fact for fact in ctx.operands if isinstance(fact, FeatureView)).maps[0]
    name = ctx.fresh(f"{ctx.name}.constant")
    dtype = ir.DataType.from_numpy(values.dtype)
    made = _one_cell(ctx, name, values.size, len(like.extent), dtype)
    made = ctx.space.add(replace(made, constant=values))
    stored = ctx.constant(f"{name}.values", values.reshape(1, *made.per_sample_shape))
    return ctx.emit("Identity", (stored,), made)


def _one_cell(ctx: Context, name: str, channels: int, rank: int, dtype: ir.DataType) -> FeatureMap:
    return FeatureMap(
        name=name,
        channels=channels,
        extent=(1,) * rank,
        dtype=dtype,
        field=(AxisField().pool_globally(1),) * rank,
        first_label=ctx.space.reserve(channels),
        layout=channels_first(2 + rank),
    )


def _side_input(ctx: Context, value: ir.Value, *, constants: bool) -> FeatureView:
    """A tensor [N, …] of the model."""
    shape, name = value.shape, value.name or ""
    if shape is None or value.dtype is None or len(shape) < 1:
        ctx.refuse("other-input", f"is given {name}, of which the shape is not known")
    features = tuple(dim for dim in shape[1:] if isinstance(dim, int))
    samples = shape[0]
    # Operators other than Concat broadcast one vector for all images.
    fits = (ctx.batches.native,) if constants else (ctx.batches.native, 1)
    if len(features) < len(shape) - 1 or (isinstance(samples, int) and samples not in fits):
        ctx.refuse(
            "other-input",
            f"combines features of the image with {name} [{', '.join(map(_dim, shape))}], which is "
            "not one vector for each image",
        )
    views = [fact for fact in ctx.operands if isinstance(fact, FeatureView)]
    rank = len(views[0].maps[0].extent)
    plain = channels_first(2 + rank)
    layout = next((view.layout for view in views if view.layout is not None), plain)
    if len(shape) == len(layout) and all(shape[axis] == 1 for axis in layout[2:]):
        made = _one_cell(ctx, name, prod(features), rank, value.dtype)
        made = ctx.space.add(replace(made, layout=layout, value=value))
        return FeatureView.of(made, ctx.space, ctx.batches)
    made = _one_cell(ctx, ctx.fresh(f"{name}.map"), prod(features), rank, value.dtype)
    _reshape(ctx, value, 0, made)
    index = made.first_label + np.arange(made.size, dtype=np.int64).reshape(features)
    return FeatureView.of_index(ctx.space, ctx.batches, index, 0, any_batch=True)


def _reshape(ctx: Context, value: ir.Value, samples: int, made: FeatureMap) -> None:
    """Reshape a tensor to the map of single cells [samples, C, 1, …]."""
    target = np.array([samples, *made.per_sample_shape], np.int64)
    shape = ctx.constant(f"{made.name}.shape", target)
    ctx.emit("Reshape", (value, shape), ctx.space.add(made))


def _dim(dim: int | ir.SymbolicDim) -> str:
    return str(dim) if isinstance(dim, int) else dim.value or "?"


def _uniform(ctx: Context, value: ir.Value, shape: tuple[int, ...]) -> FeatureView:
    """Return numbers that all samples share, with the axes of the views that they meet."""
    view = next(fact for fact in ctx.operands if isinstance(fact, FeatureView))
    aligned = [1] * (len(view.shape) - len(shape)) + list(shape)
    batch = view.batch_axis
    if len(aligned) > len(view.shape) or (batch is not None and aligned.pop(batch) != 1):
        ctx.refuse("other-input", f"is given {value.name} {list(shape)}, with axes of its own")
    rank, name = len(view.maps[0].extent), ctx.fresh(f"{value.name}.map")
    made = _one_cell(ctx, name, prod(shape), rank, value.dtype or ir.DataType.FLOAT)
    _reshape(ctx, value, 1, made)
    index = made.first_label + np.arange(made.size, dtype=np.int64).reshape(aligned)
    return view.with_index(index, batch)


def _constant(ctx: Context, constant: Constant) -> FeatureView:
    """A constant with the axes of the views that it is joined with."""
    view = next(fact for fact in ctx.operands if isinstance(fact, FeatureView))
    axis = view.batch_axis
    array = constant.array
    if array.ndim != len(view.shape):
        ctx.refuse("invalid-node", f"is given a constant of shape {list(array.shape)}")
    if axis is not None:
        if not (array == array.take([0], axis=axis)).all():
            ctx.refuse("batch-mixing", "its constant differs from sample to sample")
        array = array.take(0, axis=axis)
    made = constant_map(ctx, np.ascontiguousarray(array.reshape(-1)))
    index = made.first_label + np.arange(made.size, dtype=np.int64).reshape(array.shape)
    any_batch = constant.sized and axis is not None and view.labels.other is not None
    return FeatureView.of_index(ctx.space, ctx.batches, index, axis, any_batch=any_batch)
