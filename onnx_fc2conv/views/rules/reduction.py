"""Reductions: over all positions of a map (see `pooling`), or over all features of a window.

The labels that an operator combines show which of the two it is, not its axes: the mean over axis 2
of [N, C, H·W] pools as well.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.groups import Along, along_features
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.registry import Answer, rule
from onnx_fc2conv.views.rules.image_norms import group_means
from onnx_fc2conv.views.rules.pooling import pool_view, pooled_axes, whole_pool

__all__ = ["arg_reduce", "reduce"]


@rule(
    *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)
def reduce(ctx: Context) -> Answer:
    """Reduce*-1/11/13/18: axes are an attribute, or an input from 18 on (ReduceSum: from 13)."""
    axes = ctx.ints_attribute("axes")
    if ctx.operand(1) is not None:
        axes = ctx.ints_operand(1)
        if axes is None:
            ctx.refuse("data-dependent", "reduces over axes that are not constant")
    view = ctx.view(0)
    if view is None:
        ctx.refuse("data-dependent", "reduces over axes that depend on the image")
    if not axes:
        if ctx.int_attribute("noop_with_empty_axes", 0):
            return _over_no_axis(ctx, view)
        axes = tuple(range(len(view.shape)))
    return _reduced(ctx, view, axes, None)


def _over_no_axis(ctx: Context, view: FeatureView) -> FeatureView:
    """``noop_with_empty_axes`` (Reduce*-18, ReduceSum-13): the mean of one element is the element.

    Its square or logarithm is not, and runtimes differ in whether they still apply it.
    """
    if ctx.node.op_type.removeprefix("Reduce") not in ("Mean", "Max", "Min", "Sum", "Prod"):
        ctx.refuse("no-rule", "reduces over no axis, which runtimes take in different ways")
    return view


@rule("ArgMax", "ArgMin")
def arg_reduce(ctx: Context) -> Answer:
    """ArgMax-1/11/12/13 over all features of a window."""
    view = ctx.first_view()
    return _reduced(ctx, view, (ctx.int_attribute("axis", 0),), ir.DataType.INT64)


def _reduced(
    ctx: Context, view: FeatureView, given: tuple[int, ...], dtype: ir.DataType | None
) -> Answer:
    axes = ctx.feature_axes(view, given, "reduces")
    keepdims = bool(ctx.int_attribute("keepdims", 1))
    spatial = pooled_axes(view, axes) if dtype is None else None
    if keepdims and axes == (view.channel_axis,):
        return ctx.kept_in_layout(view, channels=1, dtype=dtype or view.maps[0].dtype)
    if keepdims and view.whole_map is not None and spatial is not None and not ctx.windowed:
        return whole_pool(ctx, view.whole_map, spatial, layout=view.layout)
    if spatial is not None:
        return pool_view(ctx, view, axes, spatial, keepdims=keepdims)
    means = group_means(ctx, view, axes) if ctx.node.op_type == "ReduceMean" else None
    if means is not None:
        return means
    return along_features(ctx, view, axes, _along(ctx, dtype, keepdims=keepdims))


def _along(ctx: Context, dtype: ir.DataType | None, *, keepdims: bool) -> Along:
    """Return the reduction along features; the axis stays in the map, as its channel."""
    if dtype is not None:
        return Along(
            lambda axis: {"axis": axis, "keepdims": 1},
            width=1,
            keepdims=keepdims,
            dtypes=(dtype,),
            carried=ctx.carried("select_last_index"),
        )
    if ctx.opset < (13 if ctx.node.op_type == "ReduceSum" else 18):
        return Along(lambda axis: {"axes": (axis,), "keepdims": 1}, width=1, keepdims=keepdims)
    return Along(
        lambda _: {"keepdims": 1},
        lambda axis: (ctx.integers(f"{ctx.name}.axes", [axis]),),
        width=1,
        keepdims=keepdims,
        symmetric=True,
    )
