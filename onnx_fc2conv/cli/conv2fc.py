"""conv2fc: the other direction, convolutions as matrix products."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onnx_fc2conv.cli.options import (
    Atol,
    InputShapes,
    ModelPath,
    Quiet,
    Rtol,
    Seed,
    parse_bounds,
)
from onnx_fc2conv.cli.running import run
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.options import parse_input_shapes

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnx_fc2conv.cli.console import Terminal
    from onnx_fc2conv.equivalence.comparing.tolerances import Bounds

__all__ = ["app", "main"]

_UNITS = {"": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}


FormName = Literal["im2col", "dense", "sparse"]
"""How a convolution is written; `onnx_fc2conv.passes.conv_to_fc.Form`, which is slow to import."""

app = typer.Typer(
    name="conv2fc",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def conv2fc(  # noqa: PLR0913 - one parameter an option
    model: ModelPath,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.onnx", help="The model to write; with --form sparse also OUT.npz."
        ),
    ],
    form: Annotated[
        FormName,
        typer.Option(
            "--form",
            help="im2col: a Gather of patches and a MatMul with the stretched filters; dense: one "
            "matrix of the whole flattened input; sparse: the same, stored by its nonzeros.",
        ),
    ] = "im2col",
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", metavar="NAME", help="A Conv to rewrite. Repeatable; else all."),
    ] = None,
    input_shape: InputShapes = None,
    max_bytes: Annotated[
        str,
        typer.Option(
            "--max-bytes", metavar="SIZE", help="Refuse to add more than this: 500MB, 2GB, 41TB."
        ),
    ] = "2GB",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Prove that OUT computes what IN does.")
    ] = True,
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the sizes; write no model.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write a model's convolutions as matrix products, for tools that know only FC layers.

    Only standard ONNX operators; names, batch and outputs stay, spatial sizes become fixed. The \
size of every matrix is predicted before anything is allocated. OUT is written only if the check \
passes.

    Exit codes: 0 converted · 1 not equivalent, OUT not written · 2 bad usage or input · \
3 refused: no Conv, one that cannot be rewritten, or too large.

    [bold]Examples[/]

      conv2fc classifier.onnx patches.onnx

      conv2fc classifier.onnx matrices.onnx --form dense --max-bytes 8GB

      conv2fc dense.onnx matrices.onnx --form dense --input-shape image:1,1,25,25

      conv2fc vgg16.onnx out.onnx --form dense --dry-run --max-bytes 1PB

      conv2fc classifier.onnx matrices.npz --form sparse   (row, column, value of each matrix)
    """
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick
    from onnx_fc2conv.files.reading import load  # noqa: PLC0415
    from onnx_fc2conv.files.staging import check_writable, staged  # noqa: PLC0415
    from onnx_fc2conv.passes import ConvToFc  # noqa: PLC0415
    from onnx_fc2conv.to_fc import plan_to_fc  # noqa: PLC0415

    start = time.perf_counter()
    terminal = Terminal("conv2fc", quiet=quiet)
    shapes, limit = parse_input_shapes(input_shape), parse_size(max_bytes)
    write = _writer(output, form)
    target = output.absolute()
    if not dry_run:
        check_writable(target, overwrite=overwrite, source=model)
    with terminal.progress("Reading and planning"):
        source = load(model)
        rewrite = ConvToFc(form, shapes, layers or (), limit)
        rewritten, planned = plan_to_fc(source, rewrite)
    terminal.matrices(planned, form)
    if dry_run:
        terminal.line("Dry run: nothing was written.")
        return
    with terminal.progress("Writing matrices"):
        rewrite(rewritten)
    with staged(target, rewritten, overwrite=overwrite, write=write, source=source) as pending:
        if check:
            bounds = (parse_bounds("--rtol", rtol), parse_bounds("--atol", atol))
            with terminal.progress("Checking") as say:
                if not _proven(source, pending, shapes, bounds, seed, terminal, say):
                    terminal.error(f"not equivalent: {output} was not written")
                    raise typer.Exit(1)
    proof = "equivalent" if check else "not checked"
    terminal.line(f"Wrote {output} ({proof}) in {time.perf_counter() - start:.1f} s.")


def _proven(  # noqa: PLR0913 - what a check takes
    source: ir.Model,
    written: Path,
    shapes: dict[str, tuple[int, ...]],
    bounds: tuple[Bounds, Bounds],
    seed: int,
    terminal: Terminal,
    say: Callable[[str], None],
) -> bool:
    """Whether the file computes what the model does; prints what was compared."""
    rtol, atol = bounds
    if written.suffix == ".npz":
        from onnx_fc2conv.equivalence.tiers.stored_matrices import check_matrices  # noqa: PLC0415

        results = check_matrices(
            source, written, input_shapes=shapes, rtol=rtol, atol=atol, seed=seed
        )
        terminal.results(results)
        return all(result.status == "passed" for result in results)
    from onnx_fc2conv.equivalence import check as run_check  # noqa: PLC0415

    equivalence = run_check(
        source,
        written,
        input_shapes=shapes,
        rtol=rtol,
        atol=atol,
        seed=seed,
        progress=lambda tier: say(f"Checking: {tier}"),
    )
    terminal.equivalence(equivalence, brief=True)
    return bool(equivalence)


def _writer(output: Path, form: FormName) -> Callable[[ir.Model, Path], None] | None:
    """Return the function that writes the file, None for onnx_ir's.

    Raises:
        ArgumentError: If a form cannot be written as arrays.
    """
    from onnx_fc2conv.matrices import save_coordinates, save_sparse  # noqa: PLC0415

    if output.suffix == ".npz":
        if form != "sparse":
            raise ArgumentError(f"{output}: only --form sparse is written as arrays (.npz)")
        return save_coordinates
    if form == "sparse":
        return save_sparse
    return None


def parse_size(text: str) -> int:
    """``500MB`` as a number of bytes.

    Raises:
        ArgumentError: If it is not written like that.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b)?", text.strip().lower())
    if found is None:
        raise ArgumentError(f"--max-bytes {text!r} is not written like 500MB or 2GB")
    return int(float(found[1]) * (_UNITS[found[2] or ""] if found[2] != "b" else 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``conv2fc`` and exit: 0 done, 1 not equivalent, 2 bad usage or input, 3 refused."""
    run(app, lambda: sys.argv[1:] if arguments is None else arguments, "conv2fc")
