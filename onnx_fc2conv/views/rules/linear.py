"""Gemm and MatMul with a constant weight: the fully connected layer as a convolution.

    V[n, d] = M[n, index[d]]                 the operand is a view of the map M [N, C, *S]
    Y[n, k] = Σ_d W[k, d] · V[n, d]
            = Σ_(c,s) K[k, c, s] · M[n, c, s]        with  K[k, index[d]] = W[k, d],  0 elsewhere

which is the only cell of a Conv of M with kernel K, without padding. Where the index is the
identity, K is W in another shape, byte for byte. (Gemm-7/9/11/13, MatMul-1/9/13, Conv-1/11; Long,
Shelhamer, Darrell: Fully Convolutional Networks, 2015, section 3.1.)

- V draws on several maps: a sum of Convs, whose strides align their cells.
- V has rows, V[n, t, d], each of which reads channels of one position: a Conv with a 1×1 kernel.
- V has other rows: a Conv with K outputs for each different row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NoReturn

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.addend import added
from onnx_fc2conv.views.layers.contraction import sum_of_convs
from onnx_fc2conv.views.layers.kernel import Weight, deferred_shift, scaled
from onnx_fc2conv.views.layers.layer import (
    Layer,
    as_fc_layer,
    operand_name,
    product_view,
    read_layer,
)
from onnx_fc2conv.views.layers.stacked import is_stack, stacked_product
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.side_inputs import with_side_inputs
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.plan import ConstantTensor
from onnx_fc2conv.views.registry import rule

__all__ = ["CONV_TYPES", "Bias", "convolve", "gemm", "matmul"]

CONV_TYPES = {
    ir.DataType.FLOAT: 1,
    ir.DataType.FLOAT16: 1,
    ir.DataType.DOUBLE: 1,
    ir.DataType.BFLOAT16: 22,
}
"""The types that Conv supports, and the opset since which it does."""


@rule("Gemm")
def gemm(ctx: Context) -> FeatureView:
    """Y = alpha·A'·B' + beta·C, with the image in A' (usual) or in B'."""
    trans_a, trans_b = ctx.int_attribute("transA", 0), ctx.int_attribute("transB", 0)
    alpha = ctx.node.attributes.get_float("alpha", 1.0)
    beta = ctx.node.attributes.get_float("beta", 1.0)
    a, b = ctx.operand(0), ctx.operand(1)
    if isinstance(a, FeatureView) and isinstance(b, Constant):
        layer = Layer(a, -2 if trans_a else -1, Weight(b, not trans_b, alpha, operand_name(ctx, 1)))
        bias_shape: Literal["row", "column"] = "row"
    elif isinstance(a, Constant) and isinstance(b, FeatureView):
        layer = Layer(
            b, -1 if trans_b else -2, Weight(a, bool(trans_a), alpha, operand_name(ctx, 0))
        )
        bias_shape = "column"
    else:
        _refuse_two_tensors(ctx)
    c = ctx.operand(2) if beta != 0.0 else None
    if c is not None and not isinstance(c, Constant):
        return _plus_view(ctx, layer, bias_shape, beta)
    # B' = Vᵀ of shape [D, N] puts the samples on the columns of Y; A' = V puts them on the rows.
    layer = replace(layer, out_axis=-1 if bias_shape == "row" else -2)
    bias = None if c is None else Bias(c, beta, bias_shape, operand_name(ctx, 2))
    return convolve(ctx, layer, bias)


def _plus_view(
    ctx: Context, layer: Layer, rows: Literal["row", "column"], beta: float
) -> FeatureView:
    """Emit the layer, and a sum with a third operand that depends on an input."""
    if rows == "column":
        ctx.refuse("bias-not-constant", "its bias is not a constant")
    addend = with_side_inputs(ctx).view(2)
    assert addend is not None
    return added(ctx, convolve(ctx, layer, None), addend, beta)


@rule("MatMul")
def matmul(ctx: Context) -> FeatureView:
    """Y = V·Wᵀ or W·V with a constant matrix (or vector) on either side, or V·W with several."""
    a, b = ctx.operand(0), ctx.operand(1)
    if isinstance(a, FeatureView) and isinstance(b, Constant):
        if is_stack(b):
            return stacked_product(ctx, a, b)
        layer = Layer(a, -1, Weight(b, True, 1.0, operand_name(ctx, 1)))
        return convolve(ctx, layer, None)
    if not isinstance(a, Constant) or not isinstance(b, FeatureView):
        _refuse_two_tensors(ctx)
    axis = -1 if len(b.shape) == 1 else -2
    layer = Layer(b, axis, Weight(a, False, 1.0, operand_name(ctx, 0)), out_axis=axis)
    return convolve(ctx, layer, None)


@dataclass(frozen=True, eq=False)
class Bias:
    """beta·C, with C broadcast over the rows (one value per column) or the columns of Y."""

    value: Constant
    beta: float
    shape: Literal["row", "column"]
    name: str

    def per_output(self, outputs: int) -> AnyArray | None:
        """Return the bias as [K] in C's dtype; None if it varies over the samples."""
        array = self.value.array
        if self.shape == "column":
            if array.ndim < 2:
                array = array if array.size == 1 else np.empty((2, 2))
            elif array.shape[1] == 1:
                array = array[:, 0]
        elif array.ndim == 2 and array.shape[0] == 1:
            array = array[0]
        if array.size != 1 and array.shape != (outputs,):
            return None
        array = np.broadcast_to(array.reshape(-1), (outputs,))
        return array if self.beta == 1.0 else scaled(array, self.beta)


def convolve(ctx: Context, layer: Layer, bias: Bias | None) -> FeatureView:
    """Emit the layer as a Conv of each map that its view draws on, and their sum.

    Args:
        ctx: The node.
        layer: The contraction.
        bias: The bias of each output.

    Raises:
        NodeRefused: If it contracts anything but features, or is no Conv of numbers.
    """
    weight = layer.weight
    reading = read_layer(ctx, layer)
    assert weight.shape is not None
    offset = None if bias is None else bias.per_output(weight.shape[0])
    if bias is not None and offset is None:
        ctx.refuse(
            "bias-not-constant",
            f"its bias of shape {list(bias.value.shape)} has other values for other samples",
        )
    types = {part.source.dtype for part in reading.parts}
    if any(CONV_TYPES.get(dtype, ctx.opset + 1) > ctx.opset for dtype in types):
        listed = " and ".join(sorted(map(str, types)))
        why = f"computes in {listed}, which Conv does not in opset {ctx.opset}"
        ctx.refuse("unsupported-type", why)

    shifts = [deferred_shift(weight, part) for part in reading.parts]
    bias_input = _bias_input(ctx, weight, bias, offset, shifts, reading.lists)
    parts = [part for part in reading.parts if part.source.constant is None]
    if not parts:
        ctx.refuse("constant-features", "is given constants only: nothing of the image")
    output, kernels = sum_of_convs(ctx, weight, parts, bias_input)
    ctx.tape.append(as_fc_layer(ctx.node, weight, kernels))
    return product_view(ctx, layer, reading, output)


def _bias_input(  # noqa: PLR0913 - the parts of one sum
    ctx: Context,
    weight: Weight,
    bias: Bias | None,
    offset: AnyArray | None,
    shifts: list[AnyArray | None],
    lists: int,
) -> ConstantTensor | ir.Value | None:
    """The Conv's bias [P·K]: the model's own tensor where it already is that, else a new one."""
    moved = [shift for shift in shifts if shift is not None]
    if offset is None and not moved:
        return None
    assert weight.shape is not None
    outputs = weight.shape[0]
    if bias is not None and not moved and lists == 1 and bias.beta == 1.0:
        value = ctx.node.inputs[2]
        as_stored = bias.value.tensor is not None or bias.value.quantized is not None
        if as_stored and value is not None and bias.value.shape == (outputs,):
            return value
    dtype = weight.value.array.dtype if offset is None else offset.dtype
    total = np.zeros(lists * outputs) if offset is None else np.tile(offset, lists)
    for shift in moved:
        total = total + shift
    name = bias.name if bias is not None else weight.name
    return ctx.constant(f"{name}.bias", np.ascontiguousarray(total, dtype=dtype))


def _refuse_two_tensors(ctx: Context) -> NoReturn:
    ctx.refuse(
        "weight-not-constant",
        "multiplies two tensors that both change with the input (attention?), not a layer",
    )
