"""Reading and writing model files.

Weights in external data are memory-mapped, never read here. Whatever is wrong with a file becomes
an `InvalidModelError` of one line. A file is written under a temporary name beside its target and
renamed when it is whole; with external data the data file is renamed first, the model last.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import CheckerPass, ShapeInferencePass

from onnx_fc2conv.errors import ArgumentError, InvalidModelError

__all__ = ["ModelSource", "as_model", "load", "staged"]

ModelSource = str | os.PathLike[str] | onnx.ModelProto | ir.Model

_INLINE_LIMIT = 1 << 30


def as_model(source: ModelSource) -> ir.Model:
    """The model that a path, a ModelProto or an onnx_ir.Model holds, as one's own copy.

    The weights are shared with the source, which is never changed.

    Raises:
        InvalidModelError: If it is not a valid ONNX model.
    """
    if isinstance(source, ir.Model):
        return source.clone()
    if isinstance(source, onnx.ModelProto):
        try:
            model = ir.from_proto(source)
        except Exception as error:
            raise InvalidModelError(f"the ModelProto is not valid: {_first_line(error)}") from error
        _validate(model, "the ModelProto")
        return model
    return load(source)


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read a model file.

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
        model = ir.load(file)
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
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                _validate_external(tensor, name)
            elif isinstance(tensor, ir.TensorProtoTensor):
                _validate_inline(tensor, name)
    if any(value.type is None for value in model.graph.outputs):
        # The specification wants a type here; runtimes infer it, and so do such models' users.
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    try:
        CheckerPass()(_without_external_data(model))
    except Exception as error:
        raise InvalidModelError(f"{name} is not valid: {_first_line(error)}") from error


def _without_external_data(model: ir.Model) -> ir.Model:
    """A copy for the checker, which looks for data files in the current folder only."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return copy


def _validate_inline(tensor: ir.TensorProtoTensor, name: str) -> None:
    """Find a weight that was cut off; its message is at least as long as its bytes."""
    if tensor.raw.HasField("raw_data") and tensor.raw.ByteSize() < tensor.nbytes:
        raise InvalidModelError(
            f"{name} is not valid: the weight {tensor.name!r} has fewer bytes than its shape "
            f"{list(tensor.shape)} needs"
        )


def _validate_external(tensor: ir.ExternalTensor, name: str) -> None:
    location = str(tensor.location)
    if Path(location).is_absolute() or Path(os.path.normpath(location)).parts[:1] == ("..",):
        raise InvalidModelError(
            f"{name} keeps the weight {tensor.name!r} in {location!r}, outside its own folder"
        )
    try:
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


@contextmanager
def staged(
    target: str | os.PathLike[str],
    model: ir.Model,
    *,
    overwrite: bool,
    write: Callable[[ir.Model, Path], None] | None = None,
) -> Generator[Path]:
    """Write the model beside ``target`` under a temporary name; keep it if the block ends well.

    ``write`` makes the file, where it is to be another than onnx_ir's: of one piece.

    Yields:
        The temporary model file, whole and closed, for the checks to read.

    Raises:
        ArgumentError: If the target exists (without ``overwrite``) or cannot be written.
    """
    path = Path(target).absolute()
    check_writable(path, overwrite=overwrite)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ArgumentError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        temporary = folder / path.name
        needs_data = write is None and _needs_external_data(model)
        data = f"{path.name}.data" if needs_data else None
        if data is not None:
            check_writable(path.with_name(data), overwrite=overwrite)
        try:
            if write is None:
                ir.save(model, temporary, format="protobuf", external_data=data)
            else:
                write(model, temporary)
        except OSError as error:
            raise ArgumentError(f"cannot write {target}: {error.strerror or error}") from error
        yield temporary
        try:
            # Without a tensor large enough to go there, no data file is written.
            if data is not None and (folder / data).exists():
                (folder / data).replace(path.with_name(data))
            temporary.replace(path)
        except OSError as error:
            raise ArgumentError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Find out before any work whether the output may be written.

    Raises:
        ArgumentError: If not.
    """
    if path.is_dir():
        raise ArgumentError(f"{path} is a directory; give the name of the file to write")
    if path.exists() and not overwrite:
        raise ArgumentError(f"{path} exists already; use --overwrite to replace it")
    if not path.parent.is_dir():
        raise ArgumentError(f"the folder {path.parent} does not exist")


def _needs_external_data(model: ir.Model) -> bool:
    """Whether the model came with external data, or is too large for one protobuf."""
    tensors = [
        value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    return any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors) or (
        sum(tensor.nbytes for tensor in tensors) > _INLINE_LIMIT
    )


def _first_line(error: BaseException) -> str:
    """What an exception says, in one line; of the innermost one, which knows best."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return (text[:297] + "…") if len(text) > 300 else text or type(error).__name__
