"""Writing several nodes in the place of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_fc2conv.graphs.names import NameScope, describe

__all__ = ["NodeChain"]

_ORIGIN = "conv2fc.origin"
"""Key in the metadata of an emitted node: operator and name of the node that it stands for."""


class NodeChain:
    """Inserts nodes before a node of the graph; each names the one that it stands for.

    Attributes:
        graph: The graph.
        names: Names that are taken.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.names = NameScope.of(graph)

    def add(
        self,
        place: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
        *,
        name: str,
    ) -> ir.Value:
        """A node before ``place``; its output, which has the element type of its first input."""
        node = ir.node(op_type, inputs, dict(attributes or {}), name=self.names.fresh(name))
        node.metadata_props[_ORIGIN] = describe(place)
        output = node.outputs[0]
        output.name = self.names.fresh(f"{name}_output")
        first = inputs[0]
        if first is not None and first.dtype is not None:
            output.type = ir.TensorType(first.dtype)
        self.graph.insert_before(place, node)
        return output

    def reshape(
        self, place: ir.Node, value: ir.Value, shape: Sequence[int], *, name: str
    ) -> ir.Value:
        """The tensor in another shape; 0 keeps the length of that axis."""
        wanted = self.constant(f"{name}.shape", np.array(shape, np.int64))
        return self.add(place, "Reshape", [value, wanted], name=name)

    def constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """An initializer with this value."""
        return self.stored(name, ir.tensor(array))

    def stored(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """An initializer that holds this tensor."""
        name = self.names.fresh(name)
        value = ir.val(name, dtype=tensor.dtype, const_value=tensor)
        self.graph.register_initializer(value)
        return value
