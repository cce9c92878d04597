"""Linux with what Windows lacks taken away: Python imports this when it starts, in workers too.

- Modules and functions that only Unix has are gone, and onnx_fc2conv sees ``sys.platform`` win32.
- Files that are open or mapped are neither renamed, replaced nor deleted.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
FUNCTIONS = ("copy_file_range", "fork", "getloadavg", "geteuid", "posix_fallocate", "wait4")


class _Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class _Platform(importlib.abc.MetaPathFinder):
    """Gives the modules of the package a ``sys`` of Windows."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, *_: object
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("onnx_fc2conv."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            plain = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                plain(module)
                if "sys" in vars(module):
                    vars(module)["sys"] = _Sys()

            loader.exec_module = exec_module
        return spec


class _Sys:
    platform = "win32"

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(sys, name, value)


def is_open(path: str | os.PathLike[str]) -> bool:
    """Whether this process has opened or mapped a file."""
    name = os.path.realpath(path)
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    opened = [line.split(maxsplit=5)[5] for line in lines if line.count(" ") > 5]
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            opened.append(str(descriptor.readlink()))
        except OSError:  # the one of this very listing
            continue
    return name in opened


def guarded() -> dict[str, Any]:
    """`os.replace` and `os.unlink` as they are on Windows."""
    replace, unlink = os.replace, os.unlink

    def refuse(path: str) -> None:
        if is_open(path):
            raise PermissionError(13, "The file is being used by another process", path)

    def replace_closed(source: Any, target: Any) -> None:
        refuse(source)
        refuse(target)
        replace(source, target)

    def unlink_closed(path: Any, *, dir_fd: int | None = None) -> None:
        refuse(str(path if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}", path)))
        unlink(path, dir_fd=dir_fd)

    return {"replace": replace_closed, "unlink": unlink_closed}


def only_windows_has() -> dict[str, ModuleType]:
    """Modules to lock files and to ask the registry; there is no registry here."""

    def locking(descriptor: int, _mode: int, _count: int) -> None:
        if descriptor < 0:
            raise OSError(9, "Bad file descriptor")

    def open_key(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "There is no registry")

    made = {name: ModuleType(name) for name in ("msvcrt", "winreg")}
    vars(made["msvcrt"]).update(locking=locking, LK_NBLCK=2)
    vars(made["winreg"]).update(
        OpenKey=open_key, KEY_READ=1, KEY_WOW64_64KEY=256, HKEY_LOCAL_MACHINE=0
    )
    return made


if __name__ == "sitecustomize":
    __import__("subprocess")  # it asks once, by these modules, whether it is on Windows
    sys.modules.update(only_windows_has())
    sys.meta_path[:0] = [_Missing(), _Platform()]
    for function in FUNCTIONS:
        if hasattr(os, function):
            delattr(os, function)
    for name, own in guarded().items():
        setattr(os, name, own)
