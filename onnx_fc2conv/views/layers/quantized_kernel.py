"""Kernels that stay integers: the weight's own, behind a DequantizeLinear of the kernel.

    W[k, d] = (Q[k, d] - z[k]) · s[k]      K[k, c, s] = (Q'[k, c, s] - z[k]) · s[k]

with Q' the integers of Q put in their places, and the zero point z[k] where the layer reads
nothing. (DequantizeLinear-10/13/19/21/23 along axis 0, the axis of a kernel's outputs.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.kernel import Kernel, Part, Weight, make_kernel
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.plan import ConstantTensor, Intermediate

__all__ = ["dequantized", "layer_kernel", "per_output"]


def layer_kernel(ctx: Context, weight: Weight, part: Part) -> Kernel:
    """Return the kernel of a part, of integers where the weight is dequantized from them.

    It is of floats where something is folded into it (alpha, a deferred scale, an element that
    is read twice), or where the weight's scale differs from feature to feature.
    """
    quantized = weight.value.quantized
    if quantized is None or weight.alpha != 1.0 or part.source.deferred or part.repeats:
        return make_kernel(ctx, weight, part)
    scale = per_output(weight.as_matrix(quantized.scale.array))
    zero = per_output(weight.as_matrix(np.broadcast_to(quantized.zero.array, weight.value.shape)))
    if scale is None or zero is None:
        return make_kernel(ctx, weight, part)
    of_integers = replace(weight, value=quantized.integers, fill=zero)
    kernel = make_kernel(ctx, of_integers, part)
    varies = bool((scale != scale[:1]).any() or (zero != zero[:1]).any())
    copies = len(part.elements)
    parameters = [np.tile(a, copies) if varies else a[0].reshape(()) for a in (scale, zero)]
    made = dequantized(ctx, weight.name, kernel.constant, parameters, quantized.domain)
    return replace(kernel, dequantized=made)


def dequantized(
    ctx: Context,
    name: str,
    integers: ConstantTensor,
    parameters: Sequence[AnyArray],
    domain: str,
) -> Intermediate:
    """Emit a DequantizeLinear of a constant.

    Args:
        ctx: The node that reads it.
        name: Name of the original tensor.
        integers: The integers.
        parameters: Scale and zero point, each one number or one for each element of axis 0.
        domain: Domain of the DequantizeLinear.
    """
    scale, zero = parameters
    made = ctx.tensor(f"{name}.dequantized", ir.DataType.from_numpy(scale.dtype))
    operands = (
        integers,
        ctx.constant(f"{made.name}.scale", scale),
        ctx.constant(f"{made.name}.zero_point", zero),
    )
    axis = {"axis": 0} if scale.ndim else {}
    return ctx.emit("DequantizeLinear", operands, made, axis, domain=domain)


def per_output(matrix: AnyArray) -> AnyArray | None:
    """Return the common value of each row of [K, D], [K]; None if a row has several values."""
    if matrix.size == 0 or not (matrix == matrix[:, :1]).all():
        return None
    column: AnyArray = np.ascontiguousarray(matrix[:, 0])
    return column
