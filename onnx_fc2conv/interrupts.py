"""Ctrl-C ends the program with one line and exit code 130, at any moment of its run.

Imports next to nothing, since it takes effect before anything else is imported.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "interruptible"]


class Interrupted(BaseException):
    """Ctrl-C was pressed. At a `KeyboardInterrupt`, typer would exit without a message."""


_pressed = False
_later: threading.Timer | None = None


@contextmanager
def interruptible(program: str) -> Generator[None]:
    """Run a program's work; exit with one line and code 130 if Ctrl-C is pressed meanwhile."""
    global _pressed  # noqa: PLW0603 - a signal belongs to the process
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread gets signals
        yield
        return
    _pressed = False
    previous = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except SystemExit:
        raise
    except BaseException:  # extension modules turn it into others, such as ImportError
        if not _pressed:
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # people press it twice
        sys.stderr.write(f"{program}: interrupted\n")
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGINT, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pressed, _later  # noqa: PLW0603
    if _initialises_an_extension(frame):  # some abort the process at any exception: wait
        if _later is None or not _later.is_alive():
            _later = threading.Timer(0.02, signal.raise_signal, (number,))
            _later.start()
        return
    _pressed = True
    raise Interrupted


def _initialises_an_extension(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_qualname.startswith("ExtensionFileLoader."):
            return True
        frame = frame.f_back
    return False
