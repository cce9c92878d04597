"""onnxruntime's quantized operators between layers: the same operator on the map.

Scale and zero point of every operand and of the result are further inputs, which are one
constant number each.
"""

from __future__ import annotations

from onnx_fc2conv.graphs.operators import MICROSOFT
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps
from onnx_fc2conv.views.maps.groups import Along
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.registry import Answer, rule
from onnx_fc2conv.views.rules.elementwise import carried_out
from onnx_fc2conv.views.rules.normalization import softmax_of
from onnx_fc2conv.views.rules.pooling import whole_pool
from onnx_fc2conv.views.rules.quantized import with_scalars
from onnx_fc2conv.views.rules.sliding import joined_channels, pooled

__all__ = ["binary", "concatenate", "pool", "softmax", "unary"]


@rule("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT)
def unary(ctx: Context) -> FeatureView:
    """QLinearSigmoid-1, QLinearLeakyRelu-1."""
    return carried_out(with_scalars(ctx, (1, 2, 3, 4)), None)


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def binary(ctx: Context) -> FeatureView:
    """QLinearAdd-1, QLinearMul-1 of maps, or of a map and constants."""
    return carried_out(with_scalars(ctx, (1, 2, 4, 5, 6, 7)), None)


@rule("QLinearSoftmax", domain=MICROSOFT)
def softmax(ctx: Context) -> Answer:
    """QLinearSoftmax-1; its attribute ``opset`` chooses the version of Softmax.

    Along the channels it is one of opset 13: onnxruntime 1.31 moves a Transpose through an older
    one, which then works along other axes.
    """
    ready = with_scalars(ctx, (1, 2, 3, 4))
    along = Along(
        lambda axis: {"axis": axis, "opset": 13}, lambda _: ctx.node.inputs[1:], symmetric=True
    )
    return softmax_of(ready, along, coerces=ctx.int_attribute("opset", 13) < 13)


@rule("QLinearConcat", domain=MICROSOFT)
def concatenate(ctx: Context) -> FeatureView:
    """QLinearConcat-1 of maps along the channels: scale and zero point, then each tensor's own."""
    positions = range(2, len(ctx.operands), 3)
    scalars = tuple(n for n in range(len(ctx.operands)) if n not in positions)
    ready = with_scalars(ctx, scalars)
    views = [ctx.operand(position) for position in positions]
    maps = [view for view in views if isinstance(view, FeatureView) and view.layout is not None]
    if len(maps) < len(views) or len({view.layout for view in maps}) > 1:
        ctx.refuse("flattened-features", "joins features that are no maps any more")
    layout = maps[0].layout
    assert layout is not None
    if ctx.int_attribute("axis", 1) % len(layout) != layout[1]:
        ctx.refuse("layout", "joins maps along an axis that is not the channels")
    return joined_channels(ready, layout)


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def pool(ctx: Context) -> FeatureView:
    """QLinearAveragePool-1, QLinearGlobalAveragePool-1 of [N, C, *spatial]."""
    ready = with_scalars(ctx, (1, 2, 3, 4))
    if ctx.int_attribute("channels_last", 0):
        ctx.refuse("layout", "takes the last axis for the channels")
    if ctx.node.op_type == "QLinearAveragePool":
        return pooled(ready)
    if ctx.windowed:
        ctx.refuse("window-pooling", "is not made a pooling of windows")
    (source,) = as_feature_maps(ready)
    return whole_pool(ctx, source, tuple(range(len(source.extent))))
