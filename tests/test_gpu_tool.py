"""tools/gpu_check.py, as far as it goes without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from tools.gpu_check import vgg16

ROOT = Path(__file__).parents[1]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "gpu_check.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_it_checks_and_writes_one_file_of_each_kind(tmp_path: Path) -> None:
    done = run("--provider", "cpu", "--out", tmp_path, "digits8", "vgg16", "--vgg-width", "2")
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert {name: r["status"] for name, r in values["models"].items()} == {
        "digits8": "equivalent",
        "vgg16": "equivalent",
    }
    page = (tmp_path / "cpu.md").read_text(encoding="utf-8")
    assert page.startswith("# The check on a CPU")
    assert "| digits8 | equivalent: a map of windows at any size | native | passed |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {9}


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_without_cuda_it_says_that_nothing_has_been_run(tmp_path: Path) -> None:
    done = run("--out", tmp_path, "digits8")
    assert done.returncode == 2
    assert "CUDAExecutionProvider is not in this onnxruntime package" in done.stderr
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "Nothing has been run on a GPU yet." in page
    (tmp_path / "gpu.md").write_text("figures")
    (tmp_path / "gpu.json").write_text("{}")
    assert run("--out", tmp_path, "digits8").returncode == 2
    assert (tmp_path / "gpu.md").read_text() == "figures", "figures are kept"


def test_the_page_has_figures_or_says_that_there_are_none() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert ("Nothing has been run on a GPU yet." in page) != (ROOT / "docs" / "gpu.json").exists()


def test_vgg16_has_the_papers_weights() -> None:
    """Table 2 of Simonyan and Zisserman 2014: 138 million, here at an eighth of the width."""
    model = vgg16(8)
    onnx.checker.check_model(model, full_check=True)
    shapes = [tuple(t.dims) for t in model.graph.initializer if t.name.endswith("weight")]
    assert len(shapes) == 16
    assert shapes[0] == (8, 3, 3, 3)
    assert shapes[13:] == [(512, 64 * 49), (512, 512), (1000, 512)]
