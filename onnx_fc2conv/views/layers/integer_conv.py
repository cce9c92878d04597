"""Convs of integers, which replace the layers of `quantized_linear`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context, Operand
from onnx_fc2conv.views.layers.contraction import Reading, conv_attributes, slid_map
from onnx_fc2conv.views.layers.kernel import Kernel, Part, make_kernel
from onnx_fc2conv.views.layers.layer import Layer, as_fc_layer, product_view, read_layer
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import ConstantTensor, Intermediate

__all__ = ["IntegerLayer", "Sums", "accumulated", "requantized", "scaled_sum"]

_U8, _I8 = ir.DataType.UINT8, ir.DataType.INT8
_REQUANTIZED = {(_U8, _U8, _U8), (_U8, _I8, _U8), (_I8, _I8, _I8)}
"""Types of image, kernel and result that onnxruntime's QLinearConv takes (measured on 1.31)."""


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A layer of integers, with the parameters of its operands.

    Attributes:
        layer: The layer; its weight fills gaps in the kernel with zero points.
        image_scale: The scale of the image's features, where the operator has it.
        image_zero: Their zero point; None for 0.
        constant_image_scale: The scale, where it is a constant.
        scale: The scale of each output's weights, [K], where the operator has it.
        zero: Their zero points, [K].
    """

    layer: Layer
    image_scale: ir.Value | Intermediate | None
    image_zero: ir.Value | Intermediate | None
    constant_image_scale: Constant | None
    scale: AnyArray | None
    zero: AnyArray

    @property
    def outputs(self) -> int:
        """K."""
        return self.zero.size


def requantized(
    ctx: Context, layer: IntegerLayer, bias: AnyArray | None, result: tuple[int, int]
) -> FeatureView:
    """Emit a QLinearConv; ``result`` has the positions of the product's scale and zero point.

    Raises:
        NodeRefused: If onnxruntime's QLinearConv does not compute it.
    """
    reading, part, kernel = _kernel(ctx, layer)
    scale, zero = (ctx.constant_operand(position) for position in result)
    if scale is None or scale.array.size != 1 or (zero is not None and zero.array.size != 1):
        ctx.refuse("quantized-form", "the scale of its product is not one constant number")
    dtype = _U8 if zero is None else ir.DataType.from_numpy(zero.array.dtype)
    types = (part.source.dtype, ir.DataType.from_numpy(layer.zero.dtype), dtype)
    if types not in _REQUANTIZED:
        listed = f"{types[0]} by {types[1]} to {types[2]}"
        ctx.refuse("unsupported-type", f"multiplies {listed}, which QLinearConv does not")
    output = slid_map(ctx, part, kernel, ctx.name, dtype=dtype)
    inputs: tuple[Operand, ...] = (
        part.source,
        layer.image_scale,
        layer.image_zero or _zero(ctx, part.source.dtype),
        kernel.constant,
        *_parameters(ctx, layer, reading.lists),
        ctx.node.inputs[result[0]],
        _zero(ctx, dtype) if zero is None else ctx.node.inputs[result[1]],
    )
    if bias is not None:
        inputs += (ctx.constant(f"{ctx.name}.bias", np.tile(bias, reading.lists)),)
    ctx.emit("QLinearConv", inputs, output, conv_attributes(part, kernel))
    return product_view(ctx, layer.layer, reading, output)


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums of products of a layer: its reads, and the int32 map of the sums."""

    reading: Reading
    output: FeatureMap


def accumulated(
    ctx: Context, layer: IntegerLayer, bias: AnyArray | None, *, named: bool = False
) -> Sums:
    """Emit a ConvInteger and an Add of the bias, which give the sums in int32.

    ``named``: whether they are the result of the node, and get its name.

    Raises:
        NodeRefused: If zero points differ where several rows are read.
    """
    varies = bool((layer.zero != layer.zero[:1]).any())
    reading, part, kernel = _kernel(ctx, layer)
    if varies and reading.lists > 1:
        ctx.refuse(
            "quantized-form", "has a zero point for each output, and is applied to several rows"
        )
    own = ctx.name if named and not varies else ctx.fresh(f"{ctx.name}.sums")
    zero = None if varies else ctx.constant(f"{own}.zero_point", layer.zero[0].reshape(()))
    sums = slid_map(ctx, part, kernel, own, dtype=ir.DataType.INT32)
    _conv_integer(ctx, layer, part, kernel, zero, sums)
    if varies:
        sums = _less_zero_points(ctx, layer, part, sums, named=named)
    if bias is not None:
        column = np.tile(bias, reading.lists).reshape(-1, *[1] * len(sums.extent))
        biased = ctx.new_map(sums, name=ctx.fresh(f"{ctx.name}.biased"))
        sums = ctx.emit("Add", (sums, ctx.constant(f"{ctx.name}.bias", column)), biased)
    return Sums(reading, sums)


def _conv_integer(  # noqa: PLR0913 - the parts of one node
    ctx: Context,
    layer: IntegerLayer,
    part: Part,
    kernel: Kernel,
    zero: ConstantTensor | None,
    output: FeatureMap,
) -> FeatureMap:
    operands = (part.source, kernel.constant, layer.image_zero, zero)
    inputs = operands if zero is not None else operands[:3]
    return ctx.emit("ConvInteger", inputs, output, conv_attributes(part, kernel))


def _less_zero_points(
    ctx: Context, layer: IntegerLayer, part: Part, sums: FeatureMap, *, named: bool
) -> FeatureMap:
    """Subtract zero points by output: Σ v·(q - z[k]) = Σ v·q - z[k]·Σ v.

    onnxruntime's ConvInteger takes one zero point only. Σ v is a ConvInteger with a kernel of ones;
    it also cancels the zero points that fill gaps in the other kernel.
    """
    shape = (1, part.source.channels, *part.window)
    ones = ctx.constant(f"{layer.layer.weight.name}.ones", np.ones(shape, layer.zero.dtype))
    kernel = Kernel(ones, groups=1, bytes_kept="same")
    total = slid_map(ctx, part, kernel, ctx.fresh(f"{ctx.name}.total"), dtype=sums.dtype)
    times = ctx.new_map(sums, name=ctx.fresh(f"{ctx.name}.zero_part"), sources=(total,))
    name = ctx.name if named else ctx.fresh(f"{ctx.name}.less")
    output = ctx.new_map(sums, name=name)
    column = layer.zero.astype(np.int32).reshape(-1, *[1] * len(sums.extent))
    zeros = ctx.constant(f"{ctx.name}.zero_points", column)
    _conv_integer(ctx, layer, part, kernel, None, total)
    ctx.emit("Mul", (total, zeros), times)
    return ctx.emit("Sub", (sums, times), output)


def scaled_sum(ctx: Context, layer: IntegerLayer, sums: Sums, bias: AnyArray | None) -> FeatureView:
    """Emit the product in floats: Cast, Mul by the scales of both operands, Add of a bias."""
    assert layer.scale is not None
    dtype = ir.DataType.from_numpy(layer.scale.dtype)
    lists = sums.output.channels // layer.outputs
    column = (-1, *[1] * len(sums.output.extent))
    factor: Operand
    if layer.constant_image_scale is not None:
        both = np.tile(layer.scale, lists) * layer.constant_image_scale.array.reshape(())
        scales = both.astype(layer.scale.dtype).reshape(column)
        factor = ctx.constant(f"{ctx.name}.scales", scales)
    else:
        own = ctx.constant(f"{ctx.name}.scale", np.tile(layer.scale, lists).reshape(column))
        scales_of_image = ctx.tensor(f"{ctx.name}.scales", dtype)
        factor = ctx.emit("Mul", (layer.image_scale, own), scales_of_image)
    floats = ctx.new_map(sums.output, name=ctx.fresh(f"{ctx.name}.floats"), dtype=dtype)
    ctx.emit("Cast", (sums.output,), floats, {"to": int(dtype)})
    last = ctx.name if bias is None else ctx.fresh(f"{ctx.name}.scaled")
    output = ctx.emit("Mul", (floats, factor), ctx.new_map(floats, name=last))
    if bias is not None:
        offset = ctx.constant(f"{ctx.name}.bias", np.tile(bias, lists).reshape(column))
        output = ctx.emit("Add", (output, offset), ctx.new_map(output, name=ctx.name))
    return product_view(ctx, layer.layer, sums.reading, output)


def _kernel(ctx: Context, layer: IntegerLayer) -> tuple[Reading, Part, Kernel]:
    reading = read_layer(ctx, layer.layer)
    part, *more = reading.parts
    if more:
        ctx.refuse("several-maps", "sums integers over feature maps of several sizes")
    if part.source.constant is not None:
        ctx.refuse("constant-features", "multiplies constants only")
    if part.repeats:
        ctx.refuse(
            "quantized-form",
            "reads an element twice: the sum of two weights need not be an integer of their type",
        )
    kernel = make_kernel(ctx, layer.layer.weight, part)
    ctx.tape.append(as_fc_layer(ctx.node, layer.layer.weight, [kernel]))
    return reading, part, kernel


def _parameters(ctx: Context, layer: IntegerLayer, lists: int) -> Sequence[ConstantTensor]:
    """Scale and zero point of the kernel: one number each, or one for each output."""
    assert layer.scale is not None
    arrays = (layer.scale, layer.zero)
    varies = any((array != array[:1]).any() for array in arrays)
    name = layer.layer.weight.name
    return [
        ctx.constant(f"{name}.{what}", np.tile(array, lists) if varies else array[0].reshape(()))
        for what, array in zip(("scale", "zero_point"), arrays, strict=True)
    ]


def _zero(ctx: Context, dtype: ir.DataType) -> ConstantTensor:
    return ctx.constant("zero_point", np.zeros((), dtype.numpy()))
