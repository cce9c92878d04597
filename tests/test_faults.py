"""What a run needs breaks: one line, IN as it was, OUT absent, old or whole.

tools/faults.py does this at random moments.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import onnx
import pytest

from onnx_fc2conv.files import staging
from tests.cli.conftest import MODELS, Run, run
from tests.files.test_reading import contents, with_external_data

__all__ = ["run"]

FACE = MODELS / "face25.onnx"
POSIX = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")


def source(folder: Path, *, external: bool) -> Path:
    inner = folder / "in"
    inner.mkdir()
    return with_external_data(inner) if external else Path(shutil.copy(FACE, inner / "face.onnx"))


def start(*arguments: str | Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, after some statements."""
    code = f"{before}\nimport sys\nfrom onnx_fc2conv.__main__ import fc2conv\nfc2conv()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
    )


def before_imports(statements: str) -> str:
    """Statements that run before each import of a module ``name``."""
    return f"""
import builtins, signal, sys
plain, done = builtins.__import__, []
def imported(name, *rest):
{indent(statements, "    ")}
    return plain(name, *rest)
import onnx_fc2conv.__main__
builtins.__import__ = imported"""


@POSIX
@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
@pytest.mark.parametrize("old", [False, True], ids=["absent", "old"])
@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_no_space(size: int, old: bool, external: bool, tmp_path: Path) -> None:
    """A file cannot be longer than this."""
    model, out = source(tmp_path, external=external), tmp_path / "out.onnx"
    if old:
        shutil.copy(FACE, out)
    before = contents(tmp_path)
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    )
    result = start(model, out, "--no-check", "--quiet", "--overwrite", before=limit)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [f"fc2conv: cannot write {out}: File too large"]
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".fc2conv-*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_may_not_be_written(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir(mode=0o500)
    result = run(FACE, folder / "out.onnx", "--no-check")
    assert result.code == 2
    assert "Permission denied" in result.err
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["in/face.onnx", "in/../in/face.onnx", "link.onnx", "hard.onnx"])
def test_out_is_in(name: str, run: Run, tmp_path: Path) -> None:
    model = source(tmp_path, external=True)
    (tmp_path / "link.onnx").symlink_to(model)
    (tmp_path / "hard.onnx").hardlink_to(model)
    before = contents(tmp_path)
    result = run(model, tmp_path / name, "--overwrite")
    assert result.code == 2
    assert result.error_lines == [
        "fc2conv: OUT is IN; an input is never changed, give another name"
    ]
    assert contents(tmp_path) == before


def test_out_is_the_data_file_of_in(run: Run, tmp_path: Path) -> None:
    model = source(tmp_path, external=True)
    before = contents(tmp_path)
    result = run(model, model.with_name("face.onnx.data"), "--overwrite", "--no-check")
    assert result.code == 2
    assert contents(tmp_path) == before


def test_out_of_memory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(staging, "write_model", full)
    result = run(FACE, tmp_path / "out.onnx", "--no-check")
    assert result.code == 2
    assert result.error_lines == ["fc2conv: out of memory"]
    assert not list(tmp_path.iterdir())


def pressed(*_: object, **__: object) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", ["write_model", "_put_in_place", "data_beside"])
def test_ctrl_c(step: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(staging, step, pressed)
    result = run(FACE, tmp_path / "out.onnx", "--no-check")
    assert result.code == 130
    assert result.error_lines == ["fc2conv: interrupted"]
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) == handler


def test_ctrl_c_that_became_another_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extension modules make an ImportError of it."""

    def imported(*_: object) -> None:
        try:
            pressed()
        except BaseException as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr(staging, "write_model", imported)
    result = run(FACE, tmp_path / "out.onnx", "--no-check")
    assert (result.code, result.error_lines) == (130, ["fc2conv: interrupted"])


@POSIX
@pytest.mark.parametrize("when", ["onnx_fc2conv.cli", "numpy", "onnx_fc2conv.files.staging"])
def test_ctrl_c_while_modules_are_imported(when: str, tmp_path: Path) -> None:
    hook = before_imports(
        f"if name.startswith({when!r}) and not done:\n"
        "    done.append(name)\n"
        "    signal.raise_signal(signal.SIGINT)"
    )
    result = start(FACE, tmp_path / "out.onnx", before=hook)
    assert (result.returncode, result.stderr) == (130, "fc2conv: interrupted\n")
    assert not list(tmp_path.iterdir())


@POSIX
def test_ctrl_c_while_an_extension_module_begins(tmp_path: Path) -> None:
    """onnx's aborts the process at any exception while it makes its enums."""
    hook = before_imports(
        "if name == 'enum' and sys._getframe(1).f_code.co_name == '_call_with_frames_removed':\n"
        "    signal.raise_signal(signal.SIGINT)"
    )
    result = start(FACE, tmp_path / "out.onnx", before=hook)
    assert (result.returncode, result.stderr) == (130, "fc2conv: interrupted\n")
    assert not list(tmp_path.iterdir())


@POSIX
@pytest.mark.parametrize("moment", ["write_model", "_put_in_place", "data_beside"])
def test_a_kill_leaves_the_old_model(moment: str, tmp_path: Path) -> None:
    model, out = source(tmp_path, external=False), tmp_path / "out.onnx"
    shutil.copy(MODELS / "digits8.onnx", out)
    before = [file.read_bytes() for file in (model, out)]
    kill = (
        "import os, signal, onnx_fc2conv.files.staging as staging\n"
        f"staging.{moment} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = start(model, out, "--no-check", "--overwrite", before=kill)
    assert result.returncode == -signal.SIGKILL
    assert [file.read_bytes() for file in (model, out)] == before


@POSIX
@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["new", "overwrite"])
def test_two_at_once(more: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    code = "from onnx_fc2conv.__main__ import fc2conv; fc2conv()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(model), str(out), "--no-check", "--quiet", *more],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
        )
        for model in (FACE, MODELS / "digits8.onnx")
    ]
    errors = [process.communicate()[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes == ([0, 0] if more else [0, 2]), errors
    onnx.checker.check_model(str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


@POSIX
@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("onnx_fc2conv.cli", "MemoryError"),
        ("onnx_fc2conv.cli.console", "MemoryError"),
        ("onnx_fc2conv.cli.console", 'RuntimeError("can\'t start new thread")'),
    ],
)
def test_memory_that_is_too_short_to_import(module: str, error: str, tmp_path: Path) -> None:
    hook = before_imports(f"if name == {module!r}:\n    raise {error}")
    result = start(FACE, tmp_path / "out.onnx", before=hook)
    assert (result.returncode, result.stderr) == (2, "fc2conv: out of memory\n")
    assert not list(tmp_path.iterdir())
