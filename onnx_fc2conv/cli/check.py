"""fc2conv check: are two models the same function?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from onnx_fc2conv.cli.options import (
    Atol,
    InputShapes,
    Providers,
    Quiet,
    Reports,
    Rtol,
    Seed,
    parse_bounds,
    parse_providers,
    parse_sizes,
)
from onnx_fc2conv.options import parse_input_shapes

__all__ = ["check_command"]


def check_command(  # noqa: PLR0913 - one parameter an option
    reference: Annotated[
        Path, typer.Argument(metavar="REF.onnx", help="The original model.", show_default=False)
    ],
    converted: Annotated[
        Path, typer.Argument(metavar="OUT.onnx", help="The model that should compute the same.")
    ],
    provider: Providers = None,
    expect: Annotated[
        Literal["map", "same"] | None,
        typer.Option(
            "--expect",
            help="Demand more than equality at the native size: map (a score for each window of a "
            "larger image) or same (outputs of the original's own shape).",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Compare on your own samples too: .npz (arrays by input name), .npy, a folder of "
            "ONNX test data or of images. Repeatable.",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="HxW,…",
            help="Larger sizes of the image to compare at. Default: three just above the native.",
        ),
    ] = None,
    max_windows: Annotated[
        int | None,
        typer.Option(
            "--max-windows",
            min=1,
            help="The most windows that are compared at each size, drawn at random. Default: all.",
        ),
    ] = None,
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    input_shape: InputShapes = None,
    report: Reports = None,
    quiet: Quiet = False,
) -> None:
    """Run two models and say whether they are the same function, and where.

    OUT may come from fc2conv or from anybody: another converter, a simplifier, a re-export. At \
the native size all outputs are compared, and at larger sizes every cell of a map with the \
original on its window. A model that is right at the native size but not at larger ones is \
equal at the native size only: the last line says so.

    Exit codes: 0 equivalent · 1 different, or not what --expect demands · 2 bad usage or input · \
3 of an opset before 7 that cannot be upgraded.

    [bold]Examples[/]

      fc2conv check classifier.onnx dense.onnx

      fc2conv check classifier.onnx dense.onnx --expect map --report junit.xml

      fc2conv check classifier.onnx simplified.onnx --expect same --rtol 1e-4

      fc2conv check classifier.onnx dense.onnx --data samples.npz --data test_data_set_0

      fc2conv check classifier.onnx dense.onnx --sizes 512x1024 --max-windows 50

      fc2conv check classifier.onnx dense.onnx --provider cpu --provider cuda
    """
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick
    from onnx_fc2conv.equivalence import check  # noqa: PLC0415
    from onnx_fc2conv.report_files import check_report_paths, write_reports  # noqa: PLC0415

    terminal = Terminal(quiet=quiet)
    reports = check_report_paths(report)
    with terminal.progress("Reading") as say:
        result = check(
            reference,
            converted,
            providers=parse_providers(provider),
            input_shapes=parse_input_shapes(input_shape),
            expect=expect,
            data=data or (),
            sizes=parse_sizes(sizes),
            max_windows=max_windows,
            rtol=parse_bounds("--rtol", rtol),
            atol=parse_bounds("--atol", atol),
            seed=seed,
            progress=lambda tier: say(f"Checking: {tier}"),
        )
    terminal.equivalence(result)
    write_reports(result, reports)
    if not result:
        terminal.error(f"{converted} is {result.verdict} to {reference}")
        raise typer.Exit(1)
    terminal.line(f"{converted}: {result.verdict}")
