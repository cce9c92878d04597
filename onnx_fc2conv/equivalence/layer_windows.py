"""One layer and the Conv that stands for it, alone, on windows of a feature map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.batches import run_in_batches
from onnx_fc2conv.equivalence.integer_coding import replace_constants
from onnx_fc2conv.equivalence.larger import cells, windows
from onnx_fc2conv.equivalence.layers import LayerPair
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.places import NotTraced, Trace, only_movement
from onnx_fc2conv.equivalence.runtime import RunError, Session
from onnx_fc2conv.equivalence.stored import constant_array
from onnx_fc2conv.equivalence.structure import constants
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["LayerWindows", "Products", "chosen_outputs"]

_MOST_WEIGHTS = 1 << 22
"""Of a larger layer some outputs are taken, or its weight in float64 would fill the memory."""


def chosen_outputs(weight: AnyArray, rng: np.random.Generator) -> AnyArray:
    """The outputs [K'] of a layer [K, D] that are compared: all, or as many as fit."""
    count = max(1, _MOST_WEIGHTS // max(1, weight.shape[1]))
    if count >= len(weight):
        return np.arange(len(weight))
    chosen: AnyArray = np.sort(rng.choice(len(weight), count, replace=False))
    return chosen


@dataclass(frozen=True, eq=False)
class Products:
    """What a layer and its Conv make of the same windows, without their biases.

    Attributes:
        operand: The elements of each window in the order of the layer's weight, [N, D].
        expected: What the layer makes of them, [N, K].
        found: The cells of the Conv, [N, K].
    """

    operand: AnyArray
    expected: AnyArray
    found: AnyArray


@dataclass(frozen=True, eq=False)
class LayerWindows:
    """A layer and its Conv, on feature maps.

    Attributes:
        pair: The models.
        both: The layer and its Conv.
    """

    pair: Pair
    both: LayerPair

    def shape(self) -> tuple[int, ...]:
        """Shape of two feature maps, larger than the native one where the models allow."""
        native = self.both.conv_operand.shape
        grown = [0] * len(native)
        strides = self.both.conv.attributes.get_ints("strides", ())
        if any(self.pair.growing.values()) and all(step == 1 for step in strides):
            start = self.both.conv_operand.start
            for number, axis in enumerate(self.pair.growing.get(start, range(2, len(native)))):
                grown[axis] = 2 - number % 2
        return (2, *(a + b for a, b in zip(native[1:], grown[1:], strict=True)))

    def run(self, features: AnyArray, weight: AnyArray, kernel: AnyArray) -> Products:
        """Apply the layer with this weight [K, D] to all windows, the Conv with this kernel once.

        Args:
            features: Feature maps of `shape`.
            weight: [K, D].
            kernel: [K, E], by the elements of the Conv's operand.

        Raises:
            NotTraced: If they cannot be run apart from their models.
            RunError: If one of them does not run, or the Conv has not a cell for each window.
        """
        one, two = self.both.operand, self.both.conv_operand
        if one.batch != one.shape[0] or two.batch != two.shape[0]:
            raise NotTraced("its samples are not on the first axis")
        grid = [
            length - own + 1
            for length, own in zip(features.shape[1:], two.shape[1:], strict=True)
            if length != own
        ]
        count = int(np.prod(grid))
        cut = windows(features, two.shape[1:], count)
        name = self.both.layer.outputs[0].name or ""
        session = _alone(one, self.both.layer, weight, self.pair)
        feeds = {one.start: np.ascontiguousarray(cut.reshape(-1, *one.shape[1:]))}
        expected = run_in_batches(session, feeds, [name], self.pair.fixed_batch)[name]
        name = self.both.conv.outputs[0].name or ""
        made = _alone(two, self.both.conv, kernel, self.pair).run({two.start: features}, [name])
        spatial = made[name].shape[2:]
        found = cells(made[name], len(features), spatial)
        if found is None or len(found) != len(cut) or expected.size != found.size:
            raise RunError(
                f"the Conv makes {list(made[name].shape)} of {list(features.shape)}, where the "
                f"layer has {count} windows"
            )
        places = one.places.astype(np.int64)
        operand = cut.reshape(len(cut), -1)[:, places]
        return Products(operand, expected.reshape(found.shape), found)


def _alone(part: Trace, node: ir.Node, weight: AnyArray, pair: Pair) -> Session:
    """The node with another weight, no bias and no factor, and the data movement before it."""
    name = node.outputs[0].name or ""
    dtype = ir.DataType.from_numpy(weight.dtype)
    model = part.until(name, dtype)
    own = next(n for n in model.graph if n.outputs[0].name == name)
    fixed = constants(model.graph)
    position = next(n for n, value in enumerate(own.inputs[:2]) if value in fixed)
    own.resize_inputs(2)
    for attribute in ("alpha", "beta"):
        own.attributes.pop(attribute, None)
    shape = constant_array(model, own.inputs[position]).shape
    replaced = {(own, position): _as_operand(own, position, weight, shape)}
    if node.op_type == "Gemm":  # before opset 11 its third operand is not optional
        own.resize_inputs(3)
        replaced[own, 2] = np.zeros(1, weight.dtype)
    replace_constants(replaced)
    model.ir_version = max(model.ir_version or 0, 4)  # before, initializers were inputs
    return pair.session(only_movement(model, keep=(node.op_type,)))


def _as_operand(node: ir.Node, position: int, weight: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """A weight [K, D] in the shape that the node takes."""
    if node.op_type == "Conv":
        return weight.reshape(-1, *shape[1:])
    if len(shape) == 1:
        return weight.reshape(-1)
    transposed = bool(node.attributes.get_int("transA" if position == 0 else "transB", 0))
    by_rows = transposed != (position == 0)
    matrix = weight if by_rows else weight.T
    return matrix.reshape(*shape[:-2], *matrix.shape)
