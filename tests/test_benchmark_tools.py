"""What measures us and our peers: time, memory, failures, and the plot."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import onnx

from onnx_fc2conv.pipeline import convert
from tools.benchmarks.graphs import long_graph, wide_head
from tools.benchmarks.measuring import measured
from tools.benchmarks.page import Goal, Section, page, plot

MEGABYTES = 1_000_000


def test_runs_are_measured_and_failures_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"from pathlib import Path; Path({str(out)!r}).write_bytes(bytes(60_000_000))"
    found = measured(
        {
            "writes": [sys.executable, "-c", script],
            "fails": [sys.executable, "-c", "raise SystemExit('no such operator')"],
            "hangs": [sys.executable, "-c", "import time; time.sleep(60)"],
        },
        repeats=2,
        limit=2,
        before=lambda: out.unlink(missing_ok=True),
        written=lambda: out.stat().st_size if out.exists() else 0,
    )
    assert len(found["writes"].seconds) == 2
    assert found["writes"].median > 0
    assert found["writes"].peak > 60 * MEGABYTES
    assert found["writes"].written == 60 * MEGABYTES
    assert found["fails"].failure == "exit code 1: no such operator"
    assert math.isnan(found["fails"].median)
    assert found["hangs"].failure.startswith("killed after 2 s")


def test_a_goal_that_is_not_reached_is_named() -> None:
    goals = [Goal("fast", True, "1 s"), Goal("small", False, "300 MB", "It is mapped.")]
    text = page(["a machine"], [Section("Files", "How.", {}, goals, [("", "x"), ("a", "1")])])
    assert "- Goal: fast: reached (1 s)." in text
    assert "- Goal: small: **not reached** (300 MB). It is mapped." in text
    assert "| a | 1 |" in text


def test_the_plot_has_a_dot_for_each_point() -> None:
    root = ET.fromstring(plot({100: 0.5, 1000: 0.7, 10_000: 2.5}, (10_000, 3)))
    dots = root.findall("{http://www.w3.org/2000/svg}circle")
    heights = [float(dot.attrib["cy"]) for dot in dots]
    assert len(dots) == 3
    assert heights == sorted(heights, reverse=True)


def test_the_models_can_be_converted(tmp_path: Path) -> None:
    long_graph(tmp_path / "long.onnx", 100)
    wide_head(tmp_path / "wide.onnx", 0.005)
    assert 90 <= len(onnx.load(tmp_path / "long.onnx").graph.node) <= 100
    for file in ("long.onnx", "wide.onnx"):
        assert convert(tmp_path / file).model is not None
