"""What becomes of a graph output that is a view of a map: the map that stands for it."""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.plan import ORIGIN, OutputMap, Step
from onnx_fc2conv.views.rules import Application, describe
from onnx_fc2conv.views.rules.groups import regrouped
from onnx_fc2conv.views.rules.restore import as_map, channels_as_map
from onnx_fc2conv.views.view import FeatureView, channels_first

__all__ = ["output_map"]


def output_map(
    app: Application, value: ir.Value, fact: FeatureView, gone: tuple[int, ...]
) -> tuple[tuple[Step, ...], OutputMap] | Refusal:
    """The map of an output, and the steps that make it.

    Args:
        app: The node that makes the output.
        value: The output.
        fact: The view that it is.
        gone: The spatial axes that the images lack.
    """
    made = ORIGIN in app.node.metadata_props
    if made:  # by a conversion: a map, its channels moved
        again = as_map(app, fact)
        if not isinstance(again, Refusal):
            return (), OutputMap(value, again[1], channels_first(len(fact.shape)), stays=True)
    found = channels_as_map(app, fact)
    if isinstance(found, Refusal):
        again = as_map(app, fact) if len(fact.shape) > 2 else found
        if not isinstance(again, Refusal):
            layout = channels_first(len(fact.shape))
            return again[0], OutputMap(value, again[1], layout, stays=False)
        return Refusal(
            found.code,
            describe(app.node),
            f"output {value.name!r} cannot become a map: it holds a whole feature map "
            f"{list(fact.shape)}, flattened; remove this output from the model",
        )
    steps, feature_map = found
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
