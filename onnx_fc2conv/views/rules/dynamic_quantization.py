"""DynamicQuantizeLinear: to integers, by the smallest and the largest number of the whole tensor.

    s = (max(x, 0) - min(x, 0)) / 255        z = round(-min(x, 0) / s)        q = round(x / s) + z

A map at another size, or with other windows around it, has another range: then no cell is quantized
as it would be in its window. So this operator slides only over what has one cell for the whole
image anyway. Where sizes stay (static mode) the map has the very elements of the flattened tensor,
and their range is the same. (DynamicQuantizeLinear-11.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.plan import Emitted, Intermediate, Kept, Outcome, Step
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.rules.restore import settled, single_map
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["Ranged", "dynamic_quantize", "quantized_by_range"]


@dataclass(frozen=True, eq=False)
class Ranged:
    """A view of integers, and the scale and the zero point that they have all together."""

    view: FeatureView
    scale: Intermediate
    zero: Intermediate
    steps: tuple[Step, ...]


@rule("DynamicQuantizeLinear")
def dynamic_quantize(app: Application) -> Outcome:
    """DynamicQuantizeLinear-11."""
    view = app.view(0)
    assert view is not None
    if view.layout is not None and view.whole_map is not None:
        _refuse_windows(app, view.whole_map)
        value, dtype = app.node.outputs[0], ir.DataType.UINT8
        output = app.new_map(view.whole_map, value=value, layout=view.layout, dtype=dtype)
        return Kept((output,), numbers=2)
    found = quantized_by_range(app, view)
    return Emitted(found.steps, found.view, numbers=(found.scale, found.zero))


def quantized_by_range(app: Application, view: FeatureView) -> Ranged:
    """The view as integers, by the range of the map that it shows.

    Raises:
        NodeRefused: If the map grows with the image, or is shown in part or scaled.
    """
    steps, source, local = single_map(app, view)
    _refuse_windows(app, source)
    if np.unique(local).size != source.size or not source.scales_by_channel:
        app.refuse(
            "dynamic-quantization",
            f"takes its scale from some elements of {source.name} "
            f"{list(source.per_sample_shape)} only, or from scaled ones",
        )
    more, source = settled(app, source)
    name = app.node.outputs[0].name or "quantized"
    output = app.new_map(source, name=app.names.fresh(f"{name}.integers"), dtype=ir.DataType.UINT8)
    scale = Intermediate(app.names.fresh(f"{name}.scale"), source.dtype)
    zero = Intermediate(app.names.fresh(f"{name}.zero_point"), ir.DataType.UINT8)
    step = Step("DynamicQuantizeLinear", (source,), output, app.node, further=(scale, zero))
    integers = view.reindexed(output.first_label + local)
    return Ranged(integers, scale, zero, (*steps, *more, step))


def _refuse_windows(app: Application, source: FeatureMap) -> None:
    """Refuse a map whose range is not that of a window."""
    if app.static or not any(axis.stride for axis in source.field):
        return
    app.refuse(
        "dynamic-quantization",
        "takes its scale from the smallest and the largest number of the whole tensor: on a larger "
        "image no window would be quantized as it is on its own; quantize statically, or convert "
        "with --static",
    )
