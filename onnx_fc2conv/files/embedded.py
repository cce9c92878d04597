"""Weights in the model file itself, which stay there until they are read.

A model file is a protobuf message; a large weight is a run of bytes in it. `read_model` parses all
but these bytes and maps them into memory, `write_model` copies them from file to file. So a model
of gigabytes costs neither its size in memory nor the time to parse it.

    ModelProto     field 7: graph
    GraphProto     field 5: initializer (repeated)
    TensorProto    field 9: raw_data, little-endian (onnx.proto3; protobuf's wire format)
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_fc2conv.files.sparse import with_dense_tensors

__all__ = ["MappedTensor", "read_model", "replaced_weights", "without_weights", "write_model"]

_LARGE = 1 << 16
"""Bytes from which a weight is not parsed."""

_CHUNK = 1 << 24

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_HERE = "here"
"""Stands for the model file itself, whose name may not be valid in protobuf."""

Slice = tuple[int, int]


class MappedTensor(ir.Tensor[npt.NDArray[Any]]):
    """A weight whose bytes lie in a file that is mapped into memory.

    Attributes:
        path: The file.
        offset: Where the weight begins in it.
    """

    __slots__ = ("_mapping", "offset", "path")

    def __init__(  # noqa: PLR0913 - what a tensor is, and where
        self,
        path: Path,
        mapping: mmap.mmap,
        offset: int,
        *,
        dtype: ir.DataType,
        shape: tuple[int, ...],
        name: str | None,
    ) -> None:
        self.path, self.offset, self._mapping = path, offset, mapping
        stored = np.dtype(dtype.numpy()).newbyteorder("<")
        array = np.frombuffer(mapping, stored, prod(shape), offset).reshape(shape)
        super().__init__(array, dtype, name=name)

    def reshaped(self, shape: tuple[int, ...]) -> MappedTensor:
        """Return the same bytes in another shape."""
        return MappedTensor(
            self.path, self._mapping, self.offset, dtype=self.dtype, shape=shape, name=self.name
        )

    def as_external(self) -> ir.ExternalTensor:
        """Return the same bytes as external data, for readers that open the file themselves."""
        return ir.ExternalTensor(
            self.path.name,
            self.offset,
            self.nbytes,
            self.dtype,
            shape=ir.Shape(self.shape),
            name=self.name or "",
            base_dir=self.path.parent,
        )

    def tofile(self, file: BinaryIO) -> None:
        """Write the bytes without keeping them in memory."""
        end = self.offset + self.nbytes
        for start in range(self.offset, end, _CHUNK):
            stop = min(start + _CHUNK, end)
            with memoryview(self._mapping) as view:
                file.write(view[start:stop])
            if sys.platform != "win32":
                page = start // mmap.PAGESIZE * mmap.PAGESIZE
                self._mapping.madvise(mmap.MADV_DONTNEED, page, stop - page)


def read_model(path: Path, data_folder: Path | None = None) -> ir.Model:
    """Read a model file; large weights of its graph become `MappedTensor`s.

    External data is looked for in ``data_folder``, by default the model's own.

    Raises:
        OSError: If the file cannot be read.
        Exception: If it is no ONNX model.
    """
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        with memoryview(mapping) as data:
            content, left = _shortened(data)
    except _UnusualError:  # protobuf's own parser decides
        content, left = mapping[:], set[str]()
    proto = with_dense_tensors(onnx.ModelProto.FromString(content))
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, data_folder or path.parent)
    for name in left:
        value = model.graph.initializers[name]
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        value.const_value = MappedTensor(
            path,
            mapping,
            tensor.offset or 0,
            dtype=tensor.dtype,
            shape=tuple(tensor.shape.numpy()),
            name=name,
        )
    return model


def write_model(model: ir.Model, path: Path) -> None:
    """Write a model into one file; no large weight is held in memory for it.

    Raises:
        OSError: If the file cannot be written.
    """
    large = _large_weights(model)
    proto = without_weights(model)
    for stored in proto.graph.initializer:
        if stored.name in large:
            stored.ClearField("external_data")
            stored.ClearField("data_location")
    headers = [tensor.SerializeToString() for tensor in proto.graph.initializer]
    sizes = [
        len(header) + _raw_size(large[tensor.name].nbytes if tensor.name in large else None)
        for header, tensor in zip(headers, proto.graph.initializer, strict=True)
    ]
    names = [tensor.name for tensor in proto.graph.initializer]
    proto.graph.ClearField("initializer")
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    total = len(graph) + sum(len(_header(_INITIALIZER, size)) + size for size in sizes)
    with path.open("wb") as file:
        file.write(proto.SerializeToString() + _header(_GRAPH, total) + graph)
        for name, header, size in zip(names, headers, sizes, strict=True):
            file.write(_header(_INITIALIZER, size) + header)
            if name in large:
                tensor = large[name]
                file.write(_header(_RAW_DATA, tensor.nbytes))
                begin = file.tell()
                _write_bytes(tensor, file)
                assert file.tell() == begin + tensor.nbytes


def _large_weights(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    return {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.dtype != ir.DataType.STRING
        and value.const_value.nbytes >= _LARGE
    }


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """Return the model as protobuf, with large weights as external data without a file."""
    placeholders: dict[ir.Value, ir.TensorProtocol] = {
        model.graph.initializers[name]: ir.ExternalTensor(
            "left out", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
        for name, tensor in _large_weights(model).items()
    }
    with replaced_weights(placeholders):
        proto: onnx.ModelProto = ir.to_proto(model)
    return proto


@contextmanager
def replaced_weights(weights: Mapping[ir.Value, ir.TensorProtocol]) -> Generator[None]:
    """Let initializers hold other tensors for a moment, faster than copying the model."""
    own = {value: value.const_value for value in weights}
    try:
        for value, tensor in weights.items():
            value.const_value = tensor
        yield
    finally:
        for value, stored in own.items():
            value.const_value = stored


def _write_bytes(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    if isinstance(tensor, MappedTensor):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())


class _UnusualError(Exception):
    """The file does not have the expected wire format."""


def _shortened(data: memoryview) -> tuple[bytes, set[str]]:
    """The message without the bytes of large weights, which become external data.

    Returns:
        The shorter message, and the names of the weights.
    """
    left: set[str] = set()
    model: list[bytes] = []
    for number, wire, begin, inside, end in _fields(data, 0, len(data)):
        if (number, wire) != (_GRAPH, _BYTES):
            model.append(bytes(data[begin:end]))
            continue
        graph: list[bytes] = []
        kept = inside
        for inner, inner_wire, start, value, stop in _fields(data, inside, end):
            if (inner, inner_wire) != (_INITIALIZER, _BYTES) or stop - value < _LARGE:
                continue
            short = _without_raw_data(data, (value, stop))
            if short is None or short.name in left:
                continue
            left.add(short.name)
            tensor = short.SerializeToString()
            graph += [bytes(data[kept:start]), _header(_INITIALIZER, len(tensor)), tensor]
            kept = stop
        graph.append(bytes(data[kept:end]))
        model += [_header(_GRAPH, sum(map(len, graph))), *graph]
    return b"".join(model), left


def _without_raw_data(data: memoryview, whole: Slice) -> onnx.TensorProto | None:
    """Return a tensor as external data of its own file; None if its encoding is unusual."""
    raw: list[Slice] = []
    rest: list[bytes] = []
    for number, wire, begin, inside, end in _fields(data, *whole):
        if (number, wire) == (_RAW_DATA, _BYTES):
            raw.append((inside, end))
        elif end - begin < _LARGE:
            rest.append(bytes(data[begin:end]))
        else:
            return None
    if len(raw) != 1:
        return None
    try:
        tensor: onnx.TensorProto = onnx.TensorProto.FromString(b"".join(rest))
        bits = ir.DataType(tensor.data_type).bitwidth
    except Exception:
        return None
    (start, end), count = raw[0], prod(tensor.dims)
    usual = bool(tensor.name) and min(tensor.dims, default=0) >= 0 and bits % 8 == 0
    if not usual or tensor.external_data or count * bits != 8 * (end - start):
        return None
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", _HERE), ("offset", start), ("length", end - start)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _fields(data: memoryview, position: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield a message's fields: number, wire type, and the starts of it, its value, the next."""
    while position < end:
        begin = position
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        if wire == _BYTES:
            length, inside = _varint(data, position, end)
            position = inside + length
        elif wire in (_FIXED64, _FIXED32):
            inside = position
            position += 8 if wire == _FIXED64 else 4
        elif wire == _VARINT:
            inside = position
            _, position = _varint(data, position, end)
        else:
            raise _UnusualError
        if position > end:
            raise _UnusualError
        yield number, wire, begin, inside, position


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Read a number in groups of 7 bits, the lowest first; return it and its end."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _UnusualError
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise _UnusualError


def _header(number: int, length: int) -> bytes:
    """Return the header of a field: its key and the number of its bytes."""
    return _encoded(number << 3 | _BYTES) + _encoded(length)


def _encoded(number: int) -> bytes:
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _raw_size(length: int | None) -> int:
    """Bytes of the field raw_data of a tensor, if it has one."""
    return 0 if length is None else len(_header(_RAW_DATA, length)) + length
