"""Operators that normalize over the whole image: every cell depends on all of it.

InstanceNormalization of each channel, GroupNormalization of groups of channels (Wu & He 2018), also
as exporters write it:

    Reshape [0, G, -1]  →  InstanceNormalization  →  Reshape back, to a size that is a constant

The groups are whole channels in order; what is written is the same at any size. Where a norm is
written as a sum, a difference and so on, the means of each group are one cell for the whole image.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.known import Known
from onnx_fc2conv.views.labels import IntArray
from onnx_fc2conv.views.plan import Emitted, Intermediate, Kept, Outcome, Step
from onnx_fc2conv.views.rules.groups import integers, reduced_view
from onnx_fc2conv.views.rules.pooling import pooled_map, reducing_step
from onnx_fc2conv.views.rules.registry import Application, describe, rule
from onnx_fc2conv.views.rules.restore import picked_channels, restored, settled, single_map
from onnx_fc2conv.views.rules.rows import rows_along, sample_axes
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["group_means", "instance_normalization", "whole_image_normalization"]


@rule("InstanceNormalization")
def instance_normalization(app: Application) -> Outcome:
    """InstanceNormalization-1/6/22: over axes 2 and up, of channels or of groups of them."""
    view = app.view(0)
    if view is None or any(app.known(position) is None for position in (1, 2)):
        app.refuse("weight-not-constant", "its parameters are not constants")
    if view.layout is not None:
        return whole_image_normalization(app)
    if view.batch_axis != 0 or len(view.shape) < 3:
        app.refuse("layout", f"normalizes axis 1 of a view of shape {list(view.shape)}")
    steps, source = _channels_in_groups(app, view)
    name = app.node.outputs[0].name or app.node.op_type
    grouped, normal = (
        Intermediate(app.names.fresh(f"{name}.{part}"), source.dtype)
        for part in ("groups", "normalized")
    )
    size = Intermediate(app.names.fresh(f"{name}.shape"), ir.DataType.INT64)
    made = app.new_map(source, name=name, mixes_positions=describe(app.node))
    shape = integers(app, f"{name}.groups", [0, view.shape[1], -1])
    carried = tuple(app.node.attributes)
    return Emitted(
        (
            *steps,
            Step("Reshape", (source, shape), grouped, app.node),
            Step(
                "InstanceNormalization",
                (grouped, *app.node.inputs[1:3]),
                normal,
                app.node,
                carried=carried,
            ),
            Step("Shape", (source,), size, app.node),
            Step("Reshape", (normal, size), made, app.node),
        ),
        view.row_major_of(made),
    )


def _channels_in_groups(app: Application, view: FeatureView) -> tuple[tuple[Step, ...], FeatureMap]:
    """The map of which axis 1 of the view holds groups of whole channels, one after the other."""
    steps, source, local = single_map(app, view)
    channels = _whole_channels(source, local.reshape(view.shape[1], -1))
    if channels is None:
        app.refuse(
            "flattened-features",
            f"normalizes groups of elements of {source.name} {list(source.per_sample_shape)} that "
            "are not whole channels",
        )
    if source.one_per_window:
        app.refuse("slides-after-fc", "normalizes the cell that an FC layer gives")
    if not source.scales_by_channel:
        app.refuse("position-dependent", "follows a scale that differs between positions")
    more, source = settled(app, source)
    picked, source = picked_channels(app, source, channels)
    return (*steps, *more, *picked), source


def _whole_channels(source: FeatureMap, lists: IntArray) -> IntArray | None:
    """The channels of which these lists of elements [G, D] hold all positions in order."""
    positions = source.size // source.channels
    if lists.shape[1] % positions:
        return None
    elements = lists.reshape(-1, positions)
    channels: IntArray = elements[:, 0] // positions
    whole = (elements == channels[:, None] * positions + np.arange(positions)).all()
    return channels if whole else None


def group_means(app: Application, view: FeatureView, axes: tuple[int, ...]) -> Outcome | None:
    """ReduceMean of groups of whole channels, each a cell of the whole image; None if they are not.

    A single list of all features is none: what is no group lies in one window.
    """
    steps, source, local = single_map(app, view)
    rows = np.sort(rows_along(local, sample_axes(view, axes)), axis=-1)
    if source.is_cell or rows.ndim < 2 or not source.scales_by_channel:
        return None
    groups = rows.reshape(-1, rows.shape[-1])
    channels = _whole_channels(source, groups)
    if channels is None:
        return None
    if app.windowed:
        why = "no pooling operator takes the mean of several channels in a window"
        app.refuse("window-pooling", f"{why}; with --pool keep it sees the whole image")
    more, source = settled(app, source)
    picked, source = picked_channels(app, source, channels)
    rank = len(source.extent)
    made = pooled_map(app, source, tuple(range(rank)), channels=len(groups))
    grouped = Intermediate(app.names.fresh(f"{made.name}.groups"), source.dtype)
    shape = integers(app, f"{made.name}.groups", [0, len(groups), -1, *[1] * (rank - 1)])
    reshaped = Step("Reshape", (source, shape), grouped, app.node)
    reduced = reducing_step(app, grouped, made, (2,))
    which = np.arange(len(groups)).reshape(rows.shape[:-1])
    keepdims = bool(app.int_attribute("keepdims", 1))
    result = reduced_view(view, axes, made.first_label + which, keepdims=keepdims)
    return Emitted((*steps, *more, *picked, reshaped, reduced), result)


@rule("GroupNormalization")
def whole_image_normalization(app: Application) -> Outcome:
    """GroupNormalization-18/21: each group of channels over all positions."""
    if any(not isinstance(fact, Known) for fact in app.operands[1:] if fact is not None):
        app.refuse("weight-not-constant", "its parameters are not constants")
    found = restored(app)
    (source,) = found.maps
    if source.one_per_window:
        app.refuse("slides-after-fc", "normalizes the single cell that an FC layer gives")
    output = app.new_map(source, value=app.node.outputs[0], mixes_positions=describe(app.node))
    return Kept((output,), restored=found.restored, steps=found.steps)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(app: Application) -> Outcome:
    """MeanVarianceNormalization-9/13, over axes [0, 2, 3] by default: over the samples too."""
    axes = app.ints_attribute("axes") or (0, 2, 3)
    view = app.view(0)
    assert view is not None
    if view.batch_axis in {axis % len(view.shape) for axis in axes}:
        app.refuse("batch-mixing", f"normalizes over axes {list(axes)}, the samples too")
    return whole_image_normalization(app)
