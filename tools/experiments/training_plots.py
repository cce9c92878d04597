"""The four plots of ``equivalent_training.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from PIL import Image

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from equivalent_training import Pair

_COLORS = {
    "SGD, rate 0.1": "#0072b2",
    "SGD, rate 0.18": "#009e73",
    "Adam, rate 0.001": "#d55e00",
    "Adam, rate 0.03": "#cc79a7",
}
_WHAT = {
    "weights": "weights of the first layer",
    "outputs": "first layer's outputs, for 128 images",
}


def plot_losses(pairs: list[Pair], path: Path) -> None:
    """The loss of both networks by epoch: a line, and circles that should lie on it."""
    groups = _groups(pairs, "FC on patches")
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex=True, sharey="row")
    for row, (kind, members) in zip(axes, groups.items(), strict=True):
        for axis, dtype in zip(row, ("float32", "float64"), strict=True):
            for pair in (p for p in members if p.dtype == dtype):
                color, epochs = _COLORS[pair.optimizer], np.arange(1, len(pair.losses[0]) + 1)
                axis.plot(epochs, pair.losses[0], color=color, lw=1, label=pair.optimizer)
                every = max(1, len(epochs) // 16)
                axis.plot(epochs, pair.losses[1], "o", color=color, markevery=every, mfc="none")
            axis.set(title=f"{kind}, {dtype}", yscale="log")
            axis.grid(alpha=0.3)
        row[0].set_ylabel("mean squared error of the epoch")
        row[0].legend(fontsize=8, title="line: CONV, circles: FC on patches", title_fontsize=8)
    _save(figure, path, "epoch")


def plot_histograms(pairs: list[Pair], path: Path) -> None:
    """The first layer's weights after training, of both networks."""
    members = [p for group in _groups(pairs, "FC on patches").values() for p in group]
    figure, axes = plt.subplots(3, 4, figsize=(12, 7))
    for axis, pair in zip(axes.flat, members, strict=True):
        one, two = pair.histograms
        reach = max(np.abs(one).max(), np.abs(two).max())
        bins = np.linspace(-reach, reach, 31)
        axis.hist(one, bins, color="#56b4e9", label="CONV")
        axis.hist(two, bins, histtype="step", color="k", label="FC on patches")
        axis.set_title(f"{pair.kind.name}\n{pair.optimizer}, {pair.dtype}", fontsize=8)
    for row in axes:
        row[0].set_ylabel("number of weights")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="lower left", ncols=2)
    _save(figure, path, "weight of the first layer after the last epoch")


def plot_distances(pairs: list[Pair], name: str, path: Path) -> None:
    """How far both networks are apart, by epoch; networks that stay equal have no line."""
    panels = {
        "CONV→CONV against FC on patches→CONV": _groups(pairs, "FC on patches")["CONV→CONV"],
        "CONV→CONV twice, last bit of one weight changed": next(
            iter(_groups(pairs, "last bit of one weight changed").values())
        ),
        "CONV→Relu→FC→Relu against FC on patches": _groups(pairs, "FC on patches")[
            "CONV→Relu→FC→Relu"
        ],
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True)
    for axis, (title, members) in zip(axes, panels.items(), strict=True):
        for pair in members:
            distances = np.array(getattr(pair, name))
            axis.plot(
                np.arange(1, len(distances) + 1),
                np.where(distances > 0, distances, np.nan),
                "-" if pair.dtype == "float32" else "--",
                color=_COLORS[pair.optimizer],
                lw=1.2,
                label=f"{pair.optimizer}, {pair.dtype}",
            )
        axis.set(yscale="log", ylim=(1e-17, 1e2))
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"Frobenius norm of the difference:\n{_WHAT[name]}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=4, loc="lower center")
    figure.supxlabel("epoch", y=0.12, fontsize=10)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    _write(figure, path)


def _groups(pairs: list[Pair], twin: str) -> dict[str, list[Pair]]:
    """The pairs of one comparison by network."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.twin == twin:
            found.setdefault(pair.kind.name, []).append(pair)
    return found


def _save(figure: plt.Figure, path: Path, below: str) -> None:
    figure.supxlabel(below, fontsize=10)
    figure.tight_layout()
    _write(figure, path)


def _write(figure: plt.Figure, path: Path) -> None:
    """In few colors, which a plot needs no more of: a third of the file."""
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(64)
    reduced.save(path, optimize=True)
