"""Files that did harm once (tools/fuzz.py found them): a few lines and an exit code, no more."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run, run

__all__ = ["run"]

FOUND = sorted((Path(__file__).parent / "data" / "fuzz").glob("*.onnx"))


@pytest.mark.parametrize("mode", ["", "--static", "--no-check", "--static --no-check"])
@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_a_file_that_did_harm_once(file: Path, mode: str, run: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "in" / file.name, tmp_path / "out" / "out.onnx"
    for folder in (source.parent, out.parent):
        folder.mkdir()
    source.write_bytes(file.read_bytes())
    source.with_name("data").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "secret").write_bytes(bytes(16384))
    result = run(source, out, *mode.split())
    text = result.out + result.err
    assert result.code in (0, 1, 2, 3)
    assert "internal error" not in text
    assert "Traceback" not in text
    assert 0 < len(text.splitlines()) < 30
    assert len(text) < 20_000
    assert all(character.isprintable() or character == "\n" for character in text)
    if result.code == 0:
        onnx.checker.check_model(str(out))
    else:
        assert list(out.parent.iterdir()) == []


def test_a_bomb_is_not_run(run: Run, tmp_path: Path) -> None:
    (file,) = (file for file in FOUND if file.stem == "range-of-four-quintillion")
    result = run(file, tmp_path / "out.onnx", "--static")
    assert (result.code, result.error_lines) == (
        2,
        ["fc2conv: Range bomb would make a tensor of 4.61e+18 elements"],
    )
