"""Constants that a model keeps as integers: DequantizeLinear of a stored tensor.

A runtime computes with the integers where it sees them behind a DequantizeLinear, so a conversion
has to keep them. Scale and zero point are spread over the elements, and data movement moves all
three alike: whichever axis the operator quantizes along, and whatever moves the weight before its
layer, each element keeps its own scale and zero point.

ONNX's reference implementation has both operators from opset 19 on only, so their arithmetic is
implemented here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.operators import REARRANGING
from onnx_fc2conv.views.maps.constant import Constant, Quantized
from onnx_fc2conv.views.maps.labels import AnyArray, evaluate

__all__ = ["quantized_array", "quantized_constant"]


def quantized_constant(node: ir.Node, operands: Sequence[object], opset: int) -> Quantized | None:
    """Return the integers behind the only output of a node of constants; None without any.

    Handles DequantizeLinear-10/13/19/21/23 per tensor or per axis. Blocks along an axis are left to
    float arithmetic.
    """
    if not all(
        isinstance(fact, Constant) and not fact.sized for fact in operands if fact is not None
    ):
        return None
    constants = cast("Sequence[Constant | None]", operands)
    first = constants[0] if constants else None
    if first is None:
        return None
    if node.op_type == "DequantizeLinear":
        return _dequantized(node, first, constants)
    if node.op_type in REARRANGING and node.domain == "" and first.quantized is not None:
        return _moved(node, first.quantized, constants[1:], opset)
    return None


def quantized_array(node: ir.Node, inputs: Sequence[AnyArray | None]) -> AnyArray:
    """QuantizeLinear-10/13/19/21 of a constant: round(x / scale) + zero, half to even, saturated.

    Raises:
        ValueError: If it quantizes in blocks, to no integers, or the shapes do not fit.
    """
    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    if x is None or scale is None or node.attributes.get_int("block_size", 0) != 0:
        raise ValueError("QuantizeLinear in blocks")
    stated = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    dtype = stated.numpy() if zero is None else zero.dtype
    if not np.issubdtype(dtype, np.integer):
        raise ValueError(f"QuantizeLinear to {dtype}")
    shape = _aligned(x.shape, node.attributes.get_int("axis", 1), scale.size)
    offset = 0 if zero is None else zero.astype(np.int64).reshape(shape)
    steps = np.rint(x / scale.reshape(shape)).astype(np.int64) + offset
    bounds = np.iinfo(dtype)
    made: AnyArray = np.clip(steps, bounds.min, bounds.max).astype(dtype)
    return made


def _aligned(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    """Return the shape that broadcasts parameters along an axis; all ones for a single one."""
    aligned = [1] * len(shape)
    if size != 1:
        aligned[axis] = size
    return tuple(aligned)


def _dequantized(
    node: ir.Node, integers: Constant, constants: Sequence[Constant | None]
) -> Quantized | None:
    scale, zero = constants[1], constants[2] if len(constants) > 2 else None
    if scale is None or node.attributes.get_int("block_size", 0) != 0:
        return None
    shape, axis = integers.shape, node.attributes.get_int("axis", 1)
    sizes = {parameter.array.size for parameter in (scale, zero) if parameter is not None} - {1}
    if sizes and not (-len(shape) <= axis < len(shape) and sizes == {shape[axis]}):
        return None

    def spread(parameter: Constant) -> Constant:
        def compute(_: int) -> AnyArray:
            array = parameter.array
            return np.broadcast_to(array.reshape(_aligned(shape, axis, array.size)), shape)

        return Constant(compute, integers.batches)

    def nothing(_: int) -> AnyArray:
        return np.zeros((1,) * len(shape), integers.array.dtype)

    zeros = Constant(nothing, integers.batches) if zero is None else zero
    return Quantized(integers, spread(scale), spread(zeros), node.domain)


def _moved(
    node: ir.Node, quantized: Quantized, others: Sequence[Constant | None], opset: int
) -> Quantized:
    def move(constant: Constant) -> Constant:
        def compute(_: int) -> AnyArray:
            rest = [None if other is None else other.array for other in others]
            return evaluate(node, [constant.array, *rest], opset)[0]

        return Constant(compute, constant.batches)

    return Quantized(
        move(quantized.integers), move(quantized.scale), move(quantized.zero), quantized.domain
    )
