"""fc2conv inspect: the plan, without writing anything."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_fc2conv.cli.advice import explain_refusals
from onnx_fc2conv.cli.options import ModelPath, with_options
from onnx_fc2conv.options import Options

__all__ = ["inspect_command"]


@with_options
def inspect_command(
    model: ModelPath,
    options: Options,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show which FC layers a model has and what each would become; write nothing.

    For a model that is a conversion already, show the geometry of its map.

    Exit codes: 0 convertible · 2 bad usage or input · 3 refused.

    [bold]Examples[/]

      fc2conv inspect classifier.onnx

      fc2conv inspect classifier.onnx --json | jq .geometry
    """
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick
    from onnx_fc2conv.conversion_report import ConversionReport  # noqa: PLC0415
    from onnx_fc2conv.geometry import read_geometry  # noqa: PLC0415
    from onnx_fc2conv.pipeline import attempt  # noqa: PLC0415
    from onnx_fc2conv.streams import reaches_stdout  # noqa: PLC0415

    terminal = Terminal()
    conversion = attempt(model, options)
    report = ConversionReport(str(model), None, conversion)
    if json:
        typer.echo(report.to_json(), nl=False)
        if not reaches_stdout():  # the output is the result, not a log
            raise typer.Exit(2)
    else:
        terminal.conversion(report)
        if conversion.refusals and (stored := read_geometry(model)):
            terminal.grid(stored)
        explain_refusals(terminal, conversion, model, options)
    if conversion.refusals:
        raise typer.Exit(3)
