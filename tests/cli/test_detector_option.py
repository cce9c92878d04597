"""fc2conv IN OUT --detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_fc2conv import detection
from onnx_fc2conv.equivalence import TierResult
from tests.cli.conftest import Run
from tests.nets import Net


def test_a_detector_is_proven_and_written(run: Run, face25: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "detector.onnx", tmp_path / "report.json"
    options = ("--background", "0", "--threshold", "0.9", "--report", report)
    result = run(face25, out, "--detector", *options, "--preprocess", "scale=1/128 mean=1")
    assert result.code == 0, result.err
    assert "✓ image windows: scores" in result.out
    assert "✓ detector: 2 comparisons, exact" in result.out
    checks = json.loads(report.read_text())["checks"]
    assert [c["status"] for c in checks if c["tier"] == "detector"] == ["passed"] * 2
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    boxes, scores, classes = session.run(None, {"image": np.zeros((60, 70, 3), np.uint8)})
    assert boxes.shape == (len(scores), 4)
    assert set(classes) <= {1}
    stored = json.loads(session.get_modelmeta().custom_metadata_map["fc2conv.detector"])
    assert stored["preprocess"] == {"scale": 1 / 128, "mean": [1.0]}


def test_one_that_finds_something_else_is_not_written(
    run: Run, face25: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = TierResult("detector", "its own thresholds", "failed", "at 25×25 it finds 3 boxes")
    monkeypatch.setattr(detection, "check_detector", lambda *_, **__: (failed,))
    out = tmp_path / "detector.onnx"
    result = run(face25, out, "--detector")
    assert result.code == 1
    assert "not equivalent" in result.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--static",), 2, "static mode has one window only"),
        (("--reduce", "max"), 2, "--reduce leaves one vector"),
        (("--background", "7"), 2, "there is no class 7"),
        (("--output", "y"), 2, "the model has no map 'y'"),
        (("--threshold", "much"), 2, "--threshold 'much' is not written like"),
        (("--preprocess", "mean=1,2,3"), 2, "mean has 3 numbers"),
    ],
)
def test_what_does_not_go_together(
    run: Run, face25: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    out = tmp_path / "detector.onnx"
    result = run(face25, out, "--detector", *options)
    assert (result.code, len(result.error_lines)) == (code, 1), result.err
    assert said in result.err
    assert not out.exists()


def test_its_options_alone_do_nothing(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "dense.onnx", "--threshold", "0.9")
    assert result.code == 2
    assert "need --detector" in result.err


def pooled() -> onnx.ModelProto:
    net = Net(image=(3, 8, 10))
    pooled = net.op("GlobalAveragePool", net.trunk(), shape=(3, 1, 1))
    return net.model(net.head(pooled))


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_output_of_the_whole_image_is_refused(
    run: Run, tmp_path: Path, more: tuple[str, ...]
) -> None:
    source, out = tmp_path / "pooled.onnx", tmp_path / "detector.onnx"
    onnx.save(pooled(), source)
    result = run(source, out, "--detector", *more)
    assert result.code == 3
    assert "[no-map]" in result.err
    assert "--pool window" in result.err
    assert not out.exists()
    assert run(source, out, "--detector", "--pool", "window").code == 0
