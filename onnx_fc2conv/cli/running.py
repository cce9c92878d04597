"""Running a command: every error that the user can act upon is a line and an exit code."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence

import typer

from onnx_fc2conv.errors import Fc2ConvError, RefusedError
from onnx_fc2conv.hints import what_to_do
from onnx_fc2conv.interrupts import interruptible

__all__ = ["run"]

_TRACEBACK = "FC2CONV_TRACEBACK"
"""Environment variable that developers set."""

_OUT_OF_MEMORY = (
    *("out of memory", "can't start new thread", "failed to map segment", "bad_alloc"),
    *("Cannot allocate memory", "without exception set", "without setting an exception"),
)
"""Messages of Python and C++ libraries that raise no MemoryError."""


def run(app: typer.Typer, arguments: Callable[[], Sequence[str]], program: str) -> None:
    """Run and exit: 0 done, 1 not equivalent, 2 bad usage or input, 3 refused, 130 Ctrl-C."""
    # A model is full of reference cycles, none of them garbage before the end.
    gc.set_threshold(100_000, 50, 100)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns with tracebacks
    try:
        with interruptible(program):
            app(list(arguments()), prog_name=program)
    except RefusedError as error:
        refused = [f"refused: {refusal}" for refusal in error.refusals]
        _fail(program, refused + what_to_do(error.refusals), 3)
    except Fc2ConvError as error:
        _fail(program, [str(error)], 2)
    except MemoryError:
        # There is no memory to import or draw anything.
        sys.stderr.write(f"{program}: out of memory\n")
        raise SystemExit(2) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(program, [f"{where}{error.strerror or error}"], 2)
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        text = " ".join(str(error).split())[:200]
        if any(words in text for words in _OUT_OF_MEMORY):
            _fail(program, ["out of memory"], 2)
        what = f"internal error: {type(error).__name__}: {text}; nothing was written"
        _fail(program, [what, f"please report it; {_TRACEBACK}=1 shows where it happened"], 2)


def _fail(program: str, messages: Sequence[str], code: int) -> None:
    try:
        from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick

        terminal = Terminal(program)
        for message in messages:
            terminal.error(message)
    except Exception:  # where memory is short, nothing more can be imported
        sys.stderr.writelines(f"{program}: {message}\n" for message in messages)
    sys.exit(code)
