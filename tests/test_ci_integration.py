"""action.yml and .pre-commit-hooks.yaml: their very shell lines run.

Both are read as text: a YAML parser would be a dependency for two files of a known shape.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
FACE = ROOT / "models" / "face25.onnx"
DIGITS = ROOT / "models" / "digits8.onnx"


def step(name: str) -> str:
    """The text of a step of the action."""
    _, _, rest = ACTION.partition(f"    - name: {name}\n")
    return rest.split("    - name: ")[0]


def environment(name: str) -> dict[str, str]:
    """By variable, what the action puts into it."""
    block = re.search(r"      env:\n((?:        \w+: .*\n)+)", step(name))
    assert block is not None
    return dict(re.findall(r"        (\w+): (.*)\n", block[1]))


def inputs() -> dict[str, str]:
    """By input of the action, its default."""
    block = re.search(r"^inputs:\n((?:  .*\n)+)", ACTION, re.MULTILINE)
    assert block is not None
    pattern = r'  (\w+):\n    description: .+\n    default: "?(\w*)"?\n'
    found = dict(re.findall(pattern, block[1]))
    assert len(found) == len(re.findall(r"^  \w+:$", block[1], re.MULTILINE))
    return found


def run_action(folder: Path, **given: str | Path) -> tuple[int, str, str]:
    """Run the action's script as GitHub does; exit code, output, and the job's summary."""
    values = {**inputs(), **{key: str(value) for key, value in given.items()}}
    filled = {
        variable: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: values[m[1]], text)
        for variable, text in environment("Run").items()
    }
    script = textwrap.dedent(step("Run").partition("      run: |\n")[2])
    (folder / "script.sh").write_text(script, encoding="utf-8")
    summary = folder / "summary.md"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", folder / "script.sh"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **filled,
            "GITHUB_STEP_SUMMARY": str(summary),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
    )
    text = summary.read_text(encoding="utf-8") if summary.exists() else ""
    return done.returncode, done.stdout + done.stderr, text


def test_the_action_converts_and_then_checks(tmp_path: Path) -> None:
    code, out, summary = run_action(tmp_path, model=FACE, output="dense.onnx", args="--seed 3")
    assert code == 0, out
    assert summary.startswith(f"## fc2conv: {FACE}")
    code, out, summary = run_action(
        tmp_path, reference=FACE, converted="dense.onnx", args="--expect map  --seed 4 "
    )
    assert code == 0, out
    assert "## fc2conv check: " in summary.split("## fc2conv:", 1)[1], "the summary is appended to"
    assert "**equivalent: a map of windows at any size**" in summary


def test_the_action_fails_with_a_summary_where_the_models_differ(tmp_path: Path) -> None:
    code, out, summary = run_action(
        tmp_path, reference=FACE, converted=FACE, args="--expect map --quiet"
    )
    assert code == 1, out
    assert "**not equivalent**" in summary


def test_the_action_fails_without_models(tmp_path: Path) -> None:
    code, out, summary = run_action(tmp_path, model=FACE)
    assert (code, summary) == (2, "")
    assert out == "fc2conv: give reference and converted, or model and output\n"


def test_names_and_options_are_not_run_as_a_script(tmp_path: Path) -> None:
    for harmful in ("$(touch broken)", "`touch broken`", "x; touch broken", "a b*.onnx"):
        code, _, _ = run_action(tmp_path, reference=harmful, converted=FACE, args=harmful)
        assert code == 2
    assert not (tmp_path / "broken").exists()
    assert "${{" not in step("Run").partition("run: |")[2]
    assert "${{" not in step("Install").partition("run: ")[2]


def test_the_action_installs_itself_and_nothing_else(tmp_path: Path) -> None:
    line = re.search(r"run: (.*)", step("Install"))
    assert line is not None
    assert environment("Install") == {"FC2CONV": "${{ github.action_path }}[${{ inputs.extra }}]"}
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", line[1]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "FC2CONV": "/with space/it[cpu]"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["-m", "pip", "install", "/with space/it[cpu]"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = project["optional-dependencies"][inputs()["extra"]]
    assert all(requirement.startswith("onnxruntime>=") for requirement in brought)


def hooks() -> dict[str, dict[str, str]]:
    """The hooks by id."""
    found = [dict(re.findall(r"^[- ] (\w+): (.*)$", h, re.M)) for h in HOOKS.split("\n- ")[1:]]
    ids = re.findall(r"^- id: (.*)$", HOOKS, re.MULTILINE)
    return dict(zip(ids, found, strict=True))


HOOK_ARGUMENTS = {"fc2conv-check": [FACE, FACE], "fc2conv-inspect": [DIGITS]}


@pytest.mark.parametrize("name", HOOK_ARGUMENTS)
def test_a_hook_runs_its_entry_with_the_users_arguments(name: str) -> None:
    """pre-commit passes ``args`` and, where pass_filenames is true, what changed."""
    hook = hooks()[name]
    assert hook["pass_filenames"] == "false"
    assert re.search(hook["files"], "models/classifier.onnx")
    program, *arguments = shlex.split(hook["entry"])
    assert f'{program} = "onnx_fc2conv.__main__:{program}"' in (ROOT / "pyproject.toml").read_text()
    command = [sys.executable, "-m", "onnx_fc2conv", *arguments, *HOOK_ARGUMENTS[name]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, check=False, env=environment).returncode == 0


def test_all_hooks_are_tested() -> None:
    assert set(hooks()) == set(HOOK_ARGUMENTS)
    for hook in hooks().values():
        assert set(hook) >= {"name", "description", "entry", "language", "files"}
        assert hook["language"] == "python"
