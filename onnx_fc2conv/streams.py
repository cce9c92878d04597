"""Standard output and error that never stop the work.

What is printed is a log. It must not change the written files or the exit code, whatever happens to
the stream: its encoding lacks a character, its reader has gone, its disk is full, it is closed.

- A character that the encoding lacks is replaced by ASCII, or by its escape.
- A stream that has failed gets nothing more. At the end, one line on standard error says so, unless
  its reader has gone, as that of ``| head`` does.

Imports next to nothing, since it takes effect before anything else is imported.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["STAND_INS", "lasting_streams", "reaches_stdout"]

STAND_INS = {
    "×": "x",
    "→": "->",
    "–": "-",
    "…": "...",
    "·": "*",
    "✓": "ok",
    "✗": "FAILED",
    "≈": "~",
    "≤": "<=",
    "≥": ">=",
    "‖": "||",
    "√": "sqrt",
    "ᵀ": "^T",
    "ₙ": "_n",
    "Σ": "sum ",
    "γ": "gamma",
    "ε": "epsilon",
    "à": "a",
}
"""ASCII for the characters in this program's own texts that an encoding may lack."""

_READER_GONE = (errno.EPIPE, errno.EINVAL)
"""The errors of writing to a pipe without a reader; Windows says EINVAL."""


class _Lasting(io.RawIOBase):
    """A stream's raw end, on which every write succeeds.

    Attributes:
        failure: The error after which nothing is written any more; None if there was none.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while self.failure is None:
                written = self._raw.write(data)
                if written is not None:
                    return written
                select.select([], [self], [])  # a full pipe that does not block
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes


@contextmanager
def lasting_streams(program: str) -> Generator[None]:
    """Let a program print to streams that may fail, from here to its end."""
    codecs.register_error("fc2conv", _stand_in)
    _occupy_descriptors()
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        failure = _failure(sys.stdout)
        if failure is not None:
            sys.stderr.write(f"{program}: standard output: {failure.strerror or failure}\n")
        sys.stderr.flush()


def reaches_stdout() -> bool:
    """Whether all that was printed so far has been written, or its reader has gone."""
    sys.stdout.flush()
    return _failure(sys.stdout) is None


def _failure(stream: TextIO) -> OSError | None:
    """The error by which a stream lost output; None if none was lost, or its reader has gone."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Lasting) else None
    return None if failure is None or failure.errno in _READER_GONE else failure


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before the program began
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):  # not the process's own: a notebook's, a test's
        return stream
    buffer: Any = stream.buffer
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(getattr(buffer, "raw", buffer))),  # none where it is unbuffered
        encoding=stream.encoding,
        errors="fc2conv",
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _occupy_descriptors() -> None:
    """Open descriptors 0 to 2 where they are closed.

    The next file to be opened would get such a number, and libraries would log into the model.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """The error handler for codecs: replaces characters that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(STAND_INS.get(c) or _escaped(c) for c in lacking), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")
