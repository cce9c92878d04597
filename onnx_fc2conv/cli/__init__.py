"""The command line: ``fc2conv``.

One file a command. A command imports everything beyond its options when it runs, so that
``--help`` and tab completion are quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from onnx_fc2conv.cli.bench import bench_command
from onnx_fc2conv.cli.check import check_command
from onnx_fc2conv.cli.convert import convert_command
from onnx_fc2conv.cli.inspect import inspect_command
from onnx_fc2conv.cli.running import run
from onnx_fc2conv.cli.scan import scan_command
from onnx_fc2conv.errors import ArgumentError

__all__ = ["app", "main"]

_COMMANDS = ("convert", "check", "inspect", "scan", "bench")
_OWN_OPTIONS = ("--help", "-h", "--version", "--install-completion", "--show-completion")

app = typer.Typer(
    name="fc2conv",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("convert")(convert_command)
app.command("check")(check_command)
app.command("inspect")(inspect_command)
app.command("scan")(scan_command)
app.command("bench")(bench_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(f"fc2conv {version('onnx-fc2conv')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Rewrite an ONNX classifier so that one pass scores every window of an image of any size.

    The fully connected layers after the convolutions become convolutions; the result is proven \
equal to the original before it is written.

    [bold]Examples[/]

      fc2conv classifier.onnx dense.onnx   (convert and check)

      fc2conv check classifier.onnx dense.onnx   (are these two the same?)

      fc2conv inspect classifier.onnx      (what would be done)

      fc2conv scan dense.onnx photo.jpg -o found   (where in the photo?)
      fc2conv bench classifier.onnx --size 1024,512   (windows a second)

      fc2conv convert --help               (all options)
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 not equivalent, 2 bad usage or input, 3 refused."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    run(app, lambda: _with_command(given), "fc2conv")


def _with_command(given: list[str]) -> list[str]:
    """``fc2conv IN OUT`` is ``fc2conv convert IN OUT``.

    Raises:
        ArgumentError: If the first word is neither a command nor a file, but nearly a command.
    """
    if not given or given[0] in (*_COMMANDS, *_OWN_OPTIONS):
        return given
    close = get_close_matches(given[0], _COMMANDS, n=1)
    if close and not Path(given[0]).exists():
        raise ArgumentError(f"there is no command {given[0]!r}; did you mean {close[0]!r}?")
    return ["convert", *given]
