"""QuantizeLinear and DequantizeLinear of features: elementwise, with the parameters as constants.

Per tensor they are elementwise operators like any other. Along the channels they have a parameter
for each channel of the map; along the features of a flattened map these must be the same at all
positions of a channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.known import Known
from onnx_fc2conv.views.labels import AnyArray
from onnx_fc2conv.views.plan import MICROSOFT, Constant, Emitted, Kept, Outcome, Step
from onnx_fc2conv.views.rules.elementwise import carried_out
from onnx_fc2conv.views.rules.frames import Frame, frames
from onnx_fc2conv.views.rules.layer import operand_name
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.rules.restore import picked_channels, settled
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["dequantize", "quantize", "with_scalars"]


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain=MICROSOFT)
def quantize(app: Application) -> Outcome:
    """QuantizeLinear-10/13/19/21/23/24/25: to the type of the zero point."""
    zero = app.known(2)
    stated = ir.DataType(app.int_attribute("output_dtype", 0))
    if zero is not None:
        stated = _type_of(zero)
    return _apply(app, stated if stated != ir.DataType.UNDEFINED else ir.DataType.UINT8)


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain=MICROSOFT)
def dequantize(app: Application) -> Outcome:
    """DequantizeLinear-10/13/19/21/23/24/25: to the type of the scale."""
    scale = app.known(1)
    stated = ir.DataType(app.int_attribute("output_dtype", 0))
    if stated == ir.DataType.UNDEFINED and scale is not None:
        stated = _type_of(scale)
    return _apply(app, stated)


def with_scalars(app: Application, positions: tuple[int, ...]) -> Application:
    """The node with each of these operands as the one constant number that it has to be.

    Raises:
        NodeRefused: If one is anything else.
    """
    operands = list(app.operands)
    for position in positions:
        fact = app.operand(position)
        if fact is None:
            continue
        if not isinstance(fact, Known) or fact.sized:
            app.refuse("weight-not-constant", "its scale or zero point is not a constant")
        if fact.array.size != 1:
            app.refuse(
                "quantized-form",
                f"has a parameter of shape {list(fact.shape)} where one number is expected",
            )
        operands[position] = _scalar(fact)
    return replace(app, operands=tuple(operands))


def _scalar(known: Known) -> Known:
    return Known(lambda batch: known.at(batch).reshape(()), known.batches, tensor=None)


def _type_of(known: Known) -> ir.DataType:
    return (
        known.tensor.dtype
        if known.tensor is not None
        else ir.DataType.from_numpy(known.array.dtype)
    )


def _apply(app: Application, dtype: ir.DataType) -> Outcome:
    view, scale, zero = app.view(0), app.operand(1), app.operand(2)
    if view is None or not isinstance(scale, Known) or not isinstance(zero, Known | None):
        app.refuse("weight-not-constant", "its scale or zero point is not a constant")
    if app.int_attribute("block_size", 0) != 0:
        app.refuse("quantized-form", "quantizes in blocks along an axis")
    if scale.array.size == 1 and (zero is None or zero.array.size == 1):
        return carried_out(with_scalars(app, (1, 2)), dtype)
    rank = len(view.shape)
    axis = app.int_attribute("axis", 1)
    if not -rank <= axis < rank or scale.shape != (view.shape[axis],):
        app.refuse(
            "invalid-node", f"its scale {list(scale.shape)} does not fit axis {axis} of its input"
        )
    axis %= rank
    if view.layout is not None and view.whole_map is not None:
        if axis == view.layout[1]:
            like, value = view.whole_map, app.node.outputs[0]
            return Kept((app.new_map(like, value=value, layout=view.layout, dtype=dtype),))
        app.refuse(
            "positional-constant",
            f"has a scale for each element of axis {axis}, which is not the channels",
        )
    return _on_features(app, view, axis, dtype)


def _on_features(app: Application, view: FeatureView, axis: int, dtype: ir.DataType) -> Outcome:
    """With parameters along an axis of a view: along the channels of the maps that it shows."""
    batch = view.batch_axis
    if axis == batch:
        app.refuse("batch-mixing", "has a scale for each sample")
    shape = [1] * view.index.ndim
    own = axis - (batch is not None and batch < axis)
    shape[own] = -1
    known = [k for k in (app.known(1), app.known(2)) if k is not None]
    spread = [np.broadcast_to(k.array.reshape(shape), view.index.shape) for k in known]
    steps: tuple[Step, ...] = ()
    index = np.empty(view.index.size, np.int64)
    found = frames(app.space, [view.index], spread)
    for number, frame in enumerate(found, 1):
        more, output = _on_frame(app, frame, spread, dtype, last=number == len(found) == 1)
        steps = (*steps, *more)
        index[frame.where] = output.first_label + frame.elements
    return Emitted(steps, view.reindexed(index.reshape(view.index.shape)))


def _on_frame(
    app: Application, frame: Frame, spread: list[AnyArray], dtype: ir.DataType, *, last: bool
) -> tuple[tuple[Step, ...], FeatureMap]:
    (source,) = frame.sources
    by_channel = [frame.spread(array).reshape(frame.channels[0].size, -1) for array in spread]
    if not source.scales_by_channel or any((a != a[:, :1]).any() for a in by_channel):
        app.refuse(
            "position-dependent",
            f"has other scales at other positions of {source.name} {list(source.extent)}",
        )
    steps, source = settled(app, source)
    picked, source = picked_channels(app, source, frame.channels[0])
    name = app.node.outputs[0].name or app.node.op_type
    output = app.new_map(
        source,
        name=name if last else app.names.fresh(f"{name}.{source.name}"),
        extent=frame.extent,
        dtype=dtype,
    )
    parameters = [
        _parameter(app, position, array[:, 0]) for position, array in enumerate(by_channel, 1)
    ]
    carried = tuple(name for name in app.node.attributes if name != "axis")
    step = Step(
        app.node.op_type,
        (source, *parameters),
        output,
        app.node,
        {"axis": 1},
        carried,
        domain=app.node.domain,
    )
    return (*steps, *picked, step), output


def _parameter(app: Application, position: int, column: AnyArray) -> Constant:
    values = np.ascontiguousarray(column)
    name = app.names.fresh(f"{operand_name(app, position)}.channels")
    return Constant(name, values.shape, lambda: ir.Tensor(values))
