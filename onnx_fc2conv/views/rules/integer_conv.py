"""Convs of integers: what the layers of `quantized_linear` become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.known import Known
from onnx_fc2conv.views.labels import AnyArray
from onnx_fc2conv.views.plan import Constant, Emitted, FcLayer, Intermediate, Step
from onnx_fc2conv.views.rules.contraction import Reading, conv_attributes, slid_map
from onnx_fc2conv.views.rules.kernel import Kernel, Part, make_kernel
from onnx_fc2conv.views.rules.layer import Layer, as_fc_layer, product_view, read_layer
from onnx_fc2conv.views.rules.registry import Application
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["Accumulated", "IntegerLayer", "accumulated", "requantized", "scaled_sum"]

_U8, _I8 = ir.DataType.UINT8, ir.DataType.INT8
_REQUANTIZED = {(_U8, _U8, _U8), (_U8, _I8, _U8), (_I8, _I8, _I8)}
"""Types of image, kernel and result that onnxruntime's QLinearConv has (measured on 1.31)."""


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A layer of integers, with the parameters of its operands.

    Attributes:
        layer: The layer; its weight fills with the zero points.
        image_scale: The scale of the image's features, where the operator has it.
        image_zero: Their zero point; None for 0.
        known_image_scale: The scale, where it is a constant.
        scale: The scale of each output's weights, [K], where the operator has it.
        zero: Their zero points, [K].
    """

    layer: Layer
    image_scale: ir.Value | Intermediate | None
    image_zero: ir.Value | Intermediate | None
    known_image_scale: Known | None
    scale: AnyArray | None
    zero: AnyArray

    @property
    def outputs(self) -> int:
        """K."""
        return self.zero.size


@dataclass(frozen=True, eq=False)
class Accumulated:
    """The sums of products of a layer: ``output`` is their map, of int32."""

    layer: Layer
    reading: Reading
    steps: tuple[Step, ...]
    output: FeatureMap
    fc_layer: FcLayer

    def view(self, app: Application, output: FeatureMap) -> FeatureView:
        """The product of the layer as a view of what was made of the sums."""
        return product_view(app, self.layer, self.reading, output)


def requantized(
    app: Application, layer: IntegerLayer, bias: AnyArray | None, result: tuple[int, int]
) -> Emitted:
    """QLinearConv; ``result`` are the places of the scale and the zero point of the product.

    Raises:
        NodeRefused: If onnxruntime's QLinearConv does not compute it.
    """
    reading, part, kernel = _kernel(app, layer)
    scale, zero = (app.known(position) for position in result)
    if scale is None or scale.array.size != 1 or (zero is not None and zero.array.size != 1):
        app.refuse("quantized-form", "the scale of its product is not one constant number")
    dtype = _U8 if zero is None else ir.DataType.from_numpy(zero.array.dtype)
    types = (part.source.dtype, ir.DataType.from_numpy(layer.zero.dtype), dtype)
    if types not in _REQUANTIZED:
        listed = f"{types[0]} by {types[1]} to {types[2]}"
        app.refuse("unsupported-type", f"multiplies {listed}, which QLinearConv does not")
    assert layer.scale is not None
    name = app.node.outputs[0].name or "product"
    output = slid_map(app, part, kernel, name, dtype=dtype)
    inputs: list[FeatureMap | Intermediate | Constant | ir.Value | None] = [
        part.source,
        layer.image_scale,
        layer.image_zero or _zero(app, part.source.dtype),
        kernel.constant,
        *_parameters(app, layer, reading.lists),
        app.node.inputs[result[0]],
        _zero(app, dtype) if zero is None else app.node.inputs[result[1]],
    ]
    if bias is not None:
        inputs.append(_constant(app, f"{name}.bias", np.tile(bias, reading.lists)))
    step = Step("QLinearConv", tuple(inputs), output, app.node, conv_attributes(part, kernel))
    view = product_view(app, layer.layer, reading, output)
    fc_layer = as_fc_layer(app, layer.layer.weight, [kernel])
    return Emitted((*reading.steps, step), view, fc_layer)


def accumulated(
    app: Application, layer: IntegerLayer, bias: AnyArray | None, *, named: bool = False
) -> Accumulated:
    """ConvInteger, and an Add of the bias: the sums in int32.

    ``named``: whether they are the result of the node, and have its name.

    Raises:
        NodeRefused: If zero points differ where several rows are read.
    """
    varies = bool((layer.zero != layer.zero[:1]).any())
    reading, part, kernel = _kernel(app, layer)
    if varies and reading.lists > 1:
        app.refuse(
            "quantized-form", "has a zero point for each output, and is applied to several rows"
        )
    name = app.node.outputs[0].name or "product"
    own = name if named and not varies else app.names.fresh(f"{name}.sums")
    zero = None if varies else _constant(app, f"{own}.zero_point", layer.zero[0].reshape(()))
    output = slid_map(app, part, kernel, own, dtype=ir.DataType.INT32)
    steps = [_conv_integer(app, layer, part, kernel, zero, output)]
    if varies:
        more, output = _less_zero_points(app, layer, part, output, named=named)
        steps.extend(more)
    if bias is not None:
        column = np.tile(bias, reading.lists).reshape(-1, *[1] * len(output.extent))
        summed = app.new_map(output, name=app.names.fresh(f"{name}.biased"))
        operands = (output, _constant(app, f"{name}.bias", column))
        steps.append(Step("Add", operands, summed, app.node))
        output = summed
    fc_layer = as_fc_layer(app, layer.layer.weight, [kernel])
    return Accumulated(layer.layer, reading, (*reading.steps, *steps), output, fc_layer)


def _conv_integer(  # noqa: PLR0913 - the parts of one node
    app: Application,
    layer: IntegerLayer,
    part: Part,
    kernel: Kernel,
    zero: Constant | None,
    output: FeatureMap,
) -> Step:
    operands = (part.source, kernel.constant, layer.image_zero, zero)
    inputs = operands if zero is not None else operands[:3]
    return Step("ConvInteger", inputs, output, app.node, conv_attributes(part, kernel))


def _less_zero_points(
    app: Application, layer: IntegerLayer, part: Part, sums: FeatureMap, *, named: bool
) -> tuple[tuple[Step, ...], FeatureMap]:
    """Σ v·(q - z[k]) = Σ v·q - z[k]·Σ v: onnxruntime's ConvInteger takes one zero point only.

    The sum of the image's own integers is a ConvInteger with a kernel of ones; it takes off what
    the zero points that fill the other kernel add to the first sum, too.
    """
    name = app.node.outputs[0].name or "product"
    shape = (1, part.source.channels, *part.window)
    ones = _constant(app, f"{layer.layer.weight.name}.ones", np.ones(shape, layer.zero.dtype))
    kernel = Kernel(ones, groups=1, bytes_kept="same")
    total = slid_map(app, part, kernel, app.names.fresh(f"{name}.total"), dtype=sums.dtype)
    times = app.new_map(sums, name=app.names.fresh(f"{name}.zero_part"), sources=(total,))
    output = app.new_map(sums, name=name if named else app.names.fresh(f"{name}.less"))
    column = layer.zero.astype(np.int32).reshape(-1, *[1] * len(sums.extent))
    zeros = _constant(app, f"{name}.zero_points", column)
    return (
        _conv_integer(app, layer, part, kernel, None, total),
        Step("Mul", (total, zeros), times, app.node),
        Step("Sub", (sums, times), output, app.node),
    ), output


def scaled_sum(
    app: Application, layer: IntegerLayer, sums: FeatureMap, bias: AnyArray | None
) -> tuple[tuple[Step, ...], FeatureMap]:
    """The sums as floats: Cast, times the scales of both operands, plus a bias of floats."""
    assert layer.scale is not None
    name = app.node.outputs[0].name or "product"
    dtype = ir.DataType.from_numpy(layer.scale.dtype)
    lists = sums.channels // layer.outputs
    column = (-1, *[1] * len(sums.extent))
    steps: list[Step] = []
    factor: Constant | Intermediate
    if layer.known_image_scale is not None:
        both = np.tile(layer.scale, lists) * layer.known_image_scale.array.reshape(())
        factor = _constant(app, f"{name}.scales", both.astype(layer.scale.dtype).reshape(column))
    else:
        own = _constant(app, f"{name}.scale", np.tile(layer.scale, lists).reshape(column))
        factor = Intermediate(app.names.fresh(f"{name}.scales"), dtype)
        steps.append(Step("Mul", (layer.image_scale, own), factor, app.node))
    floats = app.new_map(sums, name=app.names.fresh(f"{name}.floats"), dtype=dtype)
    steps.append(Step("Cast", (sums,), floats, app.node, {"to": int(dtype)}))
    last = name if bias is None else app.names.fresh(f"{name}.scaled")
    output = app.new_map(floats, name=last)
    steps.append(Step("Mul", (floats, factor), output, app.node))
    if bias is not None:
        offset = _constant(app, f"{name}.bias", np.tile(bias, lists).reshape(column))
        scaled, output = output, app.new_map(output, name=name)
        steps.append(Step("Add", (scaled, offset), output, app.node))
    return tuple(steps), output


def _kernel(app: Application, layer: IntegerLayer) -> tuple[Reading, Part, Kernel]:
    reading = read_layer(app, layer.layer)
    part, *more = reading.parts
    if more:
        app.refuse("several-maps", "sums integers over feature maps of several sizes")
    if part.source.constant is not None:
        app.refuse("constant-features", "multiplies constants only")
    if part.repeats:
        app.refuse(
            "quantized-form",
            "reads an element twice: the sum of two weights need not be an integer of their type",
        )
    return reading, part, make_kernel(app, layer.layer.weight, part)


def _parameters(app: Application, layer: IntegerLayer, lists: int) -> Sequence[Constant]:
    """Scale and zero point of the kernel: one number each, or one for each output."""
    assert layer.scale is not None
    arrays = (layer.scale, layer.zero)
    varies = any((array != array[:1]).any() for array in arrays)
    name = layer.layer.weight.name
    return [
        _constant(app, f"{name}.{what}", np.tile(array, lists) if varies else array[0].reshape(()))
        for what, array in zip(("scale", "zero_point"), arrays, strict=True)
    ]


def _zero(app: Application, dtype: ir.DataType) -> Constant:
    return _constant(app, "zero_point", np.zeros((), dtype.numpy()))


def _constant(app: Application, name: str, array: AnyArray) -> Constant:
    return Constant(app.names.fresh(name), array.shape, lambda: ir.Tensor(array))
