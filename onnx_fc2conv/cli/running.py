"""Running a command line: every error that the user can act upon is a line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from onnx_fc2conv.errors import Fc2ConvError, RefusedError

__all__ = ["run"]


def run(app: typer.Typer, arguments: Callable[[], Sequence[str]], program: str) -> None:
    """Run and exit: 0 done, 1 not equivalent, 2 bad usage or input, 3 refused."""
    try:
        app(list(arguments()), prog_name=program)
    except RefusedError as error:
        _fail(program, [f"refused: {refusal}" for refusal in error.refusals], 3)
    except Fc2ConvError as error:
        _fail(program, [str(error)], 2)


def _fail(program: str, messages: Sequence[str], code: int) -> None:
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick

    terminal = Terminal(program)
    for message in messages:
        terminal.error(message)
    sys.exit(code)
