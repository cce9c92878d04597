"""Drawing reports on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from onnx_fc2conv.conversion_report import ConversionReport, times, upgrade_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx_fc2conv.equivalence.reporting.report import EquivalenceReport
    from onnx_fc2conv.equivalence.reporting.results import TierResult
    from onnx_fc2conv.errors import Refusal
    from onnx_fc2conv.geometry import Geometry
    from onnx_fc2conv.passes.conv_to_fc import MatrixLayer
    from onnx_fc2conv.pipeline import Interface

__all__ = ["Terminal"]

_BYTES = {
    "same": "the weight's own bytes",
    "permuted": "the weight's elements, reordered",
    "folded": "scaled weights",
}
_MARKS = {
    "passed": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "skipped": "[dim]–[/]",
    "measured": "[yellow]≈[/]",
}
_PIPE_WIDTH = 160

_NAME, _LINE = 300, 2000
"""Most characters of a name and of a line: a model's names may be of any length."""


class Terminal:
    """Standard output for reports, standard error for progress and errors.

    Attributes:
        program: The name that errors begin with.
        quiet: Whether only errors are printed.
    """

    def __init__(self, program: str = "fc2conv", *, quiet: bool = False) -> None:
        self.program = program
        self.quiet = quiet
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        self._out = Console(quiet=quiet, width=width, highlight=False, emoji=False)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    def error(self, message: str) -> None:
        """Print an error as one line, whatever the terminal's width."""
        self._err.print(f"[red]{self.program}:[/] {_shown(message, _LINE)}")

    def line(self, text: str = "") -> None:
        """Print a line of the report."""
        self._out.print(_shown(text, _LINE), soft_wrap=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table of figures whose first column is names."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for position, name in enumerate(head):
            table.add_column(name, justify="right" if position else "left")
        for row in rows:
            table.add_row(*map(_shown, row))
        self._out.print(Padding(table, (0, 0, 0, 2), expand=False))

    @contextmanager
    def progress(self, first: str) -> Generator[Callable[[str], None]]:
        """Show a spinner with the current step until the block ends."""
        if self.quiet or not self._err.is_terminal:
            yield lambda _: None
            return
        spinner = "line" if self._err.options.ascii_only else "dots"
        with self._err.status(f"{first} …", spinner=spinner) as status:
            yield lambda step: status.update(f"{step} …")

    @contextmanager
    def bar(self, name: str) -> Generator[Callable[[int, int], None]]:
        """Show a progress bar of pixels, with rate and remaining time, until the block ends."""
        if self.quiet or not self._err.is_terminal:
            yield lambda _done, _total: None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, transient=True) as progress:
            task = progress.add_task(name, total=None, rate="")

            def advance(done: int, total: int) -> None:
                speed = progress.tasks[0].speed
                rate = "" if speed is None else f"{speed / 1e6:.1f} Mpixel/s"
                progress.update(task, completed=done, total=total, rate=rate)

            yield advance

    def conversion(self, report: ConversionReport) -> None:
        """Print layers, interface and grid of a conversion."""
        conversion = report.conversion
        if conversion.lifted is not None:
            self.line(upgrade_line(conversion.lifted).capitalize())
        if conversion.heads:
            table = _table()
            for head in conversion.heads:
                convs = "Conv" if head.parts == 1 else f"{head.parts} Convs of at most"
                table.add_row(
                    f"  {head.op_type} {_shown(head.node)}",
                    _dims(head.weight_shape),
                    f"→ {convs} {_dims(head.kernel_shape)}",
                    f"[dim]{_BYTES[head.bytes_kept]}[/]",
                )
            self._section("Fully connected layers", table)
        if conversion.poolings:
            table = _table()
            for pooling in conversion.poolings:
                name = f"  {pooling.op_type} {_shown(pooling.node)}"
                table.add_row(name, f"→ {pooling.pooling} {_dims(pooling.kernel)}", "")
            self._section("Global poolings", table)
        for layer in conversion.left_alone:
            self.line(f"  left alone: {layer.node}: {layer.reason}")
        if (conversion.heads or conversion.poolings) and not conversion.refusals:
            self._section("Interface", _interface(conversion.before, conversion.after))
        if conversion.geometry and not conversion.refusals:
            self.grid(conversion.geometry)

    def grid(self, geometries: Mapping[str, Geometry]) -> None:
        """Print the geometry of each map."""
        self._section("Grid", _grid(geometries))

    def matrices(self, layers: Sequence[MatrixLayer], form: str) -> None:
        """Print the layers that become matrices, and the bytes that each adds to the model."""
        table = _table()
        for layer in layers:
            what = "filters" if form == "im2col" else "matrix"
            table.add_row(
                f"  {_shown(layer.node)}",
                f"→ {what} {_dims(layer.shape)}",
                f"[dim]{layer.nonzeros:,} nonzeros; adds {layer.nbytes:,} bytes[/]",
            )
        self._section("Convolutions", table)

    def refusals(self, refusals: Sequence[Refusal]) -> None:
        """Print why nothing was written, on standard error."""
        for refusal in refusals:
            self.error(f"refused: {refusal}")

    def equivalence(self, report: EquivalenceReport, *, brief: bool = False) -> None:
        """Print every comparison of a check; if ``brief``, one line for all that pass in a tier."""
        for note in report.notes:
            self.line(f"Note: {note}")
        for run in report.runs:
            settings = "".join(f", {key}={value}" for key, value in run.settings.items())
            where = f"onnxruntime {report.runtime}, {run.provider}{settings}, seed {report.seed}"
            self._out.print(f"[bold]Check[/] ({_shown(where)}, {run.seconds:.1f} s)")
            if brief:
                self._by_tier(run.results)
            else:
                self.results(run.results)

    def _by_tier(self, results: Sequence[TierResult]) -> None:
        for tier in dict.fromkeys(result.tier for result in results):
            own = [result for result in results if result.tier == tier]
            passed = [result for result in own if result.status == "passed"]
            if passed:
                self._passed(tier, passed)
            self.results([result for result in own if result.status != "passed"])

    def _passed(self, tier: str, results: Sequence[TierResult]) -> None:
        """Print a tier in one line: its subject or number of comparisons, and largest errors."""
        count = len(results)
        what = _shown(results[0].subject) if count == 1 else f"{count} comparisons"
        errors = [r.worst_error for r in results if r.worst_error is not None]
        bounds = [r.required_rtol for r in results if r.required_rtol is not None]
        worst = replace(
            results[0],
            worst_error=max(errors, default=None),
            required_rtol=max(bounds, default=None),
        )
        figures = _figures(worst)
        self._out.print(f"  {_MARKS['passed']} {tier}: {what}{figures and ', '}{figures}")

    def results(self, results: Sequence[TierResult]) -> None:
        """Print the comparisons, with the worst error of each."""
        for result in results:
            self._result(result)

    def _result(self, result: TierResult) -> None:
        what = f"{result.tier}: {_shown(result.subject)}"
        figures = _figures(result)
        self._out.print(f"  {_MARKS[result.status]} {what}{figures and ', '}{figures}")
        sentence = Padding(f"[dim]{_shown(result.sentence, _LINE)}[/]", (0, 0, 0, 6), expand=False)
        self._out.print(sentence)

    def _section(self, title: str, table: Table) -> None:
        self._out.print(f"[bold]{_shown(title)}[/]")
        self._out.print(table)


def _table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    return table


def _interface(before: Interface, after: Interface | None) -> Table:
    table = _table()
    for kind in ("inputs", "outputs"):
        old = getattr(before, kind)
        new = getattr(after, kind) if after is not None else {}
        for name, shape in old.items():
            becomes = f"→ {_dims(new[name])}" if name in new else ""
            table.add_row(f"  {_shown(name)}", _dims(shape), becomes)
    return table


def _grid(geometries: Mapping[str, Geometry]) -> Table:
    table = _table()
    for name, geometry in geometries.items():
        slides = all(geometry.stride)
        stride = f"stride {_dims(geometry.stride)}" if slides else "one cell at any size"
        color = "green" if geometry.windows_exact else "yellow"
        table.add_row(
            f"  {_shown(name)}",
            f"window {_dims(geometry.window)}, {stride}",
            f"[{color}]{geometry.verdict}[/]: {_shown(geometry.why, _LINE)}",
        )
        field, clean = geometry.receptive_field, geometry.clean_cells
        if field is None or clean is None:
            continue
        if (field.start, field.size) != (geometry.offset, geometry.window):
            first = ", ".join(map(str, field.start))
            table.add_row(
                "",
                f"receptive field {_dims(field.size)} from {first}",
                f"clean cells {clean.clean} of {clean.total}",
            )
    return table


def _dims(shape: tuple[int | str, ...]) -> str:
    return _shown(times(shape))


def _shown(text: str, longest: int = _NAME) -> str:
    """Make text of a model safe for a terminal: limited in length, without control codes."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} … {text[-longest // 2 :]}"
    return escape_markup("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def _figures(result: TierResult) -> str:
    if result.worst_error is None:
        return ""
    if result.required_rtol is None:
        return f"worst error {result.worst_error:.1e}" if result.worst_error else "exact"
    return f"worst error {result.worst_error:.1e}, smallest rtol {result.required_rtol:.1e}"
