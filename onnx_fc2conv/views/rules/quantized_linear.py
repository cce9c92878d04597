"""Layers that compute with integers: QLinearMatMul, QGemm, MatMulInteger and their like.

    acc[k] = Σ_d (V[d] - z_v)·(Q[k, d] - z[k]) + C[k]          exact, in int32
    y[k]   = round(acc[k] · s_v·s[k] / s_y) + z_y              QLinearMatMul, QGemm → QLinearConv
    y[k]   = acc[k] · s_v·s[k]  (+ b[k])                       QGemm without s_y,
                                                               MatMulIntegerToFloat → ConvInteger,
                                                               Cast, Mul (, Add)
    y[k]   = acc[k]                                            MatMulInteger → ConvInteger

The kernel holds the integers of the weight, and its zero point where the layer reads nothing.
(QLinearMatMul-10/21, MatMulInteger-10, QLinearConv-10, ConvInteger-10; onnxruntime's contributed
operators, version 1.) Sum and rounding are those of the layer: results are the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.operators import MICROSOFT
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.integer_conv import (
    IntegerLayer,
    accumulated,
    requantized,
    scaled_sum,
)
from onnx_fc2conv.views.layers.kernel import Weight
from onnx_fc2conv.views.layers.layer import Layer, operand_name, product_view
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.registry import rule
from onnx_fc2conv.views.rules.dynamic_quantization import quantized_by_range

__all__ = ["matmul_integer", "matmul_integer_to_float", "qgemm", "qlinear_matmul"]


@dataclass(frozen=True)
class _Operand:
    """The positions of an operand, its scale and its zero point; None if it has none."""

    value: int
    scale: int | None
    zero: int | None


_TRIPLES = _Operand(0, 1, 2), _Operand(3, 4, 5)
_INTEGERS = _Operand(0, None, 2), _Operand(1, None, 3)
_TO_FLOAT = _Operand(0, 2, 4), _Operand(1, 3, 5)
_DYNAMIC = _Operand(0, None, None), _Operand(1, 2, 3)


@rule("QLinearMatMul")
@rule("QLinearMatMul", domain=MICROSOFT)
def qlinear_matmul(ctx: Context) -> FeatureView:
    """QLinearMatMul-10/21 by a constant on either side."""
    return requantized(ctx, _layer(ctx, _TRIPLES), None, (6, 7))


@rule("QGemm", domain=MICROSOFT)
def qgemm(ctx: Context) -> FeatureView:
    """QGemm-1: integers with a scale for the result, else floats."""
    if ctx.node.attributes.get_float("alpha", 1.0) != 1.0:
        ctx.refuse("quantized-form", "has a factor alpha, which QLinearConv has not")
    trans_a, trans_b = ctx.int_attribute("transA", 0), ctx.int_attribute("transB", 0)
    _require_left_view(ctx)
    layer = _layer(ctx, _TRIPLES, bool(trans_a), bool(trans_b))
    bias = _per_output(ctx, 6, layer.outputs)
    if ctx.operand(7) is not None:
        return requantized(ctx, layer, bias, (7, 8))
    return scaled_sum(ctx, layer, accumulated(ctx, layer, bias), None)


@rule("MatMulInteger")
def matmul_integer(ctx: Context) -> FeatureView:
    """MatMulInteger-10 by a constant on either side."""
    layer = _layer(ctx, _INTEGERS)
    sums = accumulated(ctx, layer, None, named=True)
    return product_view(ctx, layer.layer, sums.reading, sums.output)


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(ctx: Context) -> FeatureView:
    """MatMulIntegerToFloat-1 by a constant on the right."""
    _require_left_view(ctx)
    layer = _layer(ctx, _TO_FLOAT)
    bias = _per_output(ctx, 6, layer.outputs)
    return scaled_sum(ctx, layer, accumulated(ctx, layer, None), bias)


@rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(ctx: Context) -> FeatureView:
    """DynamicQuantizeMatMul-1: floats, quantized by their own range, by a constant."""
    ranged = quantized_by_range(ctx, _require_left_view(ctx))
    ready = replace(ctx, operands=(ranged.view, *ctx.operands[1:]))
    layer = _layer(ready, _DYNAMIC)
    bias = _per_output(ctx, 4, layer.outputs)
    layer = replace(layer, image_scale=ranged.scale, image_zero=ranged.zero)
    return scaled_sum(ctx, layer, accumulated(ctx, layer, None), bias)


def _require_left_view(ctx: Context) -> FeatureView:
    """Return the left operand; refuse an image on the right."""
    view = ctx.view(0)
    if view is None:
        ctx.refuse("weight-not-constant", "its right operand changes with the input")
    return view


def _layer(
    ctx: Context,
    operands: tuple[_Operand, _Operand],
    trans_a: bool = False,
    trans_b: bool = False,
) -> IntegerLayer:
    """Return the layer, with the image operand and the parameters of both operands."""
    left, right = (ctx.operand(operand.value) for operand in operands)
    if isinstance(left, FeatureView) and isinstance(right, Constant):
        (image, weight), view, constant = operands, left, right
        axis, out_axis = -2 if trans_a else -1, -1
        transposed = not trans_b
    elif isinstance(left, Constant) and isinstance(right, FeatureView):
        (weight, image), view, constant = operands, right, left
        axis = -1 if trans_b or len(right.shape) == 1 else -2
        out_axis = -1 if len(right.shape) == 1 else -2
        transposed = trans_a
    else:
        ctx.refuse(
            "weight-not-constant",
            "multiplies two tensors that both change with the input (attention?), not a layer",
        )
    name = operand_name(ctx, weight.value)
    plain = Weight(constant, transposed, 1.0, name)
    if plain.shape is None:
        ctx.refuse("weight-not-matrix", f"its weight has shape {list(constant.shape)}")
    outputs = plain.shape[0]
    zero = _per_output(ctx, weight.zero, outputs)
    scale = _per_output(ctx, weight.scale, outputs)
    for parameter in (image.scale, image.zero):
        _require_one_number(ctx, parameter)
    if zero is None:
        zero = np.zeros(outputs, constant.array.dtype)
    return IntegerLayer(
        Layer(view, axis, replace(plain, fill=zero), out_axis),
        image_scale=_value(ctx, image.scale),
        image_zero=_value(ctx, image.zero),
        constant_image_scale=None if image.scale is None else ctx.constant_operand(image.scale),
        scale=scale,
        zero=zero,
    )


def _value(ctx: Context, position: int | None) -> ir.Value | None:
    inputs = ctx.node.inputs
    return inputs[position] if position is not None and position < len(inputs) else None


def _require_one_number(ctx: Context, position: int | None) -> None:
    """Refuse a parameter of the image that is not a single number."""
    fact = None if position is None else ctx.operand(position)
    if fact is None or (isinstance(fact, Unknown) and fact.uniform == ()):
        return
    if not isinstance(fact, Constant) or fact.sized:
        ctx.refuse("weight-not-constant", "its scale or zero point is not a constant")
    if fact.array.size != 1:
        ctx.refuse("quantized-form", f"has a scale or zero point for each row, {list(fact.shape)}")


def _per_output(ctx: Context, position: int | None, outputs: int) -> AnyArray | None:
    """Return a parameter of the weight as [K]; None if it is left out."""
    fact = None if position is None else ctx.operand(position)
    if fact is None:
        return None
    if not isinstance(fact, Constant) or fact.sized:
        ctx.refuse("weight-not-constant", "its parameters are not constants")
    array = fact.array.reshape(-1)
    if array.size not in (1, outputs) or max(fact.shape, default=1) != array.size:
        ctx.refuse(
            "quantized-form",
            f"has a parameter of shape {list(fact.shape)} for {outputs} outputs",
        )
    spread: AnyArray = np.ascontiguousarray(np.broadcast_to(array, (outputs,)))
    return spread
