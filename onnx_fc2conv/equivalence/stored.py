"""Constant tensors of a model, as arrays."""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.equivalence.runtime import Session
from onnx_fc2conv.equivalence.structure import subgraph
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["constant_array"]


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
