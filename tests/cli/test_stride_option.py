from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from tests.cli.conftest import MODELS, Run


def test_a_denser_map_is_proven_and_written(run: Run, tmp_path: Path) -> None:
    """1024×512 pixels: 225×113 windows of 128×64 at stride 4, each equal to its crop."""
    source, out = MODELS / "dress64x128.onnx", tmp_path / "dense.onnx"
    result = run(source, out, "--stride", "4")
    assert result.code == 0
    assert "window 128×64, stride 4×4 windows exact" in " ".join(result.out.split())
    assert "✓ feature windows: scores" in result.out
    assert "✓ image windows: scores" in result.out
    dense, crop = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (out, source)
    )
    image = np.random.default_rng(0).random((1, 3, 1024, 512), np.float32)
    (scores,) = dense.run(None, {"image": image})
    assert scores.shape == (1, 2, 225, 113)
    for i, j in ((0, 0), (1, 3), (97, 50), (224, 112), (224, 1), (13, 111)):
        window = image[:, :, 4 * i : 4 * i + 128, 4 * j : 4 * j + 64]
        (expected,) = crop.run(None, {"image": window})
        np.testing.assert_allclose(scores[:, :, i, j], expected, rtol=1e-4, atol=1e-4)


def test_a_stride_for_each_axis(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "dense.onnx", "--stride", "1,2")
    assert result.code == 0
    assert "stride 1×2" in result.out


def test_a_stride_that_does_not_divide_is_bad_usage(run: Run, face25: Path, tmp_path: Path) -> None:
    out = tmp_path / "dense.onnx"
    for given, said in (("3", "must divide"), ("x", "written like"), ("1,2,3", "for 3 axes")):
        result = run(face25, out, "--stride", given)
        assert result.code == 2
        assert said in result.err
        assert not out.exists()


def test_help_names_the_option(run: Run) -> None:
    assert "--stride" in run("convert", "--help").out


def test_inspect_shows_the_denser_grid(run: Run, face25: Path) -> None:
    assert "stride 1×1" in run("inspect", face25, "--stride", "1").out
