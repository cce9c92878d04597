"""Weights in a file beside the model (ONNX: external data), copied from file to file.

Where the weights lie in files already, their bytes do not pass through this process: the kernel
copies them (`copy_file_range`), and a file system that can share blocks shares them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from onnx_fc2conv.files.embedded import MappedTensor, replaced_weights, write_model

__all__ = ["write_with_data"]

_SMALL = 256
"""Bytes below which a weight stays in the model: runtimes want shapes there."""

_ALIGNMENT = 64
"""A cache line: aligns weights in a mapped file for vector instructions."""

_CHUNK = 1 << 24

Place = tuple[Path, int, int]
"""A weight's file, its offset and its number of bytes."""


def write_with_data(model: ir.Model, path: Path, data: str) -> None:
    """Write a model, and its weights into a file of the name ``data`` beside it.

    Weights that share a place, such as tied embeddings, are written once. Without a weight large
    enough there is no data file.

    Raises:
        OSError: If a file cannot be written, or one with weights cannot be read.
    """
    stored = {
        value: value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    }
    large = {value: tensor for value, tensor in stored.items() if _goes_there(tensor)}
    moved: dict[ir.Value, ir.TensorProtocol] = {
        value: ir.Tensor(tensor.numpy().copy(), tensor.dtype, name=tensor.name)
        for value, tensor in stored.items()
        if isinstance(tensor, ir.ExternalTensor) and value not in large
    }
    if large:
        try:
            data.encode()
        except UnicodeEncodeError:
            why = "the name is no UTF-8, in which the model has to name its data file"
            raise OSError(why) from None
        moved |= _written(large, path.with_name(data))
    with replaced_weights(moved):
        write_model(model, path)


def _written(
    large: Mapping[ir.Value, ir.TensorProtocol], path: Path
) -> dict[ir.Value, ir.ExternalTensor]:
    """Write the bytes of these weights into a file; return them as external data of it."""
    moved: dict[ir.Value, ir.ExternalTensor] = {}
    written: dict[Place, int] = {}
    with path.open("wb") as file:
        for value, tensor in large.items():
            place = _place(tensor)
            offset = None if place is None else written.get(place)
            if offset is None:
                offset = file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
                _write(tensor, place, file)
                if place is not None:
                    written[place] = offset
            moved[value] = ir.ExternalTensor(
                path.name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name or "",
                base_dir=path.parent,
            )
    return moved


def _goes_there(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _SMALL


def _place(tensor: ir.TensorProtocol) -> Place | None:
    """Return the place of a weight's bytes, None if they are in no file."""
    if isinstance(tensor, MappedTensor):
        return tensor.path, tensor.offset, tensor.nbytes
    if isinstance(tensor, ir.ExternalTensor):
        return Path(tensor.path), tensor.offset or 0, tensor.nbytes
    return None


def _write(tensor: ir.TensorProtocol, place: Place | None, file: BinaryIO) -> None:
    if place is None:
        file.write(tensor.tobytes())
        return
    path, offset, length = place
    start = file.tell()
    with path.open("rb") as source:
        file.flush()
        left = _copied_by_the_kernel(source, offset, file, length)
        source.seek(offset + length - left)
        file.seek(start + length - left)  # possibly beyond the end, for alignment
        while left:
            content = source.read(min(left, _CHUNK))
            if not content:
                raise OSError(f"{path} has become shorter")
            file.write(content)
            left -= len(content)


def _copied_by_the_kernel(source: BinaryIO, offset: int, file: BinaryIO, length: int) -> int:
    """Append bytes of another file; return how many the system could not copy."""
    if not hasattr(os, "copy_file_range"):
        return length
    start = file.tell()
    done = 0
    while done < length:
        try:
            count = os.copy_file_range(
                source.fileno(), file.fileno(), length - done, offset + done, start + done
            )
        except OSError:  # another file system, or one that cannot: a plain copy reports errors
            break
        if not count:
            break
        done += count
    return length - done
