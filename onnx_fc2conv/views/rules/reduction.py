"""Reductions: over all positions of a map (see `pooling`), or over all features of a window.

Which of the two an operator is, is read off the labels that it brings together, not off its axes:
the mean over axis 2 of [N, C, H·W] pools as well.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.views.plan import Kept, Outcome, Viewed
from onnx_fc2conv.views.rules.groups import Along, along_features, integers
from onnx_fc2conv.views.rules.image_norms import group_means
from onnx_fc2conv.views.rules.pooling import (
    pool_view,
    pooled_axes,
    pooled_map,
)
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["arg_reduce", "reduce"]


@rule(
    *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)
def reduce(app: Application) -> Outcome:
    """Reduce*-1/11/13/18: axes are an attribute, or an input from 18 on (ReduceSum: from 13)."""
    axes = app.ints_attribute("axes")
    given = app.operand(1)
    if given is not None:
        known = app.known(1)
        if known is None or known.sized:
            app.refuse("data-dependent", "reduces over axes that are not constant")
        axes = tuple(int(axis) for axis in known.array.reshape(-1)) or None
    view = app.view(0)
    if view is None:
        app.refuse("data-dependent", "reduces over axes that depend on the image")
    if axes is None:
        if app.int_attribute("noop_with_empty_axes", 0):
            return _over_no_axis(app, view)
        axes = tuple(range(len(view.shape)))
    return _reduced(app, view, axes, None)


def _over_no_axis(app: Application, view: FeatureView) -> Outcome:
    """``noop_with_empty_axes`` (Reduce*-18, ReduceSum-13): the mean of one element is the element.

    Its square or logarithm is not, and runtimes differ in whether they still take it.
    """
    if app.node.op_type.removeprefix("Reduce") not in ("Mean", "Max", "Min", "Sum", "Prod"):
        app.refuse("no-rule", "reduces over no axis, which runtimes take in different ways")
    return Viewed((view,))


@rule("ArgMax", "ArgMin")
def arg_reduce(app: Application) -> Outcome:
    """ArgMax-1/11/12/13 over all features of a window."""
    view = app.view(0)
    assert view is not None
    return _reduced(app, view, (app.int_attribute("axis", 0),), ir.DataType.INT64)


def _reduced(
    app: Application, view: FeatureView, given: tuple[int, ...], dtype: ir.DataType | None
) -> Outcome:
    rank = len(view.shape)
    if any(not -rank <= axis < rank for axis in given):
        app.refuse("invalid-node", f"axes {list(given)} do not exist in {list(view.shape)}")
    axes = tuple(sorted({axis % rank for axis in given}))
    if view.batch_axis in axes:
        app.refuse("batch-mixing", f"reduces axis {view.batch_axis}, which holds the samples")
    keepdims = bool(app.int_attribute("keepdims", 1))
    spatial = pooled_axes(view, axes) if dtype is None else None
    if keepdims and view.layout is not None and view.whole_map is not None:
        kept = _kept(app, view.whole_map, view.layout, axes, spatial, dtype)
        if kept is not None:
            return kept
    if spatial is not None:
        return pool_view(app, view, axes, spatial, keepdims=keepdims)
    means = group_means(app, view, axes) if app.node.op_type == "ReduceMean" else None
    if means is not None:
        return means
    return along_features(app, view, axes, _along(app, dtype, keepdims=keepdims))


def _kept(  # noqa: PLR0913 - a map and what is reduced of it
    app: Application,
    source: FeatureMap,
    layout: tuple[int, ...],
    axes: tuple[int, ...],
    spatial: tuple[int, ...] | None,
    dtype: ir.DataType | None,
) -> Kept | None:
    """The node stays if it reduces the channels or all positions of a map; None if it cannot."""
    value = app.node.outputs[0]
    if axes == (layout[1],):
        changes = {"channels": 1, "dtype": dtype or source.dtype}
        return Kept((app.new_map(source, value=value, layout=layout, **changes),))
    if spatial is None or app.windowed:
        return None
    output = pooled_map(app, source, spatial, value=value, layout=layout)
    return Kept((output,))


def _along(app: Application, dtype: ir.DataType | None, *, keepdims: bool) -> Along:
    """The reduction along features; the axis stays in the map, for its cells to have a channel."""
    name = app.node.outputs[0].name or app.node.op_type
    if dtype is not None:
        carried = tuple(name for name in ("select_last_index",) if name in app.node.attributes)
        return Along(
            lambda axis: {"axis": axis, "keepdims": 1},
            width=1,
            keepdims=keepdims,
            dtypes=(dtype,),
            carried=carried,
        )
    if app.opset < (13 if app.node.op_type == "ReduceSum" else 18):
        return Along(lambda axis: {"axes": (axis,), "keepdims": 1}, width=1, keepdims=keepdims)
    return Along(
        lambda _: {"keepdims": 1},
        lambda axis: (integers(app, f"{name}.axes", [axis]),),
        width=1,
        keepdims=keepdims,
        symmetric=True,
    )
