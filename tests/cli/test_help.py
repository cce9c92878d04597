from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest

from onnx_fc2conv.options import Options
from tests.cli.conftest import Run


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out.strip()) == (0, f"fc2conv {version('onnx-fc2conv')}")


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "-h"], ["inspect", "--help"]])
def test_help_teaches_by_example(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 0
    assert "Examples" in result.out
    assert re.search(r"fc2conv (inspect )?classifier\.onnx", result.out)


@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_help_has_every_option_of_a_conversion(run: Run, command: str) -> None:
    flags = [f.metadata.get("flag", f"--{f.name.replace('_', '-')}") for f in fields(Options)]
    shown = run(command, "--help").out
    assert [flag for flag in flags if flag not in shown] == []


def test_help_states_the_exit_codes(run: Run) -> None:
    assert "3 refused" in " ".join(run("convert", "--help").out.split())


def test_no_arguments_show_help(run: Run) -> None:
    result = run()
    assert result.code == 2
    assert "Usage" in result.out + result.err


def test_a_misspelt_command(run: Run) -> None:
    result = run("inspct", "model.onnx")
    assert result.code == 2
    assert result.error_lines == ["fc2conv: there is no command 'inspct'; did you mean 'inspect'?"]


def test_a_misspelt_option(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "out.onnx", "--overwrit")
    assert result.code == 2
    assert "--overwrite" in result.err


@pytest.mark.parametrize("module", ["onnx_fc2conv", "onnx_fc2conv.cli"])
def test_help_loads_neither_numpy_nor_onnx(module: str) -> None:
    script = (
        f"import sys, {module};"
        "heavy = ('numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'sympy');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_python_dash_m(face25: Path) -> None:
    command = [sys.executable, "-m", "onnx_fc2conv", "inspect", str(face25)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Conv 48×24×6×6" in done.stdout
