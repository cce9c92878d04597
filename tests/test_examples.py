"""The example scripts run, and both of their ways agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.nets import Net
from tools.examples.conv_as_matrix import analyse, layers

ROOT = Path(__file__).parents[1]
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"pads": [1, 0, 2, 1]},
    "strided": {"strides": [2, 3], "pads": [1, 1, 0, 1]},
    "dilated": {"dilations": [2, 1]},
    "depthwise": {"group": 4},
    "same": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_matrix_says_what_the_convolution_says(kind: str) -> None:
    """The Lipschitz bound, and mean and deviation of Monte-Carlo dropout with the same masks."""
    options = LAYERS[kind]
    net = Net(image=(4, 7, 9))
    kernel = net.random(4, 4 // options.get("group", 1), 3, 3)
    (node,) = net.ir_model(net.op("Conv", net.x, kernel, **options)).graph
    found = analyse(node, (1, 4, 7, 9), samples=20)
    by_matrix, by_iteration = found.lipschitz
    assert by_iteration == pytest.approx(by_matrix, rel=1e-3)
    assert by_iteration <= by_matrix * (1 + 1e-6)  # the iteration comes from below
    for pair in (found.mean, found.deviation):
        np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6)
    assert found.deviation[0].max() > 0.01


def test_the_layers_of_a_model() -> None:
    chosen = layers(str(ROOT / "models/digits8.onnx"), largest=100_000)
    assert [node.name for node, _ in chosen] == ["/0/Conv"]
    assert chosen[0][1] == (1, 1, 8, 8)


def test_the_example_prints_a_line_a_layer() -> None:
    script = ROOT / "tools/examples/conv_as_matrix.py"
    command = [sys.executable, script, "models/digits8.onnx", "--largest", "100000"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    header, line = found.stdout.splitlines()
    assert header.split()[0] == "layer"
    assert line.split()[0] == "/0/Conv"


def test_the_page_of_the_experiment_has_the_table_that_was_measured() -> None:
    docs = ROOT / "docs"
    measured = (docs / "experiment/table.md").read_text(encoding="utf-8")
    page = (docs / "experiment.md").read_text(encoding="utf-8")
    assert measured.strip() in page
    for plot in ("losses", "weights", "outputs", "histograms"):
        assert f"(experiment/{plot}.png)" in page
        assert (docs / f"experiment/{plot}.png").stat().st_size < 100_000
