"""The README's examples run, and print what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from onnx_fc2conv.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


CHECKING = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")


def _blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def in_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scratch folder with the repository's models."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_scratch")
@pytest.mark.parametrize("code", [*_blocks("python"), *_blocks("python", CHECKING)])
def test_python_example(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.usefixtures("in_scratch")
@pytest.mark.parametrize("session", _blocks("console"))
def test_console_example(session: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *expected = session.splitlines()
    assert command.startswith("$ fc2conv ")
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(command)[2:])
    assert exit_.value.code in (0, None)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed[: len(expected)] == expected


def test_the_two_commands() -> None:
    commands = re.findall(r"<!-- ci:(\w+) -->\n\n    (.*)", README)
    assert commands == [
        ("try", 'python -m pip install ".[cpu]" && fc2conv models/face25.onnx face25_conv.onnx'),
        ("test", 'python -m pip install -e ".[test]" && pytest -n auto'),
    ]
    for name, command in commands:  # as .ci/run and the workflow read them
        script = [shutil.which("bash") or "bash", ROOT / ".ci" / "readme-command", name]
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        assert done.stdout == f"{command}\n"


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:docs|tools|models)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name
