"""A lifted layer's nodes: its operand brought to [N, D, H, W], the Conv, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.passes.initializers import Initializers
from onnx_fc2conv.views.plan import ORIGIN, AttributeValue, Constant, Lifted

__all__ = ["Lifter"]

_CHANNELS = -1
"""Stands for the axis of the channels where axes are named by their place in the operand."""


@dataclass(frozen=True, eq=False)
class Lifter:
    """Adds the nodes of lifted layers to a graph.

    Attributes:
        graph: The graph.
        stored: Makes constants initializers of the graph.
    """

    graph: ir.Graph
    stored: Initializers

    def lift(self, lifted: Lifted) -> tuple[ir.Value, str]:
        """Let every node that reads the product read that of the Conv.

        Returns:
            The latter, and the name of the former.
        """
        product = lifted.node.outputs[0]
        operand = lifted.node.inputs[lifted.position]
        assert operand is not None
        following = _added_bias(lifted)
        value = self._product(lifted, operand, self._bias(lifted, following))
        if following is not None:
            product = following.outputs[0]
        value.type, value.shape = product.type, product.shape
        product.replace_all_uses_with(value, replace_graph_outputs=True)
        return value, product.name or ""

    def _product(self, lifted: Lifted, operand: ir.Value, bias: ir.Value | None) -> ir.Value:
        rest = [axis for axis in range(lifted.rank) if axis != lifted.axis]
        samples, positions = (rest[:1], rest[1:]) if lifted.axis else ([], rest)
        axes = [*samples, lifted.axis, *positions]
        value = self._transposed(lifted, operand, axes)
        # Axes of length 1 in the places of those that the operand lacks.
        lacking = [] if samples else [0]
        lacking += range(len(lacking) + len(axes), 4)
        if lifted.merged:
            value = self._reshaped(lifted, value, [0, 0, 0, -1])
        value = self._along(lifted, "Unsqueeze", value, lacking)
        conv = [value, self.stored(lifted.kernel), *(() if bias is None else (bias,))]
        value = self._add(lifted, "Conv", conv, {"kernel_shape": (1, 1)})
        if lifted.merged:
            lengths = [-1 if length is None else length for length in lifted.merged]
            value = self._reshaped(lifted, value, [0, 0, 0, *lengths])
        made = [*samples, _CHANNELS, *positions]
        if lifted.out_axis is None:
            value = self._along(lifted, "Squeeze", value, sorted([*lacking, 1]))
            made.remove(_CHANNELS)
        else:
            value = self._along(lifted, "Squeeze", value, lacking)
            rest.insert(lifted.out_axis, _CHANNELS)
        value = self._transposed(lifted, value, [made.index(axis) for axis in rest])
        value = self._along(lifted, "Unsqueeze", value, [*range(lifted.leading)])
        return self._with_summand(lifted, value)

    def _transposed(self, lifted: Lifted, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        if list(perm) == sorted(perm):
            return value
        return self._add(lifted, "Transpose", [value], {"perm": tuple(perm)})

    def _reshaped(self, lifted: Lifted, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self._add(lifted, "Reshape", [value, self.stored.integers(shape)], {})

    def _along(
        self, lifted: Lifted, op_type: str, value: ir.Value, axes: Sequence[int]
    ) -> ir.Value:
        """Squeeze or Unsqueeze, whose axes have been an input since opset 13."""
        if not axes:
            return value
        if self.graph.opset_imports[""] < 13:
            return self._add(lifted, op_type, [value], {"axes": tuple(axes)})
        return self._add(lifted, op_type, [value, self.stored.integers(axes)], {})

    def _with_summand(self, lifted: Lifted, value: ir.Value) -> ir.Value:
        """What a Gemm adds that is no bias: another value for each row, or one that changes."""
        if not lifted.added:
            return value
        summand = lifted.node.inputs[2]  # as it is now: a layer before may have been replaced
        assert summand is not None
        if lifted.beta != 1.0:
            assert summand.dtype is not None
            array = np.array(lifted.beta, summand.dtype.numpy())
            name = self.stored.fresh(f"{lifted.kernel.name}.beta")
            beta = self.stored(Constant(name, (), lambda: ir.Tensor(array)))
            summand = self._add(lifted, "Mul", [summand, beta], {})
        return self._add(lifted, "Add", [value, summand], {})

    def _bias(self, lifted: Lifted, following: ir.Node | None) -> ir.Value | None:
        if following is not None:
            (stored,) = (v for v in following.inputs if v is not lifted.node.outputs[0])
            assert stored is not None
            assert stored.const_value is not None
            if len(stored.const_value.shape) == 1:
                return stored
            tensor, outputs = stored.const_value, lifted.kernel.shape[0]
            name = self.stored.fresh(f"{stored.name}.bias")
            flat = Constant(name, (outputs,), lambda: ir.Tensor(tensor.numpy().reshape(outputs)))
            return self.stored(flat)
        bias = lifted.bias
        return self.stored(bias) if isinstance(bias, Constant) else bias

    def _add(
        self,
        lifted: Lifted,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Mapping[str, AttributeValue],
    ) -> ir.Value:
        node = ir.node(
            op_type,
            inputs,
            {key: list(v) if isinstance(v, tuple) else v for key, v in attributes.items()},
            name=lifted.node.name if op_type == "Conv" else None,
        )
        node.metadata_props[ORIGIN] = describe(lifted.node)
        self.graph.insert_before(lifted.node, node)
        return node.outputs[0]


def _added_bias(lifted: Lifted) -> ir.Node | None:
    """The Add of one stored constant for each output right behind a MatMul, if there is one."""
    product, outputs = lifted.node.outputs[0], lifted.kernel.shape[0]
    uses = tuple(product.uses())
    if lifted.out_axis is None or lifted.bias or lifted.added or product.is_graph_output():
        return None
    if len(uses) != 1 or uses[0].node.op_type != "Add" or uses[0].node.domain != "":
        return None
    add = uses[0].node
    other = add.inputs[1 - uses[0].idx]
    if other is None or other.const_value is None or not other.is_initializer():
        return None
    shape = tuple(other.const_value.shape.numpy())
    behind = lifted.rank - lifted.out_axis - 1
    wanted = (outputs, *[1] * behind)
    rank = lifted.rank + lifted.leading
    by_output = shape[len(shape) - len(wanted) :] == wanted and prod(shape) == outputs
    return add if by_output and len(shape) <= rank else None
