"""DynamicQuantizeLinear: to integers, by the smallest and the largest number of the whole tensor.

    s = (max(x, 0) - min(x, 0)) / 255        z = round(-min(x, 0) / s)        q = round(x / s) + z

A map at another size, or with other windows around it, has another range: then no cell is quantized
as it would be in its window. So this operator slides only over maps that have one cell for the
whole image. Where sizes stay (static mode) the map has the very elements of the flattened tensor,
and their range is the same. (DynamicQuantizeLinear-11.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import single_map
from onnx_fc2conv.views.maps.channels import materialized
from onnx_fc2conv.views.maps.constant import A_NUMBER
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import Intermediate
from onnx_fc2conv.views.registry import Answer, rule
from onnx_fc2conv.views.tape import Replaced

__all__ = ["Ranged", "dynamic_quantize", "quantized_by_range"]


@dataclass(frozen=True, eq=False)
class Ranged:
    """A view of integers, and their common scale and zero point."""

    view: FeatureView
    scale: Intermediate
    zero: Intermediate


@rule("DynamicQuantizeLinear")
def dynamic_quantize(ctx: Context) -> Answer:
    """DynamicQuantizeLinear-11."""
    view = ctx.first_view()
    if view.whole_map is not None:
        _refuse_windows(ctx, view.whole_map)
        return ctx.kept_in_layout(view, dtype=ir.DataType.UINT8), A_NUMBER, A_NUMBER
    found = quantized_by_range(ctx, view)
    for value, tensor in zip(ctx.node.outputs[1:], (found.scale, found.zero), strict=False):
        ctx.tape.append(Replaced(value, tensor))
    return found.view, A_NUMBER, A_NUMBER


def quantized_by_range(ctx: Context, view: FeatureView) -> Ranged:
    """Quantize the view by the range of the map that it shows.

    Raises:
        NodeRefused: If the map grows with the image, or is shown in part or scaled.
    """
    source, local = single_map(ctx, view)
    _refuse_windows(ctx, source)
    if np.unique(local).size != source.size or not source.scales_by_channel:
        ctx.refuse(
            "dynamic-quantization",
            f"takes its scale from some elements of {source} only, or from scaled ones",
        )
    source = materialized(ctx, source)
    name = ctx.fresh(f"{ctx.name}.integers")
    output = ctx.new_map(source, name=name, dtype=ir.DataType.UINT8)
    scale = ctx.tensor(f"{ctx.name}.scale", source.dtype)
    zero = ctx.tensor(f"{ctx.name}.zero_point", ir.DataType.UINT8)
    ctx.emit("DynamicQuantizeLinear", (source,), output, further=(scale, zero))
    return Ranged(view.reindexed(output.first_label + local), scale, zero)


def _refuse_windows(ctx: Context, source: FeatureMap) -> None:
    """Refuse a map whose range is not that of a window."""
    if ctx.static or not any(axis.stride for axis in source.field):
        return
    ctx.refuse(
        "dynamic-quantization",
        "takes its scale from the smallest and the largest number of the whole tensor: on a larger "
        "image no window would be quantized as it is on its own; quantize statically, or convert "
        "with --static",
    )
