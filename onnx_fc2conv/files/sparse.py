"""Sparse tensors of a model file, made dense: no later code handles sparse ones."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["with_dense_tensors"]

_LIMIT = 1 << 31
"""Largest dense tensor: a few bytes may declare one of terabytes."""


def with_dense_tensors(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with dense tensors only: itself if it has no others, else a copy.

    Raises:
        ValueError: If a sparse tensor is damaged or too large.
    """
    if not any(_is_sparse(graph) for graph in _graphs(proto.graph)):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for graph in _graphs(copy.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse))
        graph.ClearField("sparse_initializer")
        for attribute in _sparse_constants(graph):
            dense = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR)
            dense.t.CopyFrom(_dense(attribute.sparse_tensor))
            attribute.CopyFrom(dense)
    return copy


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside of it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer or inner.sparse_initializer:
                    yield from _graphs(inner)


def _is_sparse(graph: onnx.GraphProto) -> bool:
    return bool(graph.sparse_initializer) or any(True for _ in _sparse_constants(graph))


def _sparse_constants(graph: onnx.GraphProto) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        if node.op_type == "Constant" and node.domain == "":
            yield from (a for a in node.attribute if a.name == "sparse_value")


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Make a tensor dense; its indices are flat positions or one coordinate per axis (ONNX IR)."""
    name, dims = sparse.values.name, tuple(sparse.dims)
    if onnx.TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
        raise ValueError(f"the sparse tensor {name!r} is in external data, which is not supported")
    stored = ir.TensorProtoTensor(sparse.values)
    dtype, values = stored.dtype, stored.numpy()
    indices = ir.TensorProtoTensor(sparse.indices).numpy()
    if any(length < 0 for length in dims) or prod(dims) * values.itemsize > _LIMIT:
        raise ValueError(f"the sparse tensor {name!r} of shape {list(dims)} is too large")
    if indices.ndim == 2 and indices.shape[1] == len(dims):
        at = tuple(indices.T)
    elif indices.ndim == 1:
        at = (indices,)
    else:
        raise ValueError(f"the sparse tensor {name!r} has indices of shape {list(indices.shape)}")
    dense = np.zeros(dims if len(at) > 1 else prod(dims), values.dtype)
    if any((axis < 0).any() or (axis >= n).any() for axis, n in zip(at, dense.shape, strict=True)):
        raise ValueError(f"the sparse tensor {name!r} has indices outside of {list(dims)}")
    dense[at] = values
    return ir.to_proto(ir.tensor(dense.reshape(dims), dtype, name=name))
