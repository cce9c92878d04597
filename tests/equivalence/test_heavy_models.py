"""Models that take long are compared on fewer inputs; no kind is left out, and no fault passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_fc2conv.equivalence import check, pair
from onnx_fc2conv.pipeline import convert
from tests.nets import Net
from tests.oracle import converted_model

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def padded(tmp_path: Path) -> tuple[Path, Path]:
    """A model whose trunk pads, so that cells are not the scores of crops, and its dense one."""
    net = Net()
    kernel = net.rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    x = net.op("Conv", net.x, kernel, pads=[1, 1, 1, 1], shape=(3, 8, 10))
    source, target = tmp_path / "padded.onnx", tmp_path / "dense.onnx"
    onnx.save(net.model(net.fc(net.flat(x), 4)), source)
    ir.save(converted_model(convert(source)), target)
    return source, target


def test_fewer_inputs_of_every_kind(
    padded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def details() -> dict[str, str]:
        report = check(*padded)
        assert report
        return {result.tier: result.detail for result in report.runs[0].results}

    usual = details()
    monkeypatch.setattr(pair, "_HEAVY", 0)
    fewer = details()
    kinds = "3 kinds of input (normal, image-like, 0 to 255), normal at batch 1 and 3"
    assert fewer["native"].startswith(kinds)
    assert "NaN" in usual["native"]
    assert "NaN" not in fewer["native"]
    every = "(every remainder of the stride), each the head on its window of conv0"
    assert usual["feature windows"].startswith(f"276 cells at 10 larger sizes {every}")
    assert fewer["feature windows"].startswith(f"24 cells at 2 larger sizes {every}")
    assert "over 276 windows" in usual["image windows"]
    assert "over 3 windows" in fewer["image windows"]


def test_a_fault_in_a_heavy_model(
    padded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "_HEAVY", 0)
    source, target = padded
    model = onnx.load(target)
    kernel = next(t for t in model.graph.initializer if list(t.dims) == [4, 3, 8, 10])
    wrong = numpy_helper.to_array(kernel).copy()
    wrong[:, :, 0, 0], wrong[:, :, 1, 0] = wrong[:, :, 1, 0].copy(), wrong[:, :, 0, 0].copy()
    kernel.CopyFrom(numpy_helper.from_array(wrong, kernel.name))
    onnx.save(model, target)
    report = check(source, target)
    failed = {result.tier for result in report.runs[0].results if result.status == "failed"}
    assert {"native", "feature windows"} <= failed
