"""Reductions: over all positions of a map (global pooling), or over all features of a window.

The first kind gives one cell for the whole image; the second one channel in every cell. Which of
the two an operator is, is read off the labels that it brings together, not off its axes: the mean
over axis 2 of [N, C, H·W] pools as well.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.labels import SAMPLE, IntArray
from onnx_fc2conv.views.plan import AttributeValue, Constant, Emitted, Kept, Outcome, Step
from onnx_fc2conv.views.rules.registry import Application, describe, rule
from onnx_fc2conv.views.rules.restore import channels_as_map
from onnx_fc2conv.views.view import FeatureMap, FeatureView, Labels

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
            return app.refuse("data-dependent", "reduces over axes that are not constant")
        axes = tuple(int(axis) for axis in known.array.reshape(-1)) or None
    view = app.view(0)
    assert view is not None
    if axes is None:
        if app.int_attribute("noop_with_empty_axes", 0):
            return app.refuse("invalid-node", "reduces over no axis")
        axes = tuple(range(len(view.shape)))
    return _reduced(app, view, axes, None)


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
        return app.refuse("invalid-node", f"axes {list(given)} do not exist in {list(view.shape)}")
    axes = tuple(sorted({axis % rank for axis in given}))
    if view.batch_axis in axes:
        return app.refuse(
            "batch-mixing", f"reduces axis {view.batch_axis}, which holds the samples"
        )
    keepdims = app.int_attribute("keepdims", 1)
    if keepdims and view.layout is not None and view.whole_map is not None:
        kept = _kept(app, view.whole_map, view.layout, axes, dtype)
        if kept is not None:
            return kept

    pools = dtype is None and _is_pooling(view, axes)
    steps: tuple[Step, ...] = ()
    source = view.maps[0]
    if not pools:
        if view.index.size != np.prod([view.shape[axis] for axis in axes]):
            return app.refuse(
                "feature-groups",
                f"reduces axes {list(axes)} of {list(view.shape)}: neither all features of a "
                "sample nor all positions of a channel",
            )
        found = channels_as_map(app, view)
        if isinstance(found, Refusal):
            return found
        steps, source = found
    output = _pooled(app, source) if pools else app.new_map(source, channels=1)
    if dtype is not None:
        output = app.new_map(output, dtype=dtype, sources=(source,))
    spatial = tuple(range(2, 2 + len(source.extent)))
    step = _step(app, source, output, spatial if pools else (1,))
    return Emitted((*steps, step), _view(app, view, axes, source if pools else None, output))


def _kept(
    app: Application,
    source: FeatureMap,
    layout: tuple[int, ...],
    axes: tuple[int, ...],
    dtype: ir.DataType | None,
) -> Kept | None:
    """The node stays if it reduces the channels or all positions of a map; None if it cannot."""
    value = app.node.outputs[0]
    if axes == (layout[1],):
        changes = {"channels": 1, "dtype": dtype or source.dtype}
        return Kept((app.new_map(source, value=value, layout=layout, **changes),))
    if dtype is None and axes == tuple(sorted(layout[2:])) and not source.made_by_fc:
        return Kept((_pooled(app, source, value=value, layout=layout),))
    return None


def _pooled(app: Application, source: FeatureMap, **changes: object) -> FeatureMap:
    """The map of one cell for the whole image."""
    return app.new_map(
        source,
        extent=(1,) * len(source.extent),
        field=tuple(f.pool_globally(e) for f, e in zip(source.field, source.extent, strict=True)),
        mixes_positions=describe(app.node),
        **changes,
    )


def _is_pooling(view: FeatureView, axes: tuple[int, ...]) -> bool:
    """Whether what is reduced together is always all positions of one channel, each once."""
    source = view.only_map
    if source is None or source.is_cell or source.pending is not None:
        return False
    positions = source.size // source.channels
    local = view.labels.native % SAMPLE - source.first_label
    if np.prod([local.shape[axis] for axis in axes]) != positions:
        return False
    rest = [axis for axis in range(local.ndim) if axis not in axes]
    groups = np.sort(local.transpose(*rest, *axes).reshape(-1, positions), axis=1)
    channels = groups[:, :1] // positions * positions
    return bool((groups == channels + np.arange(positions)).all())


def _step(app: Application, source: FeatureMap, output: FeatureMap, axes: tuple[int, ...]) -> Step:
    op_type = app.node.op_type
    if op_type in ("ArgMax", "ArgMin"):
        carried = tuple(name for name in ("select_last_index",) if name in app.node.attributes)
        attributes: dict[str, AttributeValue] = {"axis": axes[0], "keepdims": 1}
        return Step(op_type, (source,), output, app.node, attributes, carried)
    if app.opset < (13 if op_type == "ReduceSum" else 18):
        return Step(op_type, (source,), output, app.node, {"axes": axes, "keepdims": 1})
    constant = Constant(
        app.names.fresh(f"{output.name}.axes"),
        (len(axes),),
        lambda: ir.Tensor(np.array(axes, np.int64)),
    )
    return Step(op_type, (source, constant), output, app.node, {"keepdims": 1})


def _view(
    app: Application,
    view: FeatureView,
    axes: tuple[int, ...],
    pooled: FeatureMap | None,
    output: FeatureMap,
) -> FeatureView:
    """The result as a view of the new map: by channel where positions of ``pooled`` are gone."""

    def reduced(labels: IntArray) -> IntArray:
        first = labels[
            tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(labels.ndim))
        ]
        elements = np.zeros_like(first)
        if pooled is not None:
            elements = (first % SAMPLE - pooled.first_label) // (pooled.size // pooled.channels)
        made: IntArray = first // SAMPLE * SAMPLE + output.first_label + elements
        return made if app.int_attribute("keepdims", 1) else made.squeeze(axes)

    def labels() -> Labels:
        other = view.labels.other
        return Labels(reduced(view.labels.native), None if other is None else reduced(other))

    return FeatureView(app.space, app.batches, labels)
