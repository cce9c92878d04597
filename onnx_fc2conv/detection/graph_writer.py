"""Writing nodes in operators of opset 11 and later, by name of the operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import NameScope
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.plan import AttributeValue

__all__ = ["GraphWriter"]

Numbers = AnyArray | Sequence[int] | Sequence[float]
"""A constant; Python's integers are int64, its floating-point numbers float32."""


class GraphWriter:
    """Collects nodes for a graph; constants become initializers of it at once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._nodes: list[ir.Node] = []
        self._graph = graph
        self._names = NameScope.of(graph)

    def node(
        self, op_type: str, *operands: ir.Value | Numbers, **attributes: AttributeValue
    ) -> ir.Value:
        """Write a node; its only output."""
        inputs = [o if isinstance(o, ir.Value) else self.constant(o) for o in operands]
        node = ir.node(op_type, inputs, attributes)
        self.adopt(node)
        return node.outputs[0]

    def take(self) -> list[ir.Node]:
        """The nodes written since the last time, in topological order: to be put in the graph."""
        taken, self._nodes = self._nodes, []
        return taken

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value as another type."""
        return self.node("Cast", value, to=int(dtype))

    def squeezed(self, value: ir.Value, axis: int) -> ir.Value:
        """The value without an axis of length 1."""
        return self._with_axis("Squeeze", value, axis)

    def unsqueezed(self, value: ir.Value, axis: int) -> ir.Value:
        """The value with another axis of length 1."""
        return self._with_axis("Unsqueeze", value, axis)

    def constant(self, numbers: Numbers, name: str = "constant") -> ir.Value:
        """An initializer."""
        array = np.asarray(numbers)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        tensor = ir.tensor(array, name=self._names.fresh(f"detector.{name}"))
        value = ir.val(tensor.name, tensor.dtype, array.shape, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def adopt(self, node: ir.Node, constants: Sequence[ir.Value] = ()) -> None:
        """Take in a node that was made elsewhere, and its constants."""
        for value in constants:
            value.name = self._names.fresh(f"detector.{value.name}")
            self._graph.register_initializer(value)
        node.name = self._names.fresh(f"detector.{node.op_type}")
        for value in node.outputs:
            value.name = self._names.fresh(f"{node.name}.output")
        self._nodes.append(node)

    def rename(self, value: ir.Value, name: str) -> None:
        """Give a tensor this name; what had it gets another."""
        tensors = (*self._graph.inputs, *(v for n in self._graph for v in n.outputs))
        for other in tensors:
            if other.name == name and other is not value:
                other.name = self._names.fresh(f"{name}.inner")
        value.name = name

    def _with_axis(self, op_type: str, value: ir.Value, axis: int) -> ir.Value:
        if self._graph.opset_imports[""] < 13:
            return self.node(op_type, value, axes=(axis,))
        return self.node(op_type, value, [axis])
