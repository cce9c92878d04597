"""QuantizeLinear and DequantizeLinear of features: elementwise, with the parameters as constants.

Per tensor they are elementwise operators like any other. Along the channels they have a parameter
for each channel of the map; along the features of a flattened map these must be the same at all
positions of a channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.operators import MICROSOFT
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.layer import operand_name
from onnx_fc2conv.views.maps.alignment import Alignment, alignments
from onnx_fc2conv.views.maps.channels import materialized_channels
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import ConstantTensor
from onnx_fc2conv.views.registry import rule
from onnx_fc2conv.views.rules.elementwise import carried_out

__all__ = ["dequantize", "quantize", "with_scalars"]


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain=MICROSOFT)
def quantize(ctx: Context) -> FeatureView:
    """QuantizeLinear-10/13/19/21/23/24/25: to the type of the zero point."""
    zero = ctx.constant_operand(2)
    stated = ir.DataType(ctx.int_attribute("output_dtype", 0))
    if zero is not None:
        stated = _type_of(zero)
    return _apply(ctx, stated if stated != ir.DataType.UNDEFINED else ir.DataType.UINT8)


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain=MICROSOFT)
def dequantize(ctx: Context) -> FeatureView:
    """DequantizeLinear-10/13/19/21/23/24/25: to the type of the scale."""
    scale = ctx.constant_operand(1)
    stated = ir.DataType(ctx.int_attribute("output_dtype", 0))
    if stated == ir.DataType.UNDEFINED and scale is not None:
        stated = _type_of(scale)
    return _apply(ctx, stated)


def with_scalars(ctx: Context, positions: tuple[int, ...]) -> Context:
    """Return the node with each of these operands as a constant scalar.

    Raises:
        NodeRefused: If one is anything else.
    """
    operands = list(ctx.operands)
    for position in positions:
        fact = ctx.operand(position)
        if fact is None:
            continue
        if not isinstance(fact, Constant) or fact.sized:
            ctx.refuse("weight-not-constant", "its scale or zero point is not a constant")
        if fact.array.size != 1:
            ctx.refuse(
                "quantized-form",
                f"has a parameter of shape {list(fact.shape)} where one number is expected",
            )
        operands[position] = _scalar(fact)
    return replace(ctx, operands=tuple(operands))


def _scalar(constant: Constant) -> Constant:
    return Constant(lambda batch: constant.at(batch).reshape(()), constant.batches, tensor=None)


def _type_of(constant: Constant) -> ir.DataType:
    return (
        constant.tensor.dtype
        if constant.tensor is not None
        else ir.DataType.from_numpy(constant.array.dtype)
    )


def _apply(ctx: Context, dtype: ir.DataType) -> FeatureView:
    view, scale, zero = ctx.view(0), ctx.operand(1), ctx.operand(2)
    if view is None or not isinstance(scale, Constant) or not isinstance(zero, Constant | None):
        ctx.refuse("weight-not-constant", "its scale or zero point is not a constant")
    if ctx.int_attribute("block_size", 0) != 0:
        ctx.refuse("quantized-form", "quantizes in blocks along an axis")
    if scale.array.size == 1 and (zero is None or zero.array.size == 1):
        return carried_out(with_scalars(ctx, (1, 2)), dtype)
    rank = len(view.shape)
    axis = ctx.int_attribute("axis", 1)
    if not -rank <= axis < rank or scale.shape != (view.shape[axis],):
        ctx.refuse(
            "invalid-node", f"its scale {list(scale.shape)} does not fit axis {axis} of its input"
        )
    axis %= rank
    if axis == view.channel_axis:
        return ctx.kept_in_layout(view, dtype=dtype)
    if view.layout is not None:
        ctx.refuse(
            "positional-constant",
            f"has a scale for each element of axis {axis}, which is not the channels",
        )
    return _on_features(ctx, view, axis, dtype)


def _on_features(ctx: Context, view: FeatureView, axis: int, dtype: ir.DataType) -> FeatureView:
    """Apply parameters along an axis of a view along the channels of its maps."""
    batch = view.batch_axis
    if axis == batch:
        ctx.refuse("batch-mixing", "has a scale for each sample")
    shape = [1] * view.index.ndim
    own = axis - (batch is not None and batch < axis)
    shape[own] = -1
    parameters = [k for k in (ctx.constant_operand(1), ctx.constant_operand(2)) if k is not None]
    spread = [np.broadcast_to(k.array.reshape(shape), view.index.shape) for k in parameters]
    index = np.empty(view.index.size, np.int64)
    found = alignments(ctx.space, [view.index], spread)
    for alignment in found:
        output = _on_alignment(ctx, alignment, spread, dtype, last=len(found) == 1)
        index[alignment.where] = output.first_label + alignment.elements
    return view.reindexed(index.reshape(view.index.shape))


def _on_alignment(
    ctx: Context, alignment: Alignment, spread: list[AnyArray], dtype: ir.DataType, *, last: bool
) -> FeatureMap:
    (source,) = alignment.sources
    by_channel = [
        alignment.spread(array).reshape(alignment.channels[0].size, -1) for array in spread
    ]
    if any((a != a[:, :1]).any() for a in by_channel):
        ctx.refuse(
            "position-dependent",
            f"has other scales at other positions of {source.name} {list(source.extent)}",
        )
    source = materialized_channels(ctx, source, alignment.channels[0])
    output = ctx.new_map(
        source,
        name=ctx.name if last else ctx.fresh(f"{ctx.name}.{source.name}"),
        extent=alignment.extent,
        dtype=dtype,
    )
    parameters = [
        _parameter(ctx, position, array[:, 0]) for position, array in enumerate(by_channel, 1)
    ]
    carried = tuple(name for name in ctx.node.attributes if name != "axis")
    return ctx.emit(
        ctx.node.op_type,
        (source, *parameters),
        output,
        {"axis": 1},
        carried=carried,
        domain=ctx.node.domain,
    )


def _parameter(ctx: Context, position: int, column: AnyArray) -> ConstantTensor:
    name = f"{operand_name(ctx, position)}.channels"
    return ctx.constant(name, np.ascontiguousarray(column))
