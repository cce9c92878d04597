"""A temporary folder beside OUT, gone at the end; the next run deletes what a killed one left.

A run that is killed cannot delete its folder. A lock shows whether the run that made a folder still
lives: each run locks a file in its folder, the *marker*, and the operating system releases the lock
at the end of the process, whatever ended it. Process ids would not do: they are used again, and
mean nothing in another container or on another host.

A lock counts only for processes that see it. The marker's content names them (`_scope`): processes
under the same kernel since its start (on Windows: in the same installation), in any containers,
for which the folder lies on the same file system. A run deletes a folder only if

1. it is named ``.fc2conv-…``, and is a folder of this user, not a link to one;
2. it holds a marker that is named after it, not a link either;
3. the marker's content is this run's own scope: not another host's, nor that of a run to which the
   folder looks local while it is a network file system here;
4. the marker is not locked.

The content is written after the lock is held, so that 3 does not hold for a folder that is being
made. A folder that cannot be judged or deleted stays: another host's, one from before a restart
(except on Windows), one on a file system without locks.
"""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import shutil
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

__all__ = ["close_unused_files", "temporary_folder"]

_PREFIX = ".fc2conv-"


@contextmanager
def temporary_folder(parent: Path) -> Generator[Path]:
    """Make a folder in ``parent`` and delete it at the end; first delete those of killed runs.

    Raises:
        OSError: If it cannot be created.
    """
    _delete_abandoned(parent)
    folder = parent / f"{_PREFIX}{secrets.token_hex(8)}"
    held = ExitStack()

    def remove() -> None:
        close_unused_files()
        with suppress(OSError):
            _empty(folder)
        held.close()  # Windows deletes no file that is open
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)  # an interrupt may come while it is made or removed
    try:
        # On Windows 0o700 sets an access list, which the model would inherit.
        folder.mkdir(mode=0o777 if sys.platform == "win32" else 0o700)
        with suppress(OSError):  # without a marker it is left alone
            _mark(folder, held)
        yield folder
    finally:
        remove()
        if not folder.exists():  # without memory it may not work yet
            atexit.unregister(remove)


def close_unused_files() -> None:
    """Close files that are mapped by models without any reference left.

    Windows neither renames nor deletes a file that is open, and models are reference cycles.
    """
    if sys.platform == "win32":
        gc.collect()


def _mark(folder: Path, held: ExitStack) -> None:
    """Write the marker, and lock it until ``held`` is closed."""
    scope = _scope(folder.lstat())
    if scope is not None:
        marker = held.enter_context(_marker(folder).open("xb+", buffering=0))
        _lock(marker)
        marker.write(scope)


def _delete_abandoned(parent: Path) -> None:
    """Delete the folders of runs that have ended."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _delete_if_abandoned(Path(entry.path))


def _delete_if_abandoned(folder: Path) -> None:
    """Delete a folder unless it may be in use.

    Raises:
        OSError: If it is locked, or cannot be read or deleted.
    """
    marker, status = _marker(folder), folder.lstat()
    scope = _scope(status)
    if scope is None or not _is_own(status):
        return
    with FileIO(marker, "r+", opener=_open_no_link) as file:
        if file.read(len(scope) + 1) != scope:
            return
        _lock(file)
        _empty(folder)
    marker.unlink()
    folder.rmdir()


def _empty(folder: Path) -> None:
    """Delete all files but the marker, so that the next run can continue if this one is killed.

    Raises:
        OSError: If there is a folder, which is not ours, or a file cannot be deleted.
    """
    for path in folder.iterdir():
        if path != _marker(folder):
            path.unlink()


def _marker(folder: Path) -> Path:
    """Name the marker after the folder, so that a copy under another name does not count."""
    return folder / f"{folder.name}.lock"


def _scope(status: os.stat_result) -> bytes | None:
    """Identify the processes that see a lock in a folder; None where that is unknown."""
    kernel = _kernel()
    return f"{kernel} {status.st_dev}\n".encode() if kernel else None


def _is_own(status: os.stat_result) -> bool:
    """Whether a folder is this user's; Windows has its own permissions."""
    return sys.platform == "win32" or status.st_uid == os.geteuid()


def _open_no_link(path: str, flags: int) -> int:
    """Open a file without following links or waiting for the other end of a pipe."""
    if sys.platform != "win32":
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags)


def _lock(file: FileIO) -> None:
    """Lock a file, or raise OSError: at once if it is locked, also by this process."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows alone has it

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - Windows has none

        # flock's locks belong to the open file: no other open or close of it releases them.
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _kernel() -> str:
    """Identify the running kernel, across containers; empty where it has no identity."""
    if sys.platform == "win32":
        # A file server shows locks to all Windows clients: the installation identifies one.
        import winreg  # noqa: PLC0415 - Windows alone has it

        flags = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        with suppress(OSError):
            name = r"SOFTWARE\Microsoft\Cryptography"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, name, access=flags) as key:
                return str(winreg.QueryValueEx(key, "MachineGuid")[0])
        return ""
    if sys.platform == "darwin":
        import ctypes  # noqa: PLC0415 - only here

        text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        name, none = b"kern.bootsessionuuid", ctypes.c_size_t(0)
        ctypes.CDLL(None).sysctlbyname(name, text, ctypes.byref(size), None, none)
        return text.value.decode()
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
