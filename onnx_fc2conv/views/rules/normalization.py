"""Operators that normalize: BatchNormalization, Softmax, LRN."""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.plan import Emitted, Kept, Outcome, Step
from onnx_fc2conv.views.rules.affine import scaled_view
from onnx_fc2conv.views.rules.groups import Along, along_features
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.rules.restore import restored
from onnx_fc2conv.views.view import FeatureView, channels_first

__all__ = ["batch_normalization", "softmax", "softmax_of"]


@rule("BatchNormalization")
def batch_normalization(app: Application) -> Outcome:
    """Y = (x - mean) / √(var + ε) · scale + B per channel (BatchNormalization-7/9/14/15).

    On features (axis 1 of a flattened tensor) it is a scale and a shift per feature, which waits
    for the next linear layer unless the features are single cells.
    """
    view = app.view(0)
    parameters = [app.known(position) for position in range(1, 5)]
    if view is None or any(parameter is None for parameter in parameters):
        app.refuse("weight-not-constant", "its parameters are not constants")
    if app.int_attribute("spatial", 1) == 0 and len(view.shape) > 2:  # BatchNormalization-7
        why = f"normalizes each position of {list(view.shape)} by itself, so it fits one size only"
        app.refuse("positional-constant", why)
    if app.int_attribute("training_mode", 0):
        app.refuse("training-mode", "is in training mode: export the model for inference")
    if any(output.uses() or output.is_graph_output() for output in app.node.outputs[1:]):
        app.refuse("training-mode", "its running statistics are used")
    if view.layout is not None and view.whole_map is not None:
        if view.layout != channels_first(len(view.layout)):
            app.refuse("layout", "normalizes axis 1, which is not the channel axis here")
        return Kept((app.new_map(view.whole_map, value=app.node.outputs[0]),))

    if view.batch_axis != 0 or len(view.shape) < 2:
        app.refuse("layout", f"normalizes axis 1 of a view of shape {list(view.shape)}")
    source = view.only_map
    if source is None or not source.is_cell or source.pending is not None:
        return _waiting_normalization(app, view)
    local = view.local_index(source)
    in_order = np.array_equal(local.reshape(-1), np.arange(source.channels))
    if not in_order or local.shape[0] != source.channels:
        return _waiting_normalization(app, view)
    output = app.new_map(source)
    inputs = (source, *app.node.inputs[1:5])
    carried = tuple(name for name in app.node.attributes if name != "spatial")
    step = Step("BatchNormalization", inputs, output, app.node, carried=carried)
    return Emitted((step,), view.relabelled(source, output))


def _waiting_normalization(app: Application, view: FeatureView) -> Outcome:
    """The normalization as a pending scale and shift of every element of the maps."""
    scale, bias, mean, variance = (
        known.array.astype(np.float64)
        for known in (app.known(position) for position in range(1, 5))
        if known is not None
    )
    epsilon = app.node.attributes.get_float("epsilon", 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    offset = bias - mean * factor
    shape = view.index.shape
    if factor.shape != shape[:1]:
        app.refuse(
            "shape-mismatch", f"has {factor.size} channels for an input of {list(view.shape)}"
        )
    by_channel = (-1, *[1] * (len(shape) - 1))
    return scaled_view(
        app,
        view,
        np.broadcast_to(factor.reshape(by_channel), shape),
        np.broadcast_to(offset.reshape(by_channel), shape),
    )


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(app: Application) -> Outcome:
    """Over features of a window or a position: along the channels of the map.

    From opset 13 the operator works along one axis (default -1); before, over all axes from
    ``axis`` (default 1) on, as one (Softmax-1/11/13).
    """
    coerces = app.opset < 13
    symmetric = app.node.op_type != "Hardmax"
    along = Along(lambda axis: {"axis": axis}, last=coerces, symmetric=symmetric)
    return softmax_of(app, along, coerces=coerces)


def softmax_of(app: Application, along: Along, *, coerces: bool) -> Outcome:
    """A Softmax over the axis that the node says; if it ``coerces``, over all from that one on."""
    view = app.view(0)
    assert view is not None
    rank = len(view.shape)
    axis = app.int_attribute("axis", 1 if coerces else -1)
    if not -rank <= axis < max(rank, 1):
        app.refuse("invalid-node", f"axis {axis} does not exist in {list(view.shape)}")
    axis %= rank
    axes = set(range(axis, rank)) if coerces else {axis}
    if view.batch_axis in axes:
        app.refuse("batch-mixing", f"normalizes over axis {axis}, which holds the samples")
    if view.layout is not None and view.whole_map is not None and axes == {view.layout[1]}:
        layout = view.layout
        return Kept((app.new_map(view.whole_map, value=app.node.outputs[0], layout=layout),))
    return along_features(app, view, tuple(sorted(axes)), along)


@rule("LRN")
def local_response_normalization(app: Application) -> Outcome:
    """LRN-1/13 normalizes over neighboring channels, cell by cell."""
    found = restored(app)
    (source,) = found.maps
    output = app.new_map(source, value=app.node.outputs[0])
    return Kept((output,), restored=found.restored, steps=found.steps)
