"""The dense form: maps stay flat, [N, C·positions], and layers are matrices between them.

    Before   X [N, C, *S] → Conv → Relu → AveragePool → Flatten → Gemm
    After    X → Flatten → Gemm → Relu → Gemm → Gemm

A flat tensor is made where a layer needs one, and made a map again where an operator needs that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from onnx_fc2conv.graphs.names import describe, node_name
from onnx_fc2conv.graphs.operators import BROADCASTING, UNARY
from onnx_fc2conv.graphs.writer import GraphWriter
from onnx_fc2conv.matrices import ConvLayer
from onnx_fc2conv.matrices.linear_maps import (
    LinearMap,
    average_map,
    convolution_map,
    normalization_map,
)
from onnx_fc2conv.matrices.sparse_file import MatrixTensor
from onnx_fc2conv.matrices.toeplitz import MatrixSize
from onnx_fc2conv.passes.matrix_place import matrix_place

__all__ = ["FlatLayers"]

_LINEAR = {
    "AveragePool": average_map,
    "GlobalAveragePool": average_map,
    "BatchNormalization": normalization_map,
}


class FlatLayers:
    """Rewrites Conv nodes of a graph, whose shapes are inferred, as matrices of flat maps.

    Attributes:
        sizes: Sizes of the matrices put into the graph, by layer.
    """

    def __init__(self, model: ir.Model, layers: Mapping[ir.Node, ConvLayer]) -> None:
        self.graph = model.graph
        self.layers = layers
        self.sizes: dict[str, MatrixSize] = {}
        self._writer = GraphWriter(model)
        self._flat: dict[ir.Value, ir.Value] = {}
        self._rewritten: set[ir.Value] = set()
        self._maps: dict[ir.Value, ir.Value] = {}

    def apply(self) -> None:
        """Walk the graph once; flat tensors stay flat as long as every operator allows it."""
        for node in list(self.graph):
            flat = self._rewrite(node)
            if flat is None:
                self._give_maps(node)
            else:
                self._flat[node.outputs[0]] = flat
                self._rewritten.add(node.outputs[0])
        for position, value in enumerate(self.graph.outputs):
            if value in self._rewritten:
                self._restore_output(position, value)

    def _rewrite(self, node: ir.Node) -> ir.Value | None:
        """Rewrite the node for flat tensors; return its flat output, None if the node stays."""
        if node in self.layers:
            return self._matrix(node, self._convolution(node))
        if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            return None
        if node.op_type in BROADCASTING:
            return self._elementwise(node, [v for v in node.inputs if v is not None])
        value = node.inputs[0] if node.inputs else None
        if value is None or value not in self._rewritten:
            return None
        if node.op_type in (*UNARY, "Identity"):
            return self._elementwise(node, [value])
        if node.op_type in ("Flatten", "Reshape"):
            features = _sample_shape(node.outputs[0])
            return self._flat[value] if features == (_count(value),) else None
        if node.op_type == "Concat":
            return self._concatenation(node)
        if node.op_type in _LINEAR:
            shape = _sample_shape(value)
            try:
                linear = _LINEAR[node.op_type](node, shape or (), value.dtype or ir.DataType.FLOAT)
            except ValueError:
                return None
            return self._matrix(node, linear)
        return None

    def _convolution(self, node: ir.Node) -> LinearMap:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        tensor = None if bias is None else get_const_tensor(bias)
        return convolution_map(self.layers[node], None if tensor is None else tensor.numpy())

    def _matrix(self, node: ir.Node, linear: LinearMap) -> ir.Value:
        """Gemm of the flat operand with the layer's matrix, which is made when it is saved."""
        name, value, at = node_name(node), node.inputs[0], matrix_place(self._writer, node)
        assert value is not None
        if value not in self._flat:
            self._flat[value] = at.node("Flatten", value, axis=1, name=f"{name}.flat")
        dtype = value.dtype or ir.DataType.FLOAT
        matrix = MatrixTensor(linear, dtype, f"{name}.matrix")
        inputs = [self._flat[value], self._writer.constant(f"{name}.matrix", matrix)]
        if linear.bias is not None:
            inputs.append(self._writer.constant(f"{name}.bias", linear.bias))
        self.sizes[describe(node)] = linear.size
        return at.node("Gemm", *inputs, transB=1, name=name)

    def _elementwise(self, node: ir.Node, operands: Sequence[ir.Value]) -> ir.Value | None:
        """The operator on flat tensors; a constant is spread over all elements of a sample."""
        shapes = {_sample_shape(value) for value in operands if value in self._rewritten}
        shape = next(iter(shapes), None)
        if len(shapes) != 1 or shape is None or _sample_shape(node.outputs[0]) != shape:
            return None
        flats: dict[ir.Value, ir.Value] = {}
        for value in operands:
            flat = self._flat.get(value) if value in self._rewritten else self._spread(value, shape)
            if flat is None:
                return None
            flats[value] = flat
        inputs = [None if v is None else flats.get(v, v) for v in node.inputs]
        at = matrix_place(self._writer, node)
        return at.node(node.op_type, *inputs, name=node_name(node), **node.attributes)

    def _spread(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value | None:
        """Reshape a constant that broadcasts to [N, *shape] so that it does to [N, features]."""
        tensor = get_const_tensor(value)
        if tensor is None:
            return None
        array = tensor.numpy()
        if array.size == 1:
            return self._writer.constant(value.name or "constant", array.reshape(1))
        try:
            whole = np.broadcast_to(array, (1, *shape))
        except ValueError:  # its values vary by sample
            return None
        return self._writer.constant(f"{value.name}.flat", whole.reshape(1, -1))

    def _concatenation(self, node: ir.Node) -> ir.Value | None:
        """Concatenate channels: one flat map after the other."""
        operands = [value for value in node.inputs if value is not None]
        if any(value not in self._rewritten for value in operands):
            return None
        rank = len(_sample_shape(operands[0]) or ()) + 1
        if node.attributes.get_int("axis", 1) % rank != 1:
            return None
        flats = [self._flat[value] for value in operands]
        at = matrix_place(self._writer, node)
        return at.node("Concat", *flats, axis=1, name=node_name(node))

    def _give_maps(self, node: ir.Node) -> None:
        """Let a node that stays read maps again, not flat tensors."""
        for position, value in enumerate(node.inputs):
            if value is not None and value in self._rewritten:
                node.replace_input_with(position, self._map(node, value))

    def _map(self, place: ir.Node, value: ir.Value) -> ir.Value:
        """Return the tensor in its own shape, reshaped from the flat one."""
        shape = _sample_shape(value)
        assert shape is not None
        if len(shape) == 1:
            return self._flat[value]
        if value not in self._maps:
            at, name = matrix_place(self._writer, place), f"{value.name}.map"
            self._maps[value] = at.reshape(self._flat[value], (-1, *shape), name=name)
        return self._maps[value]

    def _restore_output(self, position: int, value: ir.Value) -> None:
        """Give the model's output its shape and name again."""
        last = value.producer()
        assert last is not None
        made = self._map(last, value)
        if made in self.graph.outputs or made.is_graph_input():
            at = matrix_place(self._writer, last)
            made = at.node("Identity", made, name=f"{value.name}.output")
        self.graph.outputs[position] = made
        made.type, made.shape, name = value.type, value.shape, value.name
        value.name = self._writer.names.fresh(f"{name}.original")
        made.name = name


def _sample_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The tensor's shape without its batch axis, None if it is not known."""
    if value.shape is None or not len(value.shape):
        return None
    dims = tuple(dim for dim in value.shape[1:] if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) - 1 else None


def _count(value: ir.Value) -> int:
    return prod(_sample_shape(value) or ())
