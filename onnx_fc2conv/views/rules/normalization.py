"""Operators that normalize: BatchNormalization, Softmax, LRN, InstanceNormalization."""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.plan import Emitted, Kept, Outcome, Step
from onnx_fc2conv.views.rules.elementwise import pending_affine
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.rules.restore import channels_as_map, settled
from onnx_fc2conv.views.view import Affine, FeatureMap, FeatureView, Known, channels_first

__all__ = ["batch_normalization", "softmax"]


@rule("BatchNormalization")
def batch_normalization(app: Application) -> Outcome:
    """Y = (x - mean) / √(var + ε) · scale + B per channel (BatchNormalization-7/9/14/15).

    On features (axis 1 of a flattened tensor) it is a scale and a shift per feature, which waits
    for the next linear layer unless the features are single cells.
    """
    view = app.view(0)
    parameters = [app.known(position) for position in range(1, 5)]
    if view is None or any(parameter is None for parameter in parameters):
        return app.refuse("weight-not-constant", "its parameters are not constants")
    if app.int_attribute("training_mode", 0) or app.int_attribute("spatial", 1) == 0:
        return app.refuse("training-mode", "is in training mode: export the model for inference")
    if any(output.uses() or output.is_graph_output() for output in app.node.outputs[1:]):
        return app.refuse("training-mode", "its running statistics are used")
    if view.layout is not None and view.whole_map is not None:
        if view.layout != channels_first(len(view.layout)):
            return app.refuse("layout", "normalizes axis 1, which is not the channel axis here")
        return Kept((app.new_map(view.whole_map, value=app.node.outputs[0]),))

    source = view.only_map
    if source is None or view.batch_axis != 0 or len(view.shape) < 2:
        return app.refuse("layout", f"normalizes axis 1 of a view of shape {list(view.shape)}")
    local = view.local_index(source)
    in_order = source.is_cell and np.array_equal(local.reshape(-1), np.arange(source.channels))
    if in_order and local.shape[0] == source.channels and source.pending is None:
        output = app.new_map(source)
        inputs = (source, *app.node.inputs[1:5])
        step = Step(
            "BatchNormalization", inputs, output, app.node, carried=tuple(app.node.attributes)
        )
        return Emitted((step,), view.relabelled(source, output))
    return _waiting_normalization(app, view, source)


def _waiting_normalization(app: Application, view: FeatureView, source: FeatureMap) -> Outcome:
    """The normalization as a pending scale and shift of every element of the map."""
    scale, bias, mean, variance = (
        known.array.astype(np.float64)
        for known in (app.known(position) for position in range(1, 5))
        if known is not None
    )
    epsilon = app.node.attributes.get_float("epsilon", 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    offset = bias - mean * factor
    index = view.local_index(source)
    shape = (-1, *[1] * (index.ndim - 1))
    if factor.shape != (index.shape[0],):
        return app.refuse(
            "shape-mismatch", f"has {factor.size} channels for an input of {list(view.shape)}"
        )
    on_scale, on_shift = np.ones(source.size), np.zeros(source.size)
    on_scale[index] = np.broadcast_to(factor.reshape(shape), index.shape)
    on_shift[index] = np.broadcast_to(offset.reshape(shape), index.shape)
    if not (on_scale[index] == factor.reshape(shape)).all():
        return app.refuse("position-dependent", "treats one feature in two ways")
    affine = Affine(
        on_scale.reshape(source.per_sample_shape), on_shift.reshape(source.per_sample_shape)
    )
    return pending_affine(app, view, affine)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(app: Application) -> Outcome:
    """Over all features of a window: over axis 1 of the map.

    From opset 13 the operator works along one axis (default -1); before, over all axes from
    ``axis`` (default 1) on, as one (Softmax-1/11/13).
    """
    view = app.view(0)
    assert view is not None
    rank = len(view.shape)
    coerces = app.opset < 13
    axis = app.int_attribute("axis", 1 if coerces else -1)
    if not -rank <= axis < max(rank, 1):
        return app.refuse("invalid-node", f"axis {axis} does not exist in {list(view.shape)}")
    axis %= rank
    axes = set(range(axis, rank)) if coerces else {axis}
    if view.batch_axis in axes:
        return app.refuse("batch-mixing", f"normalizes over axis {axis}, which holds the samples")
    if view.layout is not None and view.whole_map is not None and axes == {view.layout[1]}:
        layout = view.layout
        return Kept((app.new_map(view.whole_map, value=app.node.outputs[0], layout=layout),))

    together = int(np.prod([view.shape[a] for a in axes if a != view.batch_axis]))
    if together != view.index.size:
        return app.refuse(
            "softmax-groups",
            f"normalizes {together} of the {view.index.size} features of a sample "
            f"({list(view.shape)} along {sorted(axes)})",
        )
    found = _one_cell(app, view)
    if isinstance(found, Refusal):
        return found
    steps, source, result = found
    return _over_channels(app, steps, source, result, coerces)


def _one_cell(
    app: Application, view: FeatureView
) -> tuple[tuple[Step, ...], FeatureMap, FeatureView] | Refusal:
    """A map whose channels are exactly the view's features, and the view of it."""
    source = view.only_map
    if source is not None and source.is_cell:
        index = np.sort(view.local_index(source).reshape(-1))
        if np.array_equal(index, np.arange(source.channels)):
            steps, ready = settled(app, source)
            return steps, ready, view.relabelled(source, ready)
    found = channels_as_map(app, view)
    if isinstance(found, Refusal):
        return found
    return *found, view.row_major_of(found[1])


def _over_channels(
    app: Application,
    steps: tuple[Step, ...],
    source: FeatureMap,
    view: FeatureView,
    coerces: bool,
) -> Outcome:
    """The operator along axis 1 of the map.

    Before opset 13 it would take the spatial axes with it, so the channels go last for it.
    """
    op_type = app.node.op_type
    if not coerces:
        output = app.new_map(source)
        step = Step(op_type, (source,), output, app.node, {"axis": 1})
        return Emitted((*steps, step), view.relabelled(source, output))
    rank = 2 + len(source.extent)
    last = (0, *range(2, rank), 1)
    back = (0, rank - 1, *range(1, rank - 1))
    name = app.node.outputs[0].name or op_type
    to_last = app.new_map(source, name=app.names.fresh(f"{name}.channels_last"), layout=back)
    inner = app.new_map(to_last, name=app.names.fresh(f"{name}.over_channels"), layout=back)
    output = app.new_map(inner)
    return Emitted(
        (
            *steps,
            Step("Transpose", (source,), to_last, app.node, {"perm": last}),
            Step(op_type, (to_last,), inner, app.node, {"axis": rank - 1}),
            Step("Transpose", (inner,), output, app.node, {"perm": back}),
        ),
        view.relabelled(source, output),
    )


@rule("LRN")
def local_response_normalization(app: Application) -> Outcome:
    """LRN-1/13 normalizes over neighboring channels, cell by cell."""
    return _channelwise(app, None)


@rule("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization")
def whole_image_normalization(app: Application) -> Outcome:
    """Normalizes each channel over all positions: every cell depends on the whole image."""
    return _channelwise(app, app.node.op_type)


def _channelwise(app: Application, mixes: str | None) -> Outcome:
    view = app.view(0)
    assert view is not None
    if view.layout is None or view.whole_map is None:
        return app.refuse("flattened-features", f"works on a view of shape {list(view.shape)}")
    if view.layout != channels_first(len(view.layout)):
        return app.refuse("layout", "takes axis 1 for the channels, which it is not here")
    if mixes is not None and view.whole_map.made_by_fc:
        return app.refuse("slides-after-fc", "normalizes the single cell that an FC layer gives")
    if any(not isinstance(fact, Known) for fact in app.operands[1:] if fact is not None):
        return app.refuse("weight-not-constant", "its parameters are not constants")
    output = app.new_map(view.whole_map, value=app.node.outputs[0], mixes_positions=mixes)
    return Kept((output,))
