"""Reading model files.

Weights in external data are memory-mapped, never read here. Any fault of a file becomes an
`InvalidModelError` of one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.shape_inference import infer_shapes
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.files.embedded import read_model, without_weights
from onnx_fc2conv.files.sparse import with_dense_tensors

__all__ = ["INLINE_LIMIT", "ModelSource", "as_model", "load", "stored_tensors", "weigh"]

ModelSource = str | os.PathLike[str] | onnx.ModelProto | ir.Model

INLINE_LIMIT = 1 << 30
"""Bytes of weights above which they get a file of their own; one protobuf holds 2 GB at most."""


_VALUES = (
    *("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data"),
    "string_data",
)
"""The fields of a TensorProto, one of which holds the values."""


_MOST_AXES = 32
"""NumPy's limit before version 2."""


def as_model(source: ModelSource) -> ir.Model:
    """Return the model in a path, a ModelProto or an onnx_ir.Model, as a copy.

    The weights are shared with the source, which is never changed.

    Raises:
        InvalidModelError: If it is not a valid ONNX model.
    """
    if isinstance(source, ir.Model):
        return source.clone()
    if isinstance(source, onnx.ModelProto):
        try:
            model = ir.from_proto(with_dense_tensors(source))
        except Exception as error:
            raise InvalidModelError(f"the ModelProto is not valid: {_first_line(error)}") from error
        _validate(model, "the ModelProto")
        return model
    return load(source)


def load(path: str | os.PathLike[str], data_folder: Path | None = None) -> ir.Model:
    """Read a model file.

    External data is looked for in ``data_folder``, by default the model's own.

    Raises:
        InvalidModelError: If the file is missing, unreadable, or not a valid ONNX model.
    """
    file = Path(path).absolute()
    try:
        if file.is_dir():
            raise InvalidModelError(f"{path} is a directory, not an ONNX file")
        if file.stat().st_size == 0:
            raise InvalidModelError(f"{path} is empty")
    except OSError as error:
        raise InvalidModelError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise InvalidModelError(f"cannot read {str(path)!r}: {error}") from error
    try:
        model = read_model(file, data_folder)
    except OSError as error:
        raise InvalidModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        raise InvalidModelError(
            f"{path} is not an ONNX model (truncated or another format?): {_first_line(error)}"
        ) from error
    _validate(model, str(path))
    return model


def _validate(model: ir.Model, name: str) -> None:
    """Check the structure against the ONNX specification, and external data against the files."""
    if not len(model.graph) or not model.opset_imports:
        raise InvalidModelError(f"{name} is not an ONNX model: it has no graph")
    opset, newest = model.opset_imports.get("", 0), onnx.defs.onnx_opset_version()
    if opset > newest:
        raise InvalidModelError(
            f"{name} is of opset {opset}; the installed onnx {onnx.__version__} knows opsets up to "
            f"{newest}"
        )
    for tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            _validate_external(tensor, name)
        elif isinstance(tensor, ir.TensorProtoTensor):
            _validate_inline(tensor, name)
    _validate_order(model.graph, name)
    _forget_negative_dims(model.graph)
    if any(value not in model.graph.inputs for value in model.graph.initializers.values()):
        # Before version 4, initializers have to be inputs as well; runtimes do not insist.
        model.ir_version = max(model.ir_version or 4, 4)
    if any(value.type is None for value in model.graph.outputs):
        # The specification wants a type here; runtimes infer it, and so do such models' users.
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    try:
        proto = _weights_as_inputs(model)
        onnx.checker.check_model(proto)
        infer_shapes(proto, check_type=True, strict_mode=False)
    except Exception as error:
        raise InvalidModelError(f"{name} is not valid: {_first_line(error)}") from error


def _forget_negative_dims(graph: ir.Graph) -> None:
    """Make dims of -1 unknown: some exporters write them for any length, ONNX does not."""
    for value in (*graph.inputs, *graph.outputs, *(v for node in graph for v in node.outputs)):
        if value.shape is not None and any(isinstance(n, int) and n < 0 for n in value.shape):
            dims = [None if isinstance(n, int) and n < 0 else n for n in value.shape]
            value.shape = ir.Shape(dims)


def _validate_order(graph: ir.Graph, name: str) -> None:
    """Raise if a node comes before one that it reads: ONNX demands topological order."""
    made: set[ir.Node] = set()
    for node in graph:
        for value in node.inputs:
            source = None if value is None else value.producer()
            if value is not None and source is not None and source not in made:
                raise InvalidModelError(
                    f"{name} is not valid: its nodes are not in topological order: "
                    f"{node.op_type} {node.name or ''} reads {value.name!r} before it is made"
                )
        made.add(node)


def _weights_as_inputs(model: ir.Model) -> onnx.ModelProto:
    """Return the model for ONNX's checker, which finds data files in the current folder only."""
    proto, kept = without_weights(model), []
    inputs = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in inputs:
            declared = proto.graph.input.add(name=tensor.name).type.tensor_type
            declared.elem_type = tensor.data_type
            declared.shape.SetInParent()  # of a scalar too
            for length in tensor.dims:
                declared.shape.dim.add(dim_value=length)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """All weights and constants, those of bodies and functions too."""
    for graph in (*model.graphs(), *model.functions.values()):
        if isinstance(graph, ir.Graph):
            stored = (value.const_value for value in graph.initializers.values())
            yield from (tensor for tensor in stored if tensor is not None)
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield attribute.value


def _validate_inline(tensor: ir.TensorProtoTensor, name: str) -> None:
    """Raise if a weight is truncated or has no valid type."""
    what = f"{name} is not valid: the weight {tensor.name!r}"
    try:
        shape, dtype, needed = list(tensor.shape), tensor.dtype, tensor.nbytes
    except (TypeError, ValueError) as error:
        raise InvalidModelError(f"{what} is of no type that ONNX knows") from error
    _validate_shape(tensor, what)
    if sum(bool(getattr(tensor.raw, kind)) for kind in _VALUES) > 1:
        raise InvalidModelError(f"{what} has values in several forms")
    if tensor.raw.HasField("raw_data"):
        if len(tensor.raw.raw_data) != needed:
            raise InvalidModelError(
                f"{what} has {len(tensor.raw.raw_data)} bytes; its shape {shape} of {dtype} needs "
                f"{needed}"
            )
        return
    try:
        tensor.numpy()
    except Exception as error:
        raise InvalidModelError(f"{what} of shape {shape}: {_first_line(error)}") from error


def _validate_shape(tensor: ir.TensorProtocol, what: str) -> None:
    """Raise if no array can have the shape, even where another dim is 0."""
    dims = tensor.shape.numpy()
    if min(dims, default=0) < 0 or len(dims) > _MOST_AXES or prod(max(n, 1) for n in dims) >> 56:
        raise InvalidModelError(f"{what} has shape {list(dims)}")


def _validate_external(tensor: ir.ExternalTensor, name: str) -> None:
    location = str(tensor.location)
    if isinstance(tensor.location, bytes):  # protobuf's type for names that are not UTF-8
        raise InvalidModelError(f"{name} keeps the weight {tensor.name!r} in {location}: no name")
    _validate_shape(tensor, f"{name} is not valid: the weight {tensor.name!r}")
    if tensor.dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        raise InvalidModelError(
            f"{name} keeps the weight {tensor.name!r} of type {tensor.dtype} in {location!r}, "
            "where only numbers may be"
        )
    if Path(location).is_absolute() or Path(os.path.normpath(location)).parts[:1] == ("..",):
        raise InvalidModelError(
            f"{name} keeps the weight {tensor.name!r} in {location!r}, outside its own folder"
        )
    folder = Path(tensor.base_dir or ".").resolve()
    try:
        if not Path(tensor.path).resolve().is_relative_to(folder):
            raise InvalidModelError(
                f"{name} keeps the weight {tensor.name!r} in {location!r}, a link to a file "
                "outside its own folder; copy that file there"
            )
        if not stat.S_ISREG(os.stat(tensor.path).st_mode):  # noqa: PTH116 - may hold anything
            raise OSError("not a file")
        size = os.stat(tensor.path).st_size  # noqa: PTH116
    except (OSError, ValueError) as error:
        raise InvalidModelError(
            f"{name} keeps the weight {tensor.name!r} in {location!r}, which cannot be "
            f"read: {getattr(error, 'strerror', None) or error}"
        ) from error
    end = (tensor.offset or 0) + tensor.nbytes
    if (tensor.offset or 0) < 0 or end > size:
        raise InvalidModelError(
            f"{name} keeps the weight {tensor.name!r} in {location!r} up to byte "
            f"{end}, but that file has {size}"
        )


def weigh(model: ir.Model) -> int:
    """Bytes of weights that the model itself holds, without those in external data."""
    tensors = (t for t in stored_tensors(model) if not isinstance(t, ir.ExternalTensor))
    return sum(tensor.nbytes for tensor in tensors)


def stored_tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """The weights, those of bodies too."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return [value.const_value for value in values if value.const_value is not None]


def _first_line(error: BaseException) -> str:
    """Return the message of the innermost exception, which is most specific, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return (text[:297] + "…") if len(text) > 300 else text or type(error).__name__
