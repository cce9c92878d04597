"""Constant tensors of a model, as arrays."""

from __future__ import annotations

import mmap
import sys

import onnx_ir as ir

from onnx_fc2conv.equivalence.tracing.structure import subgraph
from onnx_fc2conv.files.embedded import MappedTensor
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["constant_array", "release_weights"]


def release_weights(model: ir.Model) -> None:
    """Release the weights that lie in files: onnxruntime maps them itself."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, MappedTensor):
                tensor.release()
            elif isinstance(tensor, ir.ExternalTensor):
                _release_mapping(tensor.raw)


def _release_mapping(mapping: mmap.mmap | None) -> None:
    """Let the system take back a mapped file; arrays of it may be in use, so it stays open."""
    if mapping is not None and sys.platform != "win32":
        mapping.madvise(mmap.MADV_DONTNEED)


def constant_array(model: ir.Model, value: ir.Value | None) -> AnyArray:
    """Return a tensor that depends on no input: read, or computed by onnxruntime.

    Raises:
        ValueError: If ``value`` is None.
    """
    if value is None:
        raise ValueError("an operand is missing")
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return tensor.numpy()
    name = value.name or ""
    return Session(subgraph(model, {}, [name])).run({}, [name])[name]
