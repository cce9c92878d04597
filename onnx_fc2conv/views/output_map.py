"""What becomes of a graph output that is a view of a map: the map that stands for it."""

from __future__ import annotations

from contextlib import suppress

import onnx_ir as ir

from onnx_fc2conv.views.plan import ORIGIN, OutputMap, Step
from onnx_fc2conv.views.rules import Application, NodeRefused
from onnx_fc2conv.views.rules.groups import regrouped
from onnx_fc2conv.views.rules.restore import as_map, channels_as_map
from onnx_fc2conv.views.view import FeatureView, channels_first

__all__ = ["output_map"]


def output_map(
    app: Application, value: ir.Value, fact: FeatureView, gone: tuple[int, ...]
) -> tuple[tuple[Step, ...], OutputMap]:
    """The map of an output, and the steps that make it.

    Args:
        app: The node that makes the output.
        value: The output.
        fact: The view that it is.
        gone: The spatial axes that the images lack.

    Raises:
        NodeRefused: If no cells of a map are the output.
    """
    made = ORIGIN in app.node.metadata_props
    whole = channels_first(len(fact.shape))
    if made:  # by a conversion: a map, its channels moved
        with suppress(NodeRefused):
            return (), OutputMap(value, as_map(app, fact)[1], whole, stays=True)
    try:
        steps, feature_map = channels_as_map(app, fact)
    except NodeRefused as refused:
        if len(fact.shape) > 2:
            with suppress(NodeRefused):
                steps, feature_map = as_map(app, fact)
                return steps, OutputMap(value, feature_map, whole, stays=False)
        app.refuse(
            refused.refusal.code,
            f"output {value.name!r} cannot become a map: it holds a whole feature map "
            f"{list(fact.shape)}, flattened; remove this output from the model",
        )
    layout = channels_first(2 + len(feature_map.extent))
    shape = fact.index.shape
    if made:
        axes = len(shape) - len(feature_map.extent) + len(gone)
        return (), OutputMap(value, feature_map, layout, True, shape[:axes], gone=gone)
    features = tuple(length for length in shape if length != 1)
    if shape and len(features) <= 1:
        if not gone:
            return steps, OutputMap(value, feature_map, layout, stays=False)
        features = (feature_map.channels,)
    more, tensor = regrouped(app, feature_map, features, gone)
    output = OutputMap(value, feature_map, layout, False, features, tensor, gone)
    return (*steps, *more), output
