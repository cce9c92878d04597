"""Operators that rank, normalize or add up features: TopK, LayerNormalization, CumSum."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.groups import Along, along_features
from onnx_fc2conv.views.plan import ConstantTensor
from onnx_fc2conv.views.registry import Answer, rule

__all__ = ["cumulative_sum", "layer_normalization", "lp_normalization", "top_k"]


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(ctx: Context) -> Answer:
    """Over all axes from ``axis`` (default -1) on (LayerNormalization-17, RMSNormalization-23)."""
    view = ctx.view(0)
    if view is None or any(ctx.constant_operand(n) is None for n in range(1, len(ctx.operands))):
        ctx.refuse("weight-not-constant", "its parameters are not constants")
    if any(output.uses() or output.is_graph_output() for output in ctx.node.outputs[1:]):
        ctx.refuse("training-mode", "its mean or deviation is used, as training does")
    first = ctx.int_attribute("axis", -1)
    axes = ctx.feature_axes(view, [first], "normalizes over", and_later=True)
    if axes == (view.channel_axis,):
        return ctx.kept_in_layout(view)
    shape = tuple(view.shape[axis] for axis in axes)
    try:
        parameters = tuple(_parameter(ctx, n, shape) for n in range(1, len(ctx.operands)))
    except ValueError:
        ctx.refuse("shape-mismatch", f"its parameters do not fit {list(shape)}")
    carried = ctx.carried("epsilon", "stash_type")
    along = Along(lambda axis: {"axis": axis}, lambda _: parameters, last=True, carried=carried)
    return along_features(ctx, view, axes, along)


def _parameter(ctx: Context, position: int, shape: tuple[int, ...]) -> ConstantTensor | ir.Value:
    """A scale or bias for each element that is normalized: [D]."""
    constant, value = ctx.constant_operand(position), ctx.node.inputs[position]
    assert constant is not None
    assert value is not None
    if constant.shape == (prod(shape),) and constant.tensor is not None:
        return value
    array = np.ascontiguousarray(np.broadcast_to(constant.array, shape)).reshape(-1)
    return ctx.constant(f"{value.name}.features", array)


@rule("LpNormalization")
def lp_normalization(ctx: Context) -> Answer:
    """X / ‖x‖ along one axis (LpNormalization-1/22)."""
    view = ctx.first_view()
    axes = ctx.feature_axes(view, [ctx.int_attribute("axis", -1)], "normalizes over")
    if axes == (view.channel_axis,):
        return ctx.kept_in_layout(view)
    along = Along(lambda axis: {"axis": axis}, symmetric=True, carried=ctx.carried("p"))
    return along_features(ctx, view, axes, along)


@rule("TopK")
def top_k(ctx: Context) -> Answer:
    """The largest (or smallest) K features and their numbers (TopK-1/10/11/24)."""
    view, old = ctx.view(0), ctx.opset < 10
    given = (ctx.int_attribute("k", 0),) if old else ctx.ints_operand(1)
    if view is None or not given:
        ctx.refuse("data-dependent", "takes a number of features that is not constant")
    count = given[0]
    axes = ctx.feature_axes(view, [ctx.int_attribute("axis", -1)], "ranks along")
    if not 0 < count <= view.shape[axes[0]]:
        ctx.refuse("shape-mismatch", f"takes {count} of {view.shape[axes[0]]} features")
    along = Along(
        lambda axis: {"axis": axis, "k": count} if old else {"axis": axis},
        lambda _: () if old else (ctx.integers(f"{ctx.name}.k", [count]),),
        width=count,
        dtypes=(None, ir.DataType.INT64),
        carried=ctx.carried("largest", "sorted"),
    )
    return along_features(ctx, view, axes, along)


@rule("CumSum")
def cumulative_sum(ctx: Context) -> Answer:
    """The sum of the features so far (CumSum-11/14), along an axis that is an input."""
    view, given = ctx.view(0), ctx.ints_operand(1)
    if view is None or given is None:
        ctx.refuse("data-dependent", "adds up along an axis that is not constant")
    axes = ctx.feature_axes(view, given, "adds up along")
    along = Along(
        lambda _: {},
        lambda axis: (ctx.constant(f"{ctx.name}.axis", np.array(axis, np.int64)),),
        carried=ctx.carried("exclusive", "reverse"),
    )
    return along_features(ctx, view, axes, along)
