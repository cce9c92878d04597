"""Layers that compute with integers: QLinearMatMul, QGemm, MatMulInteger and their like.

    acc[k] = Σ_d (V[d] - z_v)·(Q[k, d] - z[k]) + C[k]          exact, in int32
    y[k]   = round(acc[k] · s_v·s[k] / s_y) + z_y              QLinearMatMul, QGemm → QLinearConv
    y[k]   = acc[k] · s_v·s[k]  (+ b[k])                       QGemm without s_y,
                                                               MatMulIntegerToFloat → ConvInteger,
                                                               Cast, Mul (, Add)
    y[k]   = acc[k]                                            MatMulInteger → ConvInteger

The kernel holds the integers of the weight, and its zero point where the layer reads nothing.
(QLinearMatMul-10/21, MatMulInteger-10, QLinearConv-10, ConvInteger-10; onnxruntime's contributed
operators, version 1.) Sum and rounding are those of the layer: results are the same bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.known import Known, Opaque
from onnx_fc2conv.views.labels import AnyArray
from onnx_fc2conv.views.plan import MICROSOFT, Emitted, Outcome
from onnx_fc2conv.views.rules.dynamic_quantization import quantized_by_range
from onnx_fc2conv.views.rules.integer_conv import (
    Accumulated,
    IntegerLayer,
    accumulated,
    requantized,
    scaled_sum,
)
from onnx_fc2conv.views.rules.kernel import Weight
from onnx_fc2conv.views.rules.layer import Layer, operand_name
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.view import FeatureView

__all__ = ["matmul_integer", "matmul_integer_to_float", "qgemm", "qlinear_matmul"]


@dataclass(frozen=True)
class _Operand:
    """Where an operator has an operand, its scale and its zero point; None for nowhere."""

    value: int
    scale: int | None
    zero: int | None


_TRIPLES = _Operand(0, 1, 2), _Operand(3, 4, 5)
_INTEGERS = _Operand(0, None, 2), _Operand(1, None, 3)
_TO_FLOAT = _Operand(0, 2, 4), _Operand(1, 3, 5)
_DYNAMIC = _Operand(0, None, None), _Operand(1, 2, 3)


@rule("QLinearMatMul")
@rule("QLinearMatMul", domain=MICROSOFT)
def qlinear_matmul(app: Application) -> Outcome:
    """QLinearMatMul-10/21 by a constant on either side."""
    layer = _layer(app, _TRIPLES)
    return requantized(app, layer, None, (6, 7))


@rule("QGemm", domain=MICROSOFT)
def qgemm(app: Application) -> Outcome:
    """QGemm-1: integers with a scale for the result, else floats."""
    if app.node.attributes.get_float("alpha", 1.0) != 1.0:
        app.refuse("quantized-form", "has a factor alpha, which QLinearConv has not")
    trans_a, trans_b = app.int_attribute("transA", 0), app.int_attribute("transB", 0)
    if app.view(0) is None:
        app.refuse("weight-not-constant", "its right operand changes with the input")
    layer = _layer(app, _TRIPLES, bool(trans_a), bool(trans_b))
    bias = _per_output(app, 6, layer.outputs)
    if app.operand(7) is not None:
        return requantized(app, layer, bias, (7, 8))
    found = accumulated(app, layer, bias)
    return _floats(app, layer, found, None)


@rule("MatMulInteger")
def matmul_integer(app: Application) -> Outcome:
    """MatMulInteger-10 by a constant on either side."""
    layer = _layer(app, _INTEGERS)
    found = accumulated(app, layer, None, named=True)
    return Emitted(found.steps, found.view(app, found.output), found.fc_layer)


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(app: Application) -> Outcome:
    """MatMulIntegerToFloat-1 by a constant on the right."""
    if app.view(0) is None:
        app.refuse("weight-not-constant", "its right operand changes with the input")
    layer = _layer(app, _TO_FLOAT)
    bias = _per_output(app, 6, layer.outputs)
    found = accumulated(app, layer, None)
    return _floats(app, layer, found, bias)


@rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(app: Application) -> Outcome:
    """DynamicQuantizeMatMul-1: floats, quantized by their own range, by a constant."""
    view = app.view(0)
    if view is None:
        app.refuse("weight-not-constant", "its right operand changes with the input")
    ranged = quantized_by_range(app, view)
    layer = _layer(replace(app, operands=(ranged.view, *app.operands[1:])), _DYNAMIC)
    bias = _per_output(app, 4, layer.outputs)
    layer = replace(layer, image_scale=ranged.scale, image_zero=ranged.zero)
    found = accumulated(app, layer, None)
    floats = _floats(app, layer, found, bias)
    return replace(floats, steps=(*ranged.steps, *floats.steps))


def _floats(
    app: Application, layer: IntegerLayer, found: Accumulated, bias: AnyArray | None
) -> Emitted:
    steps, output = scaled_sum(app, layer, found.output, bias)
    return Emitted((*found.steps, *steps), found.view(app, output), found.fc_layer)


def _layer(
    app: Application,
    operands: tuple[_Operand, _Operand],
    trans_a: bool = False,
    trans_b: bool = False,
) -> IntegerLayer:
    """The layer: which operand is the image, and the parameters of both."""
    left, right = (app.operand(operand.value) for operand in operands)
    if isinstance(left, FeatureView) and isinstance(right, Known):
        (image, weight), view, known = operands, left, right
        axis, out_axis = -2 if trans_a else -1, -1
        transposed = not trans_b
    elif isinstance(left, Known) and isinstance(right, FeatureView):
        (weight, image), view, known = operands, right, left
        axis = -1 if trans_b or len(right.shape) == 1 else -2
        out_axis = -1 if len(right.shape) == 1 else -2
        transposed = trans_a
    else:
        app.refuse(
            "weight-not-constant",
            "multiplies two tensors that both change with the input (attention?), not a layer",
        )
    name = operand_name(app, weight.value)
    plain = Weight(known, transposed, 1.0, name)
    if plain.shape is None:
        app.refuse("weight-not-matrix", f"its weight has shape {list(known.shape)}")
    outputs = plain.shape[0]
    zero = _per_output(app, weight.zero, outputs)
    scale = _per_output(app, weight.scale, outputs)
    for parameter in (image.scale, image.zero):
        _require_one_number(app, parameter)
    if zero is None:
        zero = np.zeros(outputs, known.array.dtype)
    return IntegerLayer(
        Layer(view, axis, replace(plain, fill=zero), out_axis),
        image_scale=_value(app, image.scale),
        image_zero=_value(app, image.zero),
        known_image_scale=None if image.scale is None else app.known(image.scale),
        scale=scale,
        zero=zero,
    )


def _value(app: Application, position: int | None) -> ir.Value | None:
    inputs = app.node.inputs
    return inputs[position] if position is not None and position < len(inputs) else None


def _require_one_number(app: Application, position: int | None) -> None:
    """Refuse a parameter of the image that is no single number."""
    fact = None if position is None else app.operand(position)
    if fact is None or (isinstance(fact, Opaque) and fact.uniform == ()):
        return
    if not isinstance(fact, Known) or fact.sized:
        app.refuse("weight-not-constant", "its scale or zero point is not a constant")
    if fact.array.size != 1:
        app.refuse("quantized-form", f"has a scale or zero point for each row, {list(fact.shape)}")


def _per_output(app: Application, position: int | None, outputs: int) -> AnyArray | None:
    """A parameter of the weight as [K]; None if it is left out."""
    fact = None if position is None else app.operand(position)
    if fact is None:
        return None
    if not isinstance(fact, Known) or fact.sized:
        app.refuse("weight-not-constant", "its parameters are not constants")
    array = fact.array.reshape(-1)
    if array.size not in (1, outputs) or max(fact.shape, default=1) != array.size:
        app.refuse(
            "quantized-form",
            f"has a parameter of shape {list(fact.shape)} for {outputs} outputs",
        )
    spread: AnyArray = np.ascontiguousarray(np.broadcast_to(array, (outputs,)))
    return spread
