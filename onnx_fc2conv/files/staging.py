"""Writing a model: at every moment OUT is the old model or the new one, whole.

A model is written into a temporary folder beside OUT, checked there, and renamed. With external
data it is two files, and two renames are two moments: a kill between them must not pair the old
model with the new weights. So the new data file has a name that the present OUT does not use:
OUT.data, or OUT.2.data where OUT.data is in use. Then, while other runs are locked out,

1. the data file is renamed: nothing refers to it yet;
2. the model is renamed: the new weights come with it;
3. the data file of the old OUT is deleted: nothing refers to it any more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.embedded import read_model, write_model
from onnx_fc2conv.files.external import write_with_data
from onnx_fc2conv.files.reading import INLINE_LIMIT, stored_tensors, weigh
from onnx_fc2conv.files.temporary_folder import close_unused_files, temporary_folder

__all__ = ["check_writable", "data_beside", "needs_data_file", "staged"]

_Identity = tuple[int, int]
"""The numbers of a device and of a file on it."""


@contextmanager
def staged(
    target: str | os.PathLike[str],
    model: ir.Model,
    *,
    overwrite: bool,
    write: Callable[[ir.Model, Path], None] | None = None,
    source: ir.Model | None = None,
) -> Generator[Path]:
    """Write the model beside ``target`` under a temporary name; keep it if the block ends well.

    ``write`` replaces onnx_ir's writer, for models of a single file. The files of ``source``, from
    which the model was made, are left alone, as are those of the model itself.

    Yields:
        The temporary model file, complete and closed, for the checks to read.

    Raises:
        ArgumentError: If the target exists (without ``overwrite``) or cannot be written.
    """
    path = Path(target).absolute()
    check_writable(path, overwrite=overwrite)
    read = _weight_files(model) | (set() if source is None else _weight_files(source))
    if _identity(path) in read:
        raise ArgumentError("OUT is a file that IN keeps weights in; give another name")
    data = _data_name(path, read) if write is None and needs_data_file(model) else None
    if data is not None:
        check_writable(path.with_name(data), overwrite=overwrite)
    with ExitStack() as stack:
        with _writing(target):
            temporary = stack.enter_context(temporary_folder(path.parent)) / path.name
            if write is not None:
                write(model, temporary)
            elif data is None:
                write_model(model, temporary)
            else:
                write_with_data(model, temporary, data)
        yield temporary
        with _writing(target), _others_locked_out(path.parent):
            _put_in_place(temporary, path, read, overwrite=overwrite)


def check_writable(path: Path, *, overwrite: bool, source: Path | None = None) -> None:
    """Check before any work that the output may be written.

    Raises:
        ArgumentError: If not, or if it is the input file.
    """
    if path.is_dir():
        raise ArgumentError(f"{path} is a directory; give the name of the file to write")
    if path.exists() and not overwrite:
        raise ArgumentError(f"{path} exists already; use --overwrite to replace it")
    if not path.parent.is_dir():
        raise ArgumentError(f"the folder {path.parent} does not exist")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ArgumentError("OUT is IN; an input is never changed, give another name")


def data_beside(temporary: Path) -> str | None:
    """The name of a staged model's data file, if it has one."""
    # Without a tensor large enough to go there, none is written.
    return next((file.name for file in temporary.parent.glob("*.data") if file != temporary), None)


def _put_in_place(temporary: Path, path: Path, read: set[_Identity], *, overwrite: bool) -> None:
    """Rename a staged model and its data file, and delete the data file that it replaces."""
    check_writable(path, overwrite=overwrite)  # another run may have written it meanwhile
    old, data = _data_in_use(path), data_beside(temporary)
    if data in old:
        raise ArgumentError(f"another run has written {path} meanwhile; run it again")
    close_unused_files()
    try:
        if data is not None:
            (temporary.parent / data).replace(path.with_name(data))
        temporary.replace(path)
    finally:
        if data is not None and temporary.exists():
            path.with_name(data).unlink(missing_ok=True)
    for name in old:
        if _identity(path.with_name(name)) not in read:
            with suppress(PermissionError):  # Windows keeps what another program reads
                path.with_name(name).unlink(missing_ok=True)


def needs_data_file(model: ir.Model) -> bool:
    """Whether the model came with a data file, or is too large for one protobuf."""
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in stored_tensors(model))
    return external or weigh(model) > INLINE_LIMIT


def _data_name(path: Path, read: set[_Identity]) -> str:
    """Return the first name that the present OUT does not use, nor any weights that are read."""
    taken = _data_in_use(path)
    names = (name for name in _data_names(path) if name not in taken)
    return next(name for name in names if _identity(path.with_name(name)) not in read)


def _data_names(path: Path) -> Iterator[str]:
    yield f"{path.name}.data"
    yield from (f"{path.name}.{number}.data" for number in count(2))


def _data_in_use(path: Path) -> set[str]:
    """Return the data files that the present model uses, among those that are named after it."""
    first, second = f"{path.name}.data", f"{path.name}.2.data"
    if not any(path.with_name(name).exists() for name in (first, second)):
        return set()
    try:
        present = read_model(path)
    except Exception:  # a file that is no model uses no data
        return set()
    tensors = stored_tensors(present)
    used = {str(t.location) for t in tensors if isinstance(t, ir.ExternalTensor)}
    return {name for name in used if name.startswith(f"{path.name}.") and name.endswith(".data")}


def _weight_files(model: ir.Model) -> set[_Identity]:
    """The files of external data."""
    tensors = (t for t in stored_tensors(model) if isinstance(t, ir.ExternalTensor))
    return {found for tensor in tensors if (found := _identity(Path(tensor.path))) is not None}


def _identity(path: Path) -> _Identity | None:
    """Identify a file, whatever its path: case may not count, links may lead to it."""
    try:
        status = path.stat()
    except OSError:  # there is none
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _writing(target: str | os.PathLike[str]) -> Generator[None]:
    """Name the file that could not be written.

    Raises:
        ArgumentError: Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ArgumentError(f"cannot write {target}: {error.strerror or error}") from error


@contextmanager
def _others_locked_out(folder: Path) -> Generator[None]:
    """Let one run at a time rename files in a folder; it takes a moment."""
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 - Windows has none

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
