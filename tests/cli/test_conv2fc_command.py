"""The console script conv2fc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_fc2conv.cli.conv2fc import main, parse_size
from onnx_fc2conv.errors import ArgumentError
from tests.cli.conftest import MODELS, Run, runner


@pytest.fixture
def conv2fc(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``conv2fc`` with these arguments."""
    return runner(main, capsys)


OTHERS = {"MaxPool", "Relu", "Gemm", "Flatten", "Reshape", "Softmax"}


@pytest.mark.parametrize("model", ["digits8", "face25", "dress64x128", "dress64x128_padded"])
def test_patches_times_filters(conv2fc: Run, model: str, tmp_path: Path) -> None:
    source, out = MODELS / f"{model}.onnx", tmp_path / "out.onnx"
    before = source.read_bytes()
    result = conv2fc(source, out)
    assert result.code == 0
    assert "✓ native" in result.out
    assert "(equivalent) in" in result.out
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    left = {node.op_type for node in onnx.load(out).graph.node}
    assert left <= OTHERS | {"Transpose", "Gather", "Pad", "MatMul", "Add"}


@pytest.mark.parametrize("model", ["digits8", "face25"])
def test_one_matrix_a_layer(conv2fc: Run, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = conv2fc(MODELS / f"{model}.onnx", out, "--form", "dense")
    assert result.code == 0
    assert "✓ native" in result.out
    assert {node.op_type for node in onnx.load(out).graph.node} <= OTHERS


def test_there_and_back(conv2fc: Run, run: Run, face25: Path, tmp_path: Path) -> None:
    """The fully convolutional model at one size: only matrices, the first Gemm's own bytes."""
    dense, matrices = tmp_path / "dense.onnx", tmp_path / "matrices.onnx"
    assert run(face25, dense).code == 0
    options = ("--form", "dense", "--input-shape", "image:1,1,25,25")
    assert conv2fc(dense, matrices, *options).code == 0
    first = next(node for node in onnx.load(face25).graph.node if node.op_type == "Gemm")
    weights = {w.name: w for w in onnx.load(face25).graph.initializer}
    found = [w.raw_data for w in onnx.load(matrices).graph.initializer]
    assert weights[first.input[1]].raw_data in found


def test_a_dry_run_writes_nothing(conv2fc: Run, digits8: Path, tmp_path: Path) -> None:
    result = conv2fc(digits8, tmp_path / "out.onnx", "--form", "dense", "--dry-run")
    assert result.code == 0
    assert "→ matrix 864×64" in result.out
    assert "7,776 nonzeros; adds 221,184 bytes" in result.out
    assert list(tmp_path.iterdir()) == []


def test_arrays_for_other_tools(conv2fc: Run, digits8: Path, tmp_path: Path) -> None:
    result = conv2fc(digits8, tmp_path / "out.npz", "--form", "sparse")
    assert result.code == 0
    assert "(not checked)" in result.out
    assert "/0/Conv.value" in np.load(tmp_path / "out.npz").files


def test_quiet_prints_nothing(conv2fc: Run, digits8: Path, tmp_path: Path) -> None:
    result = conv2fc(digits8, tmp_path / "out.onnx", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def _same(path: Path) -> tuple[str, ...]:
    return (str(path), str(path), "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (lambda m, t: (m, t / "o.onnx", "--form", "dense", "--max-bytes", "1MB"), 3, "too-large"),
        (lambda m, t: (m, t / "o.npz"), 2, "only --form sparse is written as arrays"),
        (lambda m, t: (m, t / "o.onnx", "--max-bytes", "much"), 2, "not written like 500MB"),
        (lambda m, t: (m, t / "o.onnx", "--layers", "conv9"), 2, "no Conv named 'conv9'"),
        (lambda m, t: (m, t / "o.onnx", "--input-shape", "imago:1,1,8,8"), 2, "no input 'imago'"),
        (lambda m, t: (m, t / "o.onnx", "--input-shape", "image:8,8"), 2, "has 4 axes, not 2"),
        (lambda m, t: _same(m), 2, "OUT is IN"),
        (lambda m, t: (t / "none.onnx", t / "o.onnx"), 2, "No such file"),
        (lambda m, t: (m, t), 2, "is a directory"),
    ],
)
def test_mistakes_are_one_line(
    conv2fc: Run,
    digits8: Path,
    tmp_path: Path,
    arguments: Callable[[Path, Path], tuple[str | Path, ...]],
    code: int,
    says: str,
) -> None:
    before = digits8.read_bytes()
    result = conv2fc(*arguments(digits8, tmp_path))
    assert result.code == code
    assert len(result.error_lines) == 1
    assert result.error_lines[0].startswith("conv2fc: ")
    assert says in result.error_lines[0]
    assert digits8.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "count"), [("2GB", 2 * 10**9), ("1.5 kb", 1500), ("77", 77), ("77b", 77)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count
    with pytest.raises(ArgumentError):
        parse_size(f"-{text}")
