"""fc2conv bench: windows a second, dense, in tiles and by crops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_fc2conv.cli.options import (
    InputShapes,
    ModelPath,
    Quiet,
    option,
)
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.options import Pool, parse_input_shapes, parse_stride

if TYPE_CHECKING:
    from onnx_fc2conv.benchmark import BenchReport
    from onnx_fc2conv.benchmark.report import SizeResult, Timing
    from onnx_fc2conv.cli.console import Terminal

__all__ = ["bench_command"]


def bench_command(  # noqa: PLR0913 - one parameter an option
    model: ModelPath,
    size: Annotated[
        list[str],
        typer.Option("--size", metavar="H,W", help="Size of the image, in pixels. Repeatable."),
    ],
    stride: Annotated[str | None, option("stride")] = None,
    pool: Annotated[Pool, option("pool")] = "keep",
    input_shape: InputShapes = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Crops per run of the original.")
    ] = 64,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Measured runs; their median is shown.")
    ] = 5,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Threads of an operator; 0: one for each core.")
    ] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw windows a second.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure the dense pass against tiles, and crops through the original, on the CPU.

    Batched crops are the fair baseline. Tiles are a quarter of the image at most (`fc2conv scan` \
makes them as large as --memory allows). The ratio that multiply-adds promise is the number of \
windows times the multiply-adds of one crop, over those of the dense pass. Each model runs in \
a process of its own, in turns, on random pixels.

    Exit codes: 0 measured · 2 bad usage or input · 3 refused.

    [bold]Examples[/]

      fc2conv bench classifier.onnx --size 1024,512

      fc2conv bench classifier.onnx --size 512,512 --size 2048,2048 --stride 4 --json bench.json
    """
    from onnx_fc2conv.benchmark import bench  # noqa: PLC0415 - lazy: --help must be quick
    from onnx_fc2conv.benchmark.plot import plot as draw  # noqa: PLC0415
    from onnx_fc2conv.benchmark.plot import require_matplotlib  # noqa: PLC0415
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415
    from onnx_fc2conv.runtime.session import require  # noqa: PLC0415

    sizes = [_parse_size(text) for text in size]
    for path in (json, plot):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ArgumentError(f"{path}: there is no folder to write it to")
    if plot is not None:
        require_matplotlib()
    require("cpu")
    terminal = Terminal(quiet=quiet)
    with terminal.progress("Converting") as say:
        report = bench(
            model,
            sizes,
            stride=parse_stride(stride),
            pool=pool,
            input_shapes=parse_input_shapes(input_shape),
            batch=batch,
            repeats=repeats,
            threads=threads,
            progress=say,
        )
    _show(terminal, report)
    if json is not None:
        json.write_text(report.to_json(), encoding="utf-8")
    if plot is not None:
        draw(report, plot)


def _parse_size(text: str) -> tuple[int, ...]:
    """``"512,1024"`` or ``"512x1024"`` as ``(512, 1024)``."""
    try:
        size = tuple(map(int, text.replace("x", ",").split(",")))
    except ValueError:
        size = ()
    if not size or min(size) < 1:
        raise ArgumentError(f"--size {text!r} is not written like --size 1024,512")
    return size


def _show(terminal: Terminal, report: BenchReport) -> None:
    for result in report.sizes:
        size, stride = ("×".join(map(str, pair)) for pair in (result.size, result.stride))
        terminal.line(f"Image {size}: {result.windows:,} windows at stride {stride}")
        rates = result.rates
        ways = [
            ("dense pass", "dense", result.dense),
            (f"crops, {result.batch} at once", "batched", result.batched),
            ("crops, one by one", "single", result.single),
        ]
        if result.tiled is not None and result.tile is not None:
            tiles = f"{result.tiled.cells[0]} tiles of {'×'.join(map(str, result.tile))}"
            ways.insert(1, (tiles, "tiled", result.tiled))
        rows = [
            (name, f"{rates[key]:,.0f}", _factor(rates, key), _spread(timing), _memory(timing))
            for name, key, timing in ways
        ]
        terminal.table(("", "windows/s", "× batched", "a run", "peak memory"), rows)
        terminal.line(_verdict(result))
    native = [
        (f"batch {n.batch}", _spread(n.original), _spread(n.converted)) for n in report.latencies
    ]
    if native:
        terminal.table(("native size", "original", "converted"), native)
    before, after = ("unknown" if load is None else f"{load:.1f}" for load in report.load)
    terminal.line(
        f"onnxruntime {report.runtime}, CPU; load of the machine {before} before, {after} after"
    )


def _verdict(result: SizeResult) -> str:
    """Return the ratio to batched crops, and the one that multiply-adds promise, as text."""
    text = f"{result.ratio:.1f}× batched crops"
    if result.ceiling is None or result.dense_macs is None or result.crop_macs is None:
        return f"{text}; multiply-adds: the shapes of some layers are not known"
    return (
        f"{text}; multiply-adds promise {result.ceiling:.1f}× ({result.windows:,} × "
        f"{result.crop_macs / 1e6:,.1f} M / {result.dense_macs / 1e6:,.1f} M): "
        f"{result.ratio / result.ceiling:.0%} of that"
    )


def _factor(rates: dict[str, float], name: str) -> str:
    return f"{rates[name] / rates['batched']:.1f}"


def _spread(timing: Timing) -> str:
    low, high = min(timing.seconds) * 1e3, max(timing.seconds) * 1e3
    return f"{timing.median * 1e3:,.1f} ms ({low:,.1f}–{high:,.1f})"


def _memory(timing: Timing) -> str:
    return f"{timing.peak / 2**20:,.0f} MiB"
