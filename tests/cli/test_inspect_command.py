from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

SHARED = Path(__file__).parents[3] / "shared" / "models"


def test_shows_the_plan(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run("inspect", face25)
    assert result.code == 0
    assert "Conv 48×24×6×6" in result.out
    assert "→ N×2×scores_H×scores_W" in result.out
    assert "windows exact" in result.out


def test_json(run: Run, face25: Path) -> None:
    report = json.loads(run("inspect", face25, "--json").out)
    assert report["status"] == "unchecked"
    assert report["interface"]["after"]["outputs"]["scores"] == ["N", 2, "scores_H", "scores_W"]
    assert report["output"] is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the models made by others are not here")
def test_a_layer_that_is_left_alone_is_explained(run: Run) -> None:
    result = run("inspect", SHARED / "mtcnn__pnet.onnx")
    assert result.code == 3
    assert "nothing to convert" in result.err
