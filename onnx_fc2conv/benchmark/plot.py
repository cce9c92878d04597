"""The benchmark as a picture."""

from __future__ import annotations

from importlib import import_module, util
from pathlib import Path
from typing import Any

from onnx_fc2conv.benchmark.report import BenchReport
from onnx_fc2conv.errors import RuntimeUnavailableError

__all__ = ["plot", "require_matplotlib"]


_WAYS = {
    "single": "crops, one by one",
    "batched": "crops, batched",
    "dense": "dense pass",
    "tiled": "dense pass in tiles",
}


def require_matplotlib() -> None:
    """Check before any work that pictures can be drawn.

    Raises:
        RuntimeUnavailableError: If matplotlib is missing.
    """
    if util.find_spec("matplotlib") is None:
        raise RuntimeUnavailableError(
            '--plot draws with matplotlib, which is not installed: pip install "onnx-fc2conv[plot]"'
        )


def plot(report: BenchReport, path: Path) -> None:
    """Draw the windows per second of each way, and the ceiling by multiply-adds, for each size."""
    figure_module: Any = import_module("matplotlib.figure")
    figure = figure_module.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for position, (name, label) in enumerate(_WAYS.items()):
        bars = {n: s.rates[name] for n, s in enumerate(report.sizes) if name in s.rates}
        if bars:
            places = [n + (position - 1.5) * 0.21 for n in bars]
            axes.bar(places, list(bars.values()), 0.2, label=label)
    for n, size in enumerate(report.sizes):
        if size.ceiling is not None:
            height = size.rates["batched"] * size.ceiling
            axes.hlines(height, n, n + 0.42, colors="black", linestyles="dotted")
    axes.plot([], [], ":", color="black", label="what multiply-adds promise")
    axes.set_xticks(range(len(report.sizes)))
    axes.set_xticklabels(["×".join(map(str, size.size)) for size in report.sizes])
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)
    axes.set_ylabel("windows a second")
    axes.set_title(Path(report.model).name)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150)
