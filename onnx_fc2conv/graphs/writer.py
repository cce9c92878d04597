"""Writing nodes and constants into a graph, in the forms that its opset has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_fc2conv.graphs.names import NameScope

__all__ = ["AttributeValue", "GraphWriter", "Operand", "Place"]

AttributeValue = ir.Attr | int | float | str | Sequence[int] | Sequence[float]

Operand = ir.Value | npt.NDArray[Any] | Sequence[int] | Sequence[float] | None
"""An input of a node: a tensor, or numbers that become an initializer; None for an absent one.

Python's integers become int64, its floating-point numbers float32.
"""


class GraphWriter:
    """Stores constants in the graph of a model, and gives places for new nodes.

    Attributes:
        owner: Prefix of the names of what is given none.
        graph: The graph.
        opset: Version of its operator set.
        names: Names that are taken.
    """

    def __init__(self, model: ir.Model, owner: str | None = None) -> None:
        """Start.

        Args:
            model: The model.
            owner: Prefix of the names of nodes and constants that are given none; without an
                owner onnx_ir numbers the nodes.
        """
        self.owner = owner
        self.graph = model.graph
        self.opset = model.graph.opset_imports.get("", 0)
        self.names = NameScope.of(model.graph)
        # IR version 3 wants every initializer listed as an input.
        self._lists = (model.ir_version or 10) < 4
        self._stored: dict[str, ir.Value] = {}
        self._integers: dict[tuple[int, ...], ir.Value] = {}

    def before(
        self, node: ir.Node, stamp: Mapping[str, str] | None = None, *, typed: bool = False
    ) -> Place:
        """The place before a node; `Place` documents the other arguments."""
        return Place(self, partial(self.graph.insert_before, node), stamp or {}, typed=typed)

    def after(self, node: ir.Node) -> Place:
        """The place after a node; nodes that are put there stand in their order."""
        last = node

        def insert(new: ir.Node) -> None:
            nonlocal last
            self.graph.insert_after(last, new)
            last = new

        return Place(self, insert, {})

    def at_end(self) -> Place:
        """The place after all nodes."""
        return Place(self, self.graph.append, {})

    def stored(self, name: str, make: Callable[[], ir.TensorProtocol]) -> ir.Value:
        """The initializer of exactly this name; its tensor is made at the first call."""
        if name not in self._stored:
            tensor = make()
            tensor.name = name
            value = ir.val(name, const_value=tensor)
            self.names.take(name)
            self.graph.register_initializer(value)
            if self._lists:
                self.graph.inputs.append(value)
            self._stored[name] = value
        return self._stored[name]

    def constant(self, name: str, held: npt.NDArray[Any] | ir.TensorProtocol) -> ir.Value:
        """A new initializer; a number is appended to its name if that is taken."""
        tensor = ir.Tensor(held) if isinstance(held, np.ndarray) else held
        return self.stored(self.names.fresh(name), lambda: tensor)

    def integers(self, values: Sequence[int]) -> ir.Value:
        """A list of integers, such as axes; equal lists share an initializer."""
        key = tuple(values)
        if key not in self._integers:
            name = f"{self.owner or 'fc2conv'}.integers{len(self._integers)}"
            self._integers[key] = self.constant(name, np.array(key, np.int64))
        return self._integers[key]

    def operand(self, given: Operand) -> ir.Value | None:
        """The tensor itself, or an initializer that holds the numbers."""
        if given is None or isinstance(given, ir.Value):
            return given
        array = np.asarray(given)
        if not isinstance(given, np.ndarray):
            if array.dtype.kind == "i":
                return self.integers(array.tolist())
            array = array.astype(np.float32)
        return self.constant(f"{self.owner or 'fc2conv'}.constant", array)


class Place:
    """A place in a graph, where nodes are put one after the other."""

    def __init__(
        self,
        writer: GraphWriter,
        insert: Callable[[ir.Node], None],
        stamp: Mapping[str, str],
        *,
        typed: bool = False,
    ) -> None:
        """Start.

        Args:
            writer: The writer of the graph.
            insert: Puts a node there.
            stamp: Metadata of each node that is put there.
            typed: Whether all operators to come keep the element type of their first input, so
                that the first output can be given it.
        """
        self.writer = writer
        self._insert = insert
        self._stamp = stamp
        self._typed = typed

    def put(self, node: ir.Node) -> ir.Value:
        """Put a node that was made elsewhere; return its first output."""
        node.metadata_props.update(self._stamp)
        if node.name is None and self.writer.owner is not None:
            self._name(node, f"{self.writer.owner}.{node.op_type}")
        output, first = node.outputs[0], node.inputs[0] if node.inputs else None
        if self._typed and first is not None and first.dtype is not None:
            output.type = ir.TensorType(first.dtype)
        self._insert(node)
        return output

    def node(
        self,
        op_type: str,
        *operands: Operand,
        name: str | None = None,
        **attributes: AttributeValue,
    ) -> ir.Value:
        """Put a new node; return its only output, which is named after a node with a name."""
        node = ir.node(op_type, [self.writer.operand(o) for o in operands], attributes)
        if name is not None:
            self._name(node, name)
        return self.put(node)

    def _name(self, node: ir.Node, name: str) -> None:
        node.name = self.writer.names.fresh(name)
        for output in node.outputs:
            output.name = self.writer.names.fresh(f"{name}_output")

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The tensor cast to another type."""
        return self.node("Cast", value, to=int(dtype))

    def transpose(
        self, value: ir.Value, perm: Sequence[int], *, name: str | None = None
    ) -> ir.Value:
        """The tensor with its axes in this order."""
        if list(perm) == sorted(perm):
            return value
        return self.node("Transpose", value, name=name, perm=perm)

    def reshape(self, value: ir.Value, shape: Sequence[int], *, name: str) -> ir.Value:
        """The tensor in another shape, which has the node's name; 0 keeps the length of an axis."""
        stored = self.writer.constant(f"{name}.shape", np.array(shape, np.int64))
        return self.node("Reshape", value, stored, name=name)

    def squeeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """The tensor without these axes of length 1."""
        return self._along("Squeeze", value, axes) if axes else value

    def unsqueeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """The tensor with axes of length 1 in these places."""
        return self._along("Unsqueeze", value, axes) if axes else value

    def pad(
        self,
        value: ir.Value,
        pads: Sequence[int],
        fill: npt.NDArray[Any] | None = None,
        *,
        name: str | None = None,
    ) -> ir.Value:
        """The tensor with more cells (attributes before opset 11).

        Args:
            value: The tensor.
            pads: Number of cells before each axis, then after each.
            fill: The value of the new cells, a scalar of the tensor's type; None for 0.
            name: Name of the node.
        """
        if self.writer.opset < 11:
            held = 0.0 if fill is None else float(fill)
            return self.node("Pad", value, name=name, pads=pads, value=held)
        if fill is None:
            return self.node("Pad", value, pads, name=name)
        scalar = ir.Tensor(fill, dtype=value.dtype)
        stored = self.writer.constant(f"{value.name}.padding", scalar)
        return self.node("Pad", value, pads, stored, name=name)

    def slice(
        self,
        value: ir.Value,
        axes: Sequence[int],
        starts: Sequence[int],
        ends: Sequence[int],
    ) -> ir.Value:
        """The tensor from each start to before each end (attributes before opset 10)."""
        if self.writer.opset < 10:
            return self.node("Slice", value, starts=starts, ends=ends, axes=axes)
        return self.node("Slice", value, starts, ends, axes)

    def reduce(self, op_type: str, value: ir.Value, axes: Sequence[int], *, name: str) -> ir.Value:
        """A ReduceMean, ReduceMax …, without these axes (attributes before opset 18)."""
        if self.writer.opset < 18:
            return self.node(op_type, value, name=name, axes=axes, keepdims=0)
        return self.node(op_type, value, axes, name=name, keepdims=0)

    def _along(self, op_type: str, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """An operator whose axes are an input since opset 13, and an attribute before."""
        if self.writer.opset < 13:
            return self.node(op_type, value, axes=axes)
        return self.node(op_type, value, axes)
