"""Constant tensors of a model, as arrays."""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.embedded_weights import MappedTensor
from onnx_fc2conv.equivalence.runtime import Session
from onnx_fc2conv.equivalence.structure import subgraph
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["constant_array", "release_weights"]


def release_weights(model: ir.Model) -> None:
    """Hold no weights in memory that lie in files: onnxruntime maps them on its own."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, (MappedTensor, ir.ExternalTensor)):
                value.const_value.release()


def constant_array(model: ir.Model, value: ir.Value | None) -> AnyArray:
    """A tensor that depends on no input: read, or computed by onnxruntime.

    Raises:
        ValueError: If there is none.
    """
    if value is None:
        raise ValueError("an operand is missing")
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return tensor.numpy()
    name = value.name or ""
    return Session(subgraph(model, {}, [name])).run({}, [name])[name]
