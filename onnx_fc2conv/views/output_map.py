"""The map that replaces a graph output which is a view of a map."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnx_fc2conv.graphs.names import ORIGIN
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import as_feature_map, channels_as_map
from onnx_fc2conv.views.maps.groups import regrouped
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView, channels_first
from onnx_fc2conv.views.plan import OutputMap
from onnx_fc2conv.views.tape import NodeRefused, Tape

__all__ = ["output_map"]


def output_map(
    ctx: Context, value: ir.Value, fact: FeatureView, gone: tuple[int, ...]
) -> OutputMap:
    """Return the map that replaces an output.

    Args:
        ctx: The node that makes the output.
        value: The output.
        fact: The view that it is.
        gone: The spatial axes that the images lack.

    Raises:
        NodeRefused: If the output does not consist of cells of a map.
    """
    made = ORIGIN in ctx.node.metadata_props
    whole = channels_first(len(fact.shape))
    if made:  # by a conversion: a map, its channels moved, for which no node is needed
        ctx = replace(ctx, tape=Tape())
        with ctx.attempt():
            return OutputMap(value, as_feature_map(ctx, fact), whole, stays=True)
    with ctx.attempt() as in_cells:
        return _of_cells(ctx, value, fact, gone, channels_as_map(ctx, fact))
    if len(fact.shape) > 2:
        with ctx.attempt():
            return OutputMap(value, as_feature_map(ctx, fact), whole, stays=False)
    why = (
        f"output {value.name!r} cannot become a map: it holds a whole feature map "
        f"{list(fact.shape)}, flattened; remove this output from the model"
    )
    raise NodeRefused(replace(in_cells.refused.refusal, reason=why))


def _of_cells(
    ctx: Context,
    value: ir.Value,
    fact: FeatureView,
    gone: tuple[int, ...],
    feature_map: FeatureMap,
) -> OutputMap:
    """Return the map of an output that holds the channels of single cells."""
    layout = channels_first(2 + len(feature_map.extent))
    shape = fact.index.shape
    if ORIGIN in ctx.node.metadata_props:
        axes = len(shape) - len(feature_map.extent) + len(gone)
        return OutputMap(value, feature_map, layout, True, shape[:axes], gone=gone)
    features = tuple(length for length in shape if length != 1)
    if shape and len(features) <= 1:
        if not gone:
            return OutputMap(value, feature_map, layout, stays=False)
        features = (feature_map.channels,)
    tensor = regrouped(ctx, feature_map, features, gone)
    return OutputMap(value, feature_map, layout, False, features, tensor, gone)
