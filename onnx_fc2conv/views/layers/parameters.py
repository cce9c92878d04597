"""The constant operands of an elementwise operator, by channel of its maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnx_fc2conv.views.context import Context, Operand
from onnx_fc2conv.views.layers.quantized_kernel import dequantized
from onnx_fc2conv.views.maps.alignment import Alignment
from onnx_fc2conv.views.maps.broadcasting import Broadcast
from onnx_fc2conv.views.maps.constant import Quantized
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.plan import ConstantTensor

__all__ = ["by_channel"]


def by_channel(ctx: Context, together: Broadcast, alignment: Alignment) -> Mapping[int, Operand]:
    """The constant operands: scalars as they are, others as [T, 1, …].

    Raises:
        NodeRefused: If one differs from position to position.
    """
    constants: dict[int, Operand] = {}
    for position, array in together.constants.items():
        value = ctx.node.inputs[position]
        constant = ctx.constant_operand(position)
        assert value is not None
        assert constant is not None
        if not together.shapes[position]:
            # One computed from the image size would not keep the value that it has at a window.
            constants[position] = (
                _constant(ctx, position, constant.array, in_order=False)
                if constant.sized
                else value
            )
            continue
        per_channel = alignment.spread(array).reshape(alignment.channels[0].size, -1)
        if not (per_channel == per_channel[:, :1]).all():
            ctx.refuse(
                "position-dependent",
                f"its constant of shape {list(together.shapes[position])} has other values at "
                f"other positions of {alignment.sources[0].name}",
            )
        column = per_channel[:, 0].reshape(-1, *[1] * len(alignment.extent))
        in_order = np.array_equal(constant.array.reshape(-1), column.reshape(-1))
        parameters = _of_tensor(constant.quantized) if in_order else None
        if constant.quantized is None or parameters is None:
            constants[position] = _constant(ctx, position, column, in_order)
            continue
        integers = constant.quantized.integers.array.reshape(column.shape)
        stored = _constant(ctx, position, integers, in_order=False)
        name, domain = value.name or "constant", constant.quantized.domain
        constants[position] = dequantized(ctx, name, stored, parameters, domain)
    return constants


def _of_tensor(quantized: Quantized | None) -> list[AnyArray] | None:
    """Return scale and zero point, if they are the same for all elements."""
    if quantized is None:
        return None
    arrays = [quantized.scale.array.reshape(-1), quantized.zero.array.reshape(-1)]
    if any((array != array[:1]).any() for array in arrays):
        return None
    return [array[0].reshape(()) for array in arrays]


def _constant(ctx: Context, position: int, array: AnyArray, in_order: bool) -> ConstantTensor:
    value = ctx.node.inputs[position]
    name = (value.name if value is not None else None) or ctx.node.outputs[0].name or "constant"
    made = ctx.constant(f"{name}.channels", array.copy())
    return replace(made, original=value if in_order else None)
