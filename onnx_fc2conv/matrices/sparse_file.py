"""Writing the matrices of a model by their nonzeros: as sparse initializers, or as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_fc2conv.matrices.linear_maps import LinearMap

__all__ = ["MatrixTensor", "save_coordinates", "save_sparse", "sparse_proto"]


class MatrixTensor(ir.LazyTensor):
    """The matrix of a layer as a tensor [rows, columns], made when it is needed.

    Attributes:
        linear: The layer.
    """

    def __init__(self, linear: LinearMap, dtype: ir.DataType, name: str) -> None:
        shape = ir.Shape([linear.size.rows, linear.size.columns])
        super().__init__(
            lambda: ir.Tensor(linear.matrix(), dtype=dtype), dtype=dtype, shape=shape, name=name
        )
        self.linear = linear


def sparse_proto(model: ir.Model) -> onnx.ModelProto:
    """The model with the matrices of its layers as sparse initializers (ONNX IR version 6).

    Each is COO with row-major linear indices, in ascending order. onnxruntime reads such a file and
    makes the matrices dense in memory.
    """
    rest = model.clone()
    matrices = _matrices(rest)
    for name in matrices:
        del rest.graph.initializers[name]
    rest.ir_version = max(rest.ir_version or 0, 6)
    proto = ir.to_proto(rest)
    for name, tensor in matrices.items():
        found = tensor.linear.coordinates().ordered()
        values = ir.to_proto(ir.tensor(found.values, name=name))
        linear = ir.to_proto(ir.tensor(found.rows * found.shape[1] + found.columns))
        proto.graph.sparse_initializer.append(
            onnx.SparseTensorProto(values=values, indices=linear, dims=found.shape)
        )
    return proto


def save_sparse(model: ir.Model, path: Path) -> None:
    """Write `sparse_proto` to a file."""
    path.write_bytes(sparse_proto(model).SerializeToString())


def save_coordinates(model: ir.Model, path: Path) -> None:
    """Write the nonzeros of every matrix as NumPy arrays, for tools that read no ONNX.

    For a layer NAME: ``NAME.row``, ``NAME.column`` (int64 [nonzeros]), ``NAME.value``,
    ``NAME.shape`` (int64 [2]: outputs, inputs), and ``NAME.bias`` [outputs] unless it is zero.
    """
    arrays: dict[str, Any] = {}
    for name, tensor in _matrices(model).items():
        layer, found = name.removesuffix(".matrix"), tensor.linear.coordinates().ordered()
        arrays[f"{layer}.row"], arrays[f"{layer}.column"] = found.rows, found.columns
        arrays[f"{layer}.value"] = found.values
        arrays[f"{layer}.shape"] = np.array(found.shape, np.int64)
        if tensor.linear.bias is not None:
            arrays[f"{layer}.bias"] = tensor.linear.bias
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _matrices(model: ir.Model) -> dict[str, MatrixTensor]:
    """The matrices by name, in the order in which the model uses them."""
    read = (value for node in model.graph for value in node.inputs if value is not None)
    return {
        value.name or "": value.const_value
        for value in read
        if isinstance(value.const_value, MatrixTensor)
    }
