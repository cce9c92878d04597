"""fc2conv convert: the main job."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_fc2conv.cli.advice import explain_refusals
from onnx_fc2conv.cli.box_options import (
    Agnostic,
    Background,
    BoxOptions,
    Classes,
    Iou,
    MapOutput,
    Thresholds,
)
from onnx_fc2conv.cli.detector import detector_step
from onnx_fc2conv.cli.options import (
    Atol,
    ModelPath,
    Providers,
    Quiet,
    Reports,
    Rtol,
    Seed,
    parse_bounds,
    parse_providers,
    with_options,
)
from onnx_fc2conv.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

__all__ = ["convert_command"]


@with_options
def convert_command(  # noqa: PLR0913, PLR0915 - one parameter an option, then one step after the other
    model: ModelPath,
    output: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The model to write.")],
    options: Options,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Prove that OUT computes what IN does.")
    ] = True,
    provider: Providers = None,
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar='"KEY=VALUE …"',
            help="Store in OUT how scan prepares pixels: channels=gray|rgb|bgr scale=1/255 "
            "mean=0.485,0.456,0.406 std=0.229,0.224,0.225.",
        ),
    ] = None,
    detector: Annotated[
        bool,
        typer.Option(
            "--detector",
            help="Append the steps of scan: OUT takes pixels of an image of any size, and gives "
            "boxes, scores and classes. The options from --threshold to --output are for it.",
        ),
    ] = False,
    threshold: Thresholds = None,
    wanted: Classes = None,
    background: Background = None,
    iou: Iou = 0.3,
    agnostic: Agnostic = False,
    map_output: MapOutput = None,
    report: Reports = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; write no model.")
    ] = False,
    link_weights: Annotated[
        bool,
        typer.Option(
            "--link-weights",
            help="Let OUT read its weights from IN's data file instead of a copy: OUT has to lie "
            "beside it, and that file has to stay.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Rewrite FC layers as convolutions, so that the model slides over images of any size.

    The command name may be left out: [bold]fc2conv IN.onnx OUT.onnx[/].

    OUT is written only if the check passes: both models are run and compared at the native \
size and, cell by cell, at larger ones. `fc2conv check IN OUT` shows every comparison, --report \
writes them all.

    Exit codes: 0 converted · 1 not equivalent, OUT not written · 2 bad usage or input · \
3 refused: nothing to convert, or a head that cannot be converted.

    [bold]Examples[/]

      fc2conv classifier.onnx dense.onnx

      fc2conv classifier.onnx dense.onnx --input-shape image:1,3,224,224

      fc2conv classifier.onnx dense.onnx --report report.json --report summary.md

      fc2conv classifier.onnx dense.onnx --dry-run

      fc2conv classifier.onnx dense.onnx --stride 4

      fc2conv mobilenet.onnx dense.onnx --pool window

      fc2conv vgg16.onnx any_size.onnx --reduce mean

      fc2conv resnet.onnx dense.onnx --preprocess "mean=0.485,0.456,0.406 std=0.229,0.224,0.225"

      fc2conv face25.onnx face_detector.onnx --detector --background 0 --threshold 0.9

      fc2conv classifier.onnx same_interface.onnx --static

      fc2conv transformer.onnx convs.onnx --static --all-linear

      fc2conv large.onnx dense.onnx --link-weights

      fc2conv vgg16.onnx dense.onnx --max-kernel 5 --max-depth 32768
    """
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick
    from onnx_fc2conv.conversion_report import ConversionReport  # noqa: PLC0415
    from onnx_fc2conv.files.linked import (  # noqa: PLC0415
        require_data_beside,
        write_linked,
    )
    from onnx_fc2conv.files.reading import load  # noqa: PLC0415
    from onnx_fc2conv.files.staging import check_writable, data_beside, staged  # noqa: PLC0415
    from onnx_fc2conv.pipeline import attempt  # noqa: PLC0415
    from onnx_fc2conv.report_files import check_report_paths, write_reports  # noqa: PLC0415

    start = time.perf_counter()
    terminal = Terminal(quiet=quiet)
    reports = check_report_paths(report)
    rtols, atols = parse_bounds("--rtol", rtol), parse_bounds("--atol", atol)
    store = _preprocessing(preprocess)
    detecting = detector_step(
        BoxOptions(threshold, wanted, background, iou, agnostic, map_output),
        wanted=detector,
        static=options.static,
        reduced=options.reduce != "none",
    )
    target = output.absolute()
    if not dry_run:
        check_writable(target, overwrite=overwrite, source=model)

    with terminal.progress("Reading and converting"):
        source = load(model)
        if link_weights:
            require_data_beside(source, target)
        conversion = attempt(source, options)
        if detecting is not None:
            conversion = detecting.planned(conversion)
    done = ConversionReport(str(model), str(output), conversion)
    terminal.conversion(done)
    if conversion.model is None or dry_run:
        write_reports(done, reports)
        explain_refusals(terminal, conversion, source, options, detector=detector)
        if conversion.refusals:
            raise typer.Exit(3)
        terminal.line("Dry run: nothing was written.")
        return

    store(conversion.model)
    written = conversion.model
    if detecting is not None:
        written = detecting.appended(conversion.model)
        terminal.line("Detector: pixels of an image of any size → boxes, scores, classes")
    try:
        write, data_folder = (write_linked, target.parent) if link_weights else (None, None)
        with staged(target, written, overwrite=overwrite, write=write, source=source) as pending:
            if check:
                from onnx_fc2conv.equivalence import check as run_check  # noqa: PLC0415

                with terminal.progress("Checking") as say:
                    equivalence = run_check(
                        source,
                        conversion.model if detecting is not None else load(pending, data_folder),
                        input_shapes=options.input_shapes,
                        geometry=conversion.geometry,
                        providers=parse_providers(provider),
                        rtol=rtols,
                        atol=atols,
                        seed=seed,
                        progress=lambda tier: say(f"Checking: {tier}"),
                    )
                    if detecting is not None:
                        say("Checking: detector")
                        equivalence = detecting.checked(equivalence, pending, seed)
                done = ConversionReport(str(model), str(output), conversion, equivalence)
                terminal.equivalence(equivalence, brief=True)
                if not equivalence:
                    raise _NotEquivalent
            data = data_beside(pending)
    except _NotEquivalent:
        write_reports(done, reports)
        terminal.error(f"not equivalent: {output} was not written")
        raise typer.Exit(1) from None
    write_reports(done, reports)
    proof = "equivalent" if check else "not checked"
    terminal.line(f"Wrote {output} ({proof}) in {time.perf_counter() - start:.1f} s.")
    if link_weights:
        terminal.line(f"{output.name} reads its weights from the data file of {model.name}.")
    elif data is not None:
        terminal.line(f"{output.name} is the graph; its weights are in {data}: keep both.")


def _preprocessing(text: str | None) -> Callable[[ir.Model], None]:
    """Return a function that stores --preprocess in a model."""
    if text is None:
        return lambda _model: None
    from onnx_fc2conv.scanning.preprocessing import (  # noqa: PLC0415 - it brings onnxruntime
        Preprocessing,
        write_preprocessing,
    )

    return partial(write_preprocessing, preprocessing=Preprocessing.parse(text))


class _NotEquivalent(Exception):  # noqa: N818 - leaves the staged file behind, unwritten
    """The check failed."""
