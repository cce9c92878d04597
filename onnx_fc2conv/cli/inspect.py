"""fc2conv inspect: the plan, without writing anything."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_fc2conv.cli.advice import explain_refusals
from onnx_fc2conv.cli.options import (
    AllLinear,
    InputShapes,
    MaxDepth,
    MaxKernel,
    ModelPath,
    Pool,
    PoolName,
    Reduce,
    ReduceName,
    Static,
    Stride,
    parse_input_shapes,
    parse_stride,
)

__all__ = ["inspect_command"]


def inspect_command(  # noqa: PLR0913 - one parameter an option
    model: ModelPath,
    input_shape: InputShapes = None,
    static: Static = False,
    stride: Stride = None,
    pool: Pool = PoolName.KEEP,
    reduce: Reduce = ReduceName.NONE,
    all_linear: AllLinear = False,
    max_kernel: MaxKernel = None,
    max_depth: MaxDepth = None,
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
    from onnx_fc2conv.pipeline import inspect  # noqa: PLC0415
    from onnx_fc2conv.streams import reaches_stdout  # noqa: PLC0415

    terminal = Terminal()
    shapes = parse_input_shapes(input_shape)
    conversion = inspect(
        model,
        input_shapes=shapes,
        static=static,
        stride=parse_stride(stride),
        pool=pool.value,
        reduce=reduce.value,
        all_linear=all_linear,
        max_kernel=max_kernel,
        max_depth=max_depth,
    )
    report = ConversionReport(str(model), None, conversion)
    if json:
        typer.echo(report.to_json(), nl=False)
        if not reaches_stdout():  # the output is the result, not a log
            raise typer.Exit(2)
    else:
        terminal.conversion(report)
        if conversion.refusals and (stored := read_geometry(model)):
            terminal.grid(stored)
        explain_refusals(terminal, conversion, model, shapes, static=static)
    if conversion.refusals:
        raise typer.Exit(3)
