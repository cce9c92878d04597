"""docs/benchmarks.md, and the plot of time by number of nodes as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tools.benchmarks.measuring import Measured

__all__ = ["Goal", "Section", "page", "plot"]


@dataclass(frozen=True)
class Goal:
    """What we want to reach, and whether we did.

    Attributes:
        words: The goal.
        reached: Whether it is reached.
        found: The figure that was measured.
        why: Why it is not reached, where the reason is known.
    """

    words: str
    reached: bool
    found: str
    why: str = ""


@dataclass(frozen=True)
class Section:
    """One comparison.

    Attributes:
        title: What is compared.
        words: How.
        rows: What was measured, by name.
        goals: What we wanted.
        table: Rows of text instead, the first one the head.
    """

    title: str
    words: str
    rows: Mapping[str, Measured] = field(default_factory=dict)
    goals: Sequence[Goal] = ()
    table: Sequence[Sequence[str]] = ()


def page(machine: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as Markdown."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python tools/compare_peers.py`, which makes the models (random weights), "
        "installs each peer in a virtual environment of its own, and runs all of them on the same "
        "files in turns. Wall clock is the median of the runs, start-up included; the peak is the "
        "largest resident memory (`wait4`), which counts pages of mapped files too.",
        "",
        *(f"- {line}" for line in machine),
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.words]
        if section.rows:
            table = [
                ("", "wall clock", "peak memory", "written", "runs"),
                *map(_row, section.rows.items()),
            ]
            lines += ["", *_table(table)]
        if section.table:
            lines += ["", *_table(section.table)]
        if section.goals:
            lines.append("")
        for goal in section.goals:
            verdict = "reached" if goal.reached else "**not reached**"
            why = f" {goal.why}" if goal.why and not goal.reached else ""
            lines.append(f"- Goal: {goal.words}: {verdict} ({goal.found}).{why}")
    return "\n".join(lines) + "\n"


def _row(item: tuple[str, Measured]) -> tuple[str, ...]:
    name, run = item
    peak = f"{run.peak / 1e6:,.0f} MB"
    rest = peak, f"{run.written / 1e6:,.1f} MB", str(len(run.seconds))
    if run.failure:
        return name, f"failed: {run.failure.replace('|', ' ')}", *rest
    return name, f"{run.median:.2f} s", *rest


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return [head, "|" + "---|" * len(rows[0]), *rest]


def plot(points: Mapping[int, float], goal: tuple[int, float]) -> str:
    """Seconds by number of nodes, both axes logarithmic, with a line of slope 1 through the last.

    Args:
        points: Seconds by number of nodes.
        goal: A number of nodes, and the seconds that it may take at most.
    """
    width, height, margin = 640, 360, 56
    least, most = min(points), max(points)
    low = 10 ** math.floor(math.log10(min(points.values())))
    high = 10 ** math.ceil(math.log10(max(*points.values(), goal[1])))

    def at(nodes: float, seconds: float) -> tuple[float, float]:
        along = math.log(nodes / least) / math.log(most / least)
        up = math.log(max(seconds, low) / low) / math.log(high / low)
        return margin + along * (width - 2 * margin), height - margin - up * (height - 2 * margin)

    def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>'

    dots = [at(*point) for point in sorted(points.items())]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    slope = [at(n, points[most] * n / most) for n in (max(least, most * low / points[most]), most)]
    (x1, y1), (x2, y2) = slope
    gx, gy = at(*goal)
    marks = [text(at(n, low)[0], height - margin + 20, f"{n:,}") for n in sorted(points)]
    seconds = low
    while seconds <= high * 1.01:
        marks.append(text(margin - 8, at(least, seconds)[1] + 4, f"{seconds:g} s", "end"))
        seconds *= 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<path d="M{margin},{margin} V{height - margin} H{width - margin}" '
            'fill="none" stroke="black"/>',
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            'stroke="gray" stroke-dasharray="4"/>',
            f'<polyline points="{path}" fill="none" stroke="#1f77b4" stroke-width="2"/>',
            *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f77b4"/>' for x, y in dots),
            f'<path d="M{gx - 6:.1f},{gy:.1f} h12" stroke="#d62728" stroke-width="3"/>',
            text(gx + 10, gy + 18, f"goal: {goal[0]:,} in {goal[1]:g} s", "start"),
            *marks,
            text(width / 2, height - 12, "nodes (dashed: proportional to the number of nodes)"),
            text(width / 2, 24, "fc2conv IN OUT --no-check"),
            "</svg>",
        ]
    )
