"""Operators along the features that rank, normalize or add them up: TopK, LayerNormalization."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.plan import Constant, Kept, Outcome
from onnx_fc2conv.views.rules.groups import Along, along_features, integers
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.view import FeatureView

__all__ = ["cumulative_sum", "layer_normalization", "lp_normalization", "top_k"]


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(app: Application) -> Outcome:
    """Over all axes from ``axis`` (default -1) on (LayerNormalization-17, RMSNormalization-23)."""
    view = app.view(0)
    if view is None or any(app.known(n) is None for n in range(1, len(app.operands))):
        app.refuse("weight-not-constant", "its parameters are not constants")
    if any(output.uses() or output.is_graph_output() for output in app.node.outputs[1:]):
        app.refuse("training-mode", "its mean or deviation is used, as training does")
    first = _axis(app, view, app.int_attribute("axis", -1))
    axes = tuple(range(first, len(view.shape)))
    if view.batch_axis in axes:
        app.refuse("batch-mixing", f"normalizes over axis {view.batch_axis}, the samples")
    if view.whole_map is not None and view.layout is not None and axes == (view.layout[1],):
        output = app.new_map(view.whole_map, value=app.node.outputs[0], layout=view.layout)
        return Kept((output,))
    shape = tuple(view.shape[axis] for axis in axes)
    try:
        parameters = tuple(_parameter(app, n, shape) for n in range(1, len(app.operands)))
    except ValueError:
        app.refuse("shape-mismatch", f"its parameters do not fit {list(shape)}")
    carried = tuple(name for name in ("epsilon", "stash_type") if name in app.node.attributes)
    along = Along(lambda axis: {"axis": axis}, lambda _: parameters, last=True, carried=carried)
    return along_features(app, view, axes, along)


def _parameter(app: Application, position: int, shape: tuple[int, ...]) -> Constant | ir.Value:
    """A scale or bias for each element that is normalized: [D]."""
    known, value = app.known(position), app.node.inputs[position]
    assert known is not None
    assert value is not None
    if known.shape == (prod(shape),) and known.tensor is not None:
        return value
    array = np.ascontiguousarray(np.broadcast_to(known.array, shape)).reshape(-1)
    name = app.names.fresh(f"{value.name}.features")
    return Constant(name, array.shape, lambda: ir.Tensor(array))


@rule("LpNormalization")
def lp_normalization(app: Application) -> Outcome:
    """X / ‖x‖ along one axis (LpNormalization-1/22)."""
    view = app.view(0)
    assert view is not None
    axis = _axis(app, view, app.int_attribute("axis", -1))
    if view.batch_axis == axis:
        app.refuse("batch-mixing", f"normalizes over axis {axis}, which holds the samples")
    if view.whole_map is not None and view.layout is not None and axis == view.layout[1]:
        output = app.new_map(view.whole_map, value=app.node.outputs[0], layout=view.layout)
        return Kept((output,))
    carried = tuple(name for name in ("p",) if name in app.node.attributes)
    along = Along(lambda axis: {"axis": axis}, symmetric=True, carried=carried)
    return along_features(app, view, (axis,), along)


@rule("TopK")
def top_k(app: Application) -> Outcome:
    """The largest (or smallest) K features and their numbers (TopK-1/10/11/24)."""
    view, known = app.view(0), app.known(1)
    count = app.int_attribute("k", 0)
    if view is None or (app.opset >= 10 and (known is None or known.sized)):
        app.refuse("data-dependent", "takes a number of features that is not constant")
    if known is not None:
        count = int(known.array.reshape(-1)[0])
    axis = _axis(app, view, app.int_attribute("axis", -1))
    if view.batch_axis == axis:
        app.refuse("batch-mixing", f"ranks along axis {axis}, which holds the samples")
    if not 0 < count <= view.shape[axis]:
        app.refuse("shape-mismatch", f"takes {count} of {view.shape[axis]} features")
    carried = tuple(name for name in ("largest", "sorted") if name in app.node.attributes)
    old = app.opset < 10
    along = Along(
        lambda axis: {"axis": axis, "k": count} if old else {"axis": axis},
        lambda _: () if old else (integers(app, f"{app.node.outputs[0].name}.k", [count]),),
        width=count,
        dtypes=(None, ir.DataType.INT64),
        carried=carried,
    )
    return along_features(app, view, (axis,), along)


@rule("CumSum")
def cumulative_sum(app: Application) -> Outcome:
    """The sum of the features so far (CumSum-11/14), along an axis that is an input."""
    view, known = app.view(0), app.known(1)
    if view is None or known is None or known.sized:
        app.refuse("data-dependent", "adds up along an axis that is not constant")
    axis = _axis(app, view, int(known.array.reshape(-1)[0]))
    if view.batch_axis == axis:
        app.refuse("batch-mixing", f"adds up along axis {axis}, which holds the samples")
    name = app.node.outputs[0].name or app.node.op_type

    def scalar(axis: int) -> tuple[Constant, ...]:
        array = np.array(axis, np.int64)
        return (Constant(app.names.fresh(f"{name}.axis"), (), lambda: ir.Tensor(array)),)

    carried = tuple(name for name in ("exclusive", "reverse") if name in app.node.attributes)
    return along_features(app, view, (axis,), Along(lambda _: {}, scalar, carried=carried))


def _axis(app: Application, view: FeatureView, axis: int) -> int:
    rank = len(view.shape)
    if not -rank <= axis < rank:
        app.refuse("invalid-node", f"axis {axis} does not exist in {list(view.shape)}")
    return axis % rank
