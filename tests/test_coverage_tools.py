"""The tools behind docs/coverage.md: artificial classifiers, and the page made of sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_fc2conv import check, convert
from tools import coverage_page, make_heads

WANTED = ("test_relu", "test_maxpool_2d_default", "test_logsoftmax_axis_1", "test_acos_example")


def test_node_cases_become_classifiers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [case for case in make_heads.node_cases() if case.name in WANTED]
    monkeypatch.setattr(make_heads, "node_cases", lambda: cases)
    assert make_heads.main([str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"3 models in {tmp_path}"
    assert second.strip() == "1 cases left out: no float input of rank 3 or more"
    made = sorted(path.stem for path in tmp_path.iterdir())
    assert made == ["test_logsoftmax_axis_1", "test_maxpool_2d_default", "test_relu"]
    for path in tmp_path.iterdir():
        conversion = convert(str(path))
        assert [layer.node for layer in conversion.heads] == ["head_scores"]
        assert conversion.model is not None
        assert check(str(path), conversion.model, geometry=conversion.geometry)


def test_the_page_counts_by_folder_and_by_code(tmp_path: Path) -> None:
    def result(group: str, name: str, outcome: str, code: str = "", detail: str = "") -> object:
        return {
            "group": group, "name": name, "outcome": outcome, "code": code, "detail": detail
        }  # fmt: skip

    results = [
        result("models", "models/a.onnx", "proven", detail="2 layers"),
        result("models", "models/b.onnx", "refused", "layout", "LRN one: takes axis 1"),
        result("heads", "heads/c.onnx", "refused", "layout", "LRN two: takes axis 1"),
        result("heads", "heads/d.onnx", "refused", "no-rule", "Foo bar: no rule"),
        result("heads", "heads/e.onnx", "failed", detail="native: off | far; larger: off"),
    ]
    (tmp_path / "dense.json").write_text(json.dumps(results))
    arguments = [str(tmp_path / "dense.json"), "--output", str(tmp_path / "page.md")]
    assert coverage_page.main(arguments) == 0
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert "## Dense" in lines
    assert "| models of | proven | refused | failed | sum |" in lines
    assert "| models | 1 | 1 |  | 2 |" in lines
    assert "| heads |  | 2 | 1 | 3 |" in lines
    assert "| **all** | 1 | 3 | 1 | 5 |" in lines
    assert "| [`layout`](refusals.md) | 2 | LRN (2) |" in lines
    assert "| [`no-rule`](refusals.md) | 1 | Foo (1) |" in lines
    assert "| `e` | failed | native: off \\| far |" in lines
    assert "    python tools/make_heads.py build/heads" in lines
