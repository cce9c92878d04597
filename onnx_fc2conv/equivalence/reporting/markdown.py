"""The results of a check as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx_fc2conv.equivalence.comparing.spread import BINS
from onnx_fc2conv.equivalence.reporting.results import TierResult

__all__ = ["errors_table", "one_line", "results_table"]


def one_line(text: str) -> str:
    """Return the text as one cell of a Markdown table: one line, pipes escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def results_table(results: Iterable[TierResult]) -> list[str]:
    """A line for each result."""
    rows = [
        (
            *(r.tier, r.subject, r.status, f"{r.elements:,}"),
            *(_figure(r.worst_error), _figure(r.required_rtol), r.sentence),
        )
        for r in results
    ]
    names = ("tier", "subject", "result", "elements", "worst error", "smallest rtol", "")
    return _table(names, ("---", "---", "---", "---:", "---:", "---:", "---"), rows)


def errors_table(results: Iterable[TierResult]) -> list[str]:
    """Return the histograms of relative errors in a collapsible block; empty without any."""
    rows = [
        (
            r.tier,
            r.subject,
            r.where or "",
            *(f"{count:,}" if count else "" for count in r.histogram),
        )
        for r in results
        if r.histogram is not None and r.worst_error
    ]
    if not rows:
        return []
    names = ("tier", "subject", "largest difference at", *BINS)
    table = _table(names, ("---", "---", "---", *["---:"] * len(BINS)), rows)
    summary = "<summary>Numbers by relative error</summary>"
    return ["", "<details>", summary, "", *table, "", "</details>"]


def _table(names: Sequence[str], rules: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(names), _row(rules), *(_row([one_line(text) for text in row]) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure(number: float | None) -> str:
    return "" if number is None else f"{number:.2g}"
