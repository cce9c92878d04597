"""Operators that normalize over the whole image: every cell depends on all of it.

InstanceNormalization of each channel, GroupNormalization of groups of channels (Wu & He 2018), also
as exporters write it:

    Reshape [0, G, -1]  →  InstanceNormalization  →  Reshape back, to a size that is a constant

The groups are whole channels in order; what is written is the same at any size.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.known import Known
from onnx_fc2conv.views.plan import Emitted, Intermediate, Kept, Outcome, Step
from onnx_fc2conv.views.rules.groups import integers
from onnx_fc2conv.views.rules.registry import Application, describe, rule
from onnx_fc2conv.views.rules.restore import picked_channels, restored, settled, single_map
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["instance_normalization", "whole_image_normalization"]


@rule("InstanceNormalization")
def instance_normalization(app: Application) -> Outcome:
    """InstanceNormalization-1/6/22: over axes 2 and up, of channels or of groups of them."""
    view = app.view(0)
    if view is None or any(app.known(position) is None for position in (1, 2)):
        return app.refuse("weight-not-constant", "its parameters are not constants")
    if view.layout is not None:
        return whole_image_normalization(app)
    if view.batch_axis != 0 or len(view.shape) < 3:
        return app.refuse("layout", f"normalizes axis 1 of a view of shape {list(view.shape)}")
    found = _channels_in_groups(app, view)
    if isinstance(found, Refusal):
        return found
    steps, source = found
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


def _channels_in_groups(
    app: Application, view: FeatureView
) -> tuple[tuple[Step, ...], FeatureMap] | Refusal:
    """The map of which axis 1 of the view holds groups of whole channels, one after the other."""
    found = single_map(app, view)
    if isinstance(found, Refusal):
        return found
    steps, source, local = found
    positions = source.size // source.channels
    lists = local.reshape(view.shape[1], -1)
    if lists.shape[1] % positions == 0:
        lists = lists.reshape(-1, positions)
        channels = lists[:, 0] // positions
        if (lists == channels[:, None] * positions + np.arange(positions)).all():
            if source.one_per_window:
                return app.refuse("slides-after-fc", "normalizes the cell that an FC layer gives")
            if not source.scales_by_channel:
                return app.refuse(
                    "position-dependent", "follows a scale that differs between positions"
                )
            more, source = settled(app, source)
            picked, source = picked_channels(app, source, channels)
            return (*steps, *more, *picked), source
    return app.refuse(
        "flattened-features",
        f"normalizes groups of elements of {source.name} {list(source.per_sample_shape)} that are "
        "not whole channels",
    )


@rule("GroupNormalization")
def whole_image_normalization(app: Application) -> Outcome:
    """GroupNormalization-18/21: each group of channels over all positions."""
    if any(not isinstance(fact, Known) for fact in app.operands[1:] if fact is not None):
        return app.refuse("weight-not-constant", "its parameters are not constants")
    found = restored(app)
    if isinstance(found, Refusal):
        return found
    (source,) = found.maps
    if source.one_per_window:
        return app.refuse("slides-after-fc", "normalizes the single cell that an FC layer gives")
    output = app.new_map(source, value=app.node.outputs[0], mixes_positions=describe(app.node))
    return Kept((output,), restored=found.restored, steps=found.steps)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(app: Application) -> Outcome:
    """MeanVarianceNormalization-9/13, over axes [0, 2, 3] by default: over the samples too."""
    axes = app.ints_attribute("axes") or (0, 2, 3)
    view = app.view(0)
    assert view is not None
    if view.batch_axis in {axis % len(view.shape) for axis in axes}:
        return app.refuse("batch-mixing", f"normalizes over axes {list(axes)}, the samples too")
    return whole_image_normalization(app)
