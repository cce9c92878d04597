"""MatMul of rows with a stack of matrices: each group of rows has a layer of its own.

    Y[n, g, r, k] = Σ_d V[n, g, r, d] · W[g, d, k]

Where the groups read other channels at the same positions, it is a grouped Conv. (MatMul-1/9/13;
`conv2fc` writes the groups of a Conv so.)
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import NoReturn

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.contraction import Reading, conv_attributes, read, slid_map
from onnx_fc2conv.views.layers.kernel import Kernel, Part, Weight, lazily, placed
from onnx_fc2conv.views.layers.layer import Layer, as_fc_layer, operand_name, product_view
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray, IntArray
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.plan import ConstantTensor

__all__ = ["is_stack", "stacked_product"]


def is_stack(weight: Constant) -> bool:
    """Whether the constant is more than one matrix."""
    return any(length != 1 for length in weight.shape[:-2]) and not weight.sized


def stacked_product(ctx: Context, view: FeatureView, stack: Constant) -> FeatureView:
    """V·W with W [*groups, D, K] as a Conv of as many groups as the view has of channels.

    Raises:
        NodeRefused: Unless each group of rows reads equally many channels of its own.
    """
    groups = stack.shape[:-2]
    batch = view.batch_axis
    first = len(view.shape) - len(stack.shape)
    if batch is None or batch >= first or view.shape[first:-2] != groups:
        _refuse_weight(ctx, stack)
    if view.shape[-1] != stack.shape[-2]:
        ctx.refuse("shape-mismatch", f"multiplies {list(view.shape)} by {list(stack.shape)}")
    weight = Weight(stack, True, 1.0, operand_name(ctx, 1), stacked=True)
    layer = Layer(view, -1, weight)
    reading = read(ctx, view, len(view.shape) - 1, stack.shape[-1])
    matrices = _matrix_of_lists(reading, groups)
    (part, *others) = reading.parts
    unfit = part.source.deferred is not None or part.groups != reading.lists
    if matrices is None or others or unfit or stack.array.dtype != part.source.dtype.numpy():
        _refuse_weight(ctx, stack)
    kernel = _kernel(ctx, weight, part, matrices)
    output = slid_map(ctx, part, kernel, ctx.name)
    operands = (part.source, kernel.constant)
    ctx.emit("Conv", operands, output, conv_attributes(part, kernel))
    shape = (prod(groups) * stack.shape[-1], stack.shape[-2])
    ctx.tape.append(replace(as_fc_layer(ctx.node, weight, [kernel]), weight_shape=shape))
    return product_view(ctx, layer, reading, output)


def _refuse_weight(ctx: Context, stack: Constant) -> NoReturn:
    ctx.refuse(
        "weight-not-matrix",
        f"its weight has shape {list(stack.shape)}; only a constant matrix is a layer, or one for "
        "each group of channels",
    )


def _matrix_of_lists(reading: Reading, groups: tuple[int, ...]) -> IntArray | None:
    """Return the matrix of each list of elements; None if a list has several."""
    numbers = np.arange(prod(groups), dtype=np.int64).reshape(*groups, 1)
    own = np.broadcast_to(numbers, reading.which.shape).reshape(-1)
    which = reading.which.reshape(-1)
    found = np.zeros(reading.lists, np.int64)
    found[which] = own
    return found if bool((found[which] == own).all()) else None


def _kernel(ctx: Context, weight: Weight, part: Part, matrices: IntArray) -> Kernel:
    """Return the kernel of the grouped Conv: the matrix of each list."""
    stored = weight.value
    features, outputs = stored.shape[-2:]
    lists = len(matrices)
    size = part.source.channels // lists * prod(part.window)
    shape = (lists * outputs, part.source.channels // lists, *part.window)
    inside = part.elements - np.arange(lists)[:, None] * size

    def build() -> AnyArray:
        flat = stored.array.reshape(-1, features, outputs)
        blocks = [
            placed(flat[number].T, elements, size, None)
            for number, elements in zip(matrices, inside, strict=True)
        ]
        return np.concatenate(blocks).reshape(shape)

    name = ctx.fresh(f"{weight.name}.kernel")
    kept = "folded" if part.repeats else "permuted"
    return Kernel(ConstantTensor(name, shape, lazily(build, stored, shape)), lists, kept)
