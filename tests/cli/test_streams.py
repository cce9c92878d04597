"""Whatever takes what is printed: the files that are written and the exit code are the same."""

from __future__ import annotations

import ast
import errno
import fcntl
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_fc2conv
from onnx_fc2conv.streams import STAND_INS, lasting_streams
from tests.cli.conftest import MODELS

FACE, DIGITS = MODELS / "face25.onnx", MODELS / "digits8.onnx"
FC2CONV = [sys.executable, "-m", "onnx_fc2conv"]
CONV2FC = [sys.executable, "-c", "from onnx_fc2conv.__main__ import conv2fc; conv2fc()"]
REPORTS = ("report.json", "report.md", "report.xml")

ENCODINGS = ["ascii", "cp1252", "cp437", "latin-1", "cp932", "utf-16"]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def program(
    words: Sequence[str | bytes | Path], env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """A program in a process of its own, with these environment variables too."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = {**os.environ, **(env or {})}
    return subprocess.run([*words], check=False, env=given, **(pipes | options))  # type: ignore[call-overload]


def in_shell(redirections: str, words: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
    return program(["sh", "-c", f'exec "$@" {redirections}', "sh", *words])


def conversion(out: Path) -> list[str | Path]:
    """A command that writes a model and a report."""
    return [*FC2CONV, FACE, out / "out.onnx", "--no-check", "--report", out / "report.md"]


def written(folder: Path) -> dict[str, bytes]:
    """The files, without what they say of where they lie."""
    return {
        path.name: path.read_bytes().replace(os.fsencode(folder), b"")
        for path in folder.iterdir()
        if path.is_file()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a conversion writes where nothing is special."""
    folder = tmp_path_factory.mktemp("expected")
    done = program(conversion(folder))
    assert (done.returncode, done.stderr) == (0, b"")
    assert "48×24×6×6" in (folder / "report.md").read_text(encoding="utf-8")
    return written(folder)


# Encodings


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_changes_what_is_printed_only(
    encoding: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    done = program(conversion(tmp_path), {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr.decode(encoding)) == (0, "")
    assert written(tmp_path) == expected
    text = done.stdout.decode(encoding)
    assert re.search("Gemm node_linear +48[×x]864 +(→|->) Conv 48[×x]24[×x]6[×x]6", text)


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "cp1252"}, C_LOCALE], ids=["cp1252", "C"])
def test_a_check_has_its_marks_in_ascii(env: dict[str, str]) -> None:
    same = program([*FC2CONV, "check", DIGITS, DIGITS], env)
    assert same.returncode == 0
    assert b"  ok native: " in same.stdout
    other = program([*FC2CONV, "check", DIGITS, MODELS / "digits_page.onnx"], env)
    assert other.returncode == 1
    assert b"  FAILED " in other.stdout
    assert b"digits_page.onnx is not equivalent to " in other.stderr


COMMANDS: dict[str, tuple[list[str | Path], int]] = {
    "nothing": ([*FC2CONV], 2),
    "help": ([*FC2CONV, "--help"], 0),
    "version": ([*FC2CONV, "--version"], 0),
    **{f"{name}-help": ([*FC2CONV, name, "-h"], 0) for name in ("convert", "check", "inspect")},
    **{f"{name}-help": ([*FC2CONV, name, "-h"], 0) for name in ("scan", "bench")},
    "conv2fc-help": ([*CONV2FC, "--help"], 0),
    "inspect": ([*FC2CONV, "inspect", FACE], 0),
    "refused": ([*FC2CONV, "inspect", MODELS / "dress64x128.onnx", "--stride", "7"], 2),
    "bench": ([*FC2CONV, "bench", DIGITS, "--size", "10,10", "--repeats", "1"], 0),
    "conv2fc": ([*CONV2FC, DIGITS, "no.onnx", "--dry-run"], 0),
    "usage": ([*FC2CONV, "convert", FACE, "out.onnx", "--größe"], 2),
    "command": ([*FC2CONV, "inspect", "→ 模型.onnx"], 2),
}


@pytest.mark.parametrize(("words", "code"), COMMANDS.values(), ids=COMMANDS)
def test_every_command_prints_in_ascii(words: list[str | Path], code: int, tmp_path: Path) -> None:
    done = program(words, {"PYTHONIOENCODING": "ascii"}, cwd=tmp_path)
    text = (done.stdout + done.stderr).decode("ascii")
    assert (done.returncode, "internal error" in text) == (code, False), text
    assert text


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_scan_writes_the_same_boxes(encoding: str, tmp_path: Path) -> None:
    np.save(tmp_path / "größe ≈ 模.npy", np.zeros((30, 40), np.uint8))
    results = []
    for name in ("utf-8", encoding):
        words = ["scan", FACE, "größe ≈ 模.npy", "-o", name, "--threshold", "0.1"]
        done = program([*FC2CONV, *words], {"PYTHONIOENCODING": name}, cwd=tmp_path)
        assert (done.returncode, done.stderr.decode(name)) == (0, "")
        results.append(written(tmp_path / name))
    assert results[0] == results[1]
    assert "größe ≈ 模.npy" in results[0]["boxes.csv"].decode("utf-8")
    assert ("~" in done.stdout.decode(encoding)) is (encoding == "cp1252")


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "utf-16"])
def test_json_is_json_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    model = onnx.load(FACE)
    for node in model.graph.node:
        node.name += " größe → 模"
    onnx.save(model, tmp_path / "größe.onnx")
    done = program(
        [*FC2CONV, "inspect", "größe.onnx", "--json"], {"PYTHONIOENCODING": encoding}, cwd=tmp_path
    )
    found = json.loads(done.stdout.decode(encoding))
    assert found["heads"][0]["node"].endswith(" größe → 模")


@pytest.mark.parametrize("env", [{}, C_LOCALE], ids=["utf-8", "C"])
def test_a_name_that_is_no_text(
    env: dict[str, str], expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Names of files are bytes on Linux; in the C locale those beyond ASCII are no text."""
    folder = tmp_path / os.fsdecode(b"na\xefve")
    folder.mkdir()
    source = folder / os.fsdecode(b"\xfcber.onnx")
    source.write_bytes(FACE.read_bytes())
    reports = [word for name in REPORTS for word in ("--report", folder / name)]
    done = program([*FC2CONV, source, folder / os.fsdecode(b"o\xfct.onnx"), *reports], env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"o\\udcfct.onnx (equivalent)" in done.stdout
    assert (folder / os.fsdecode(b"o\xfct.onnx")).read_bytes() == expected["out.onnx"]
    for name in REPORTS:
        assert "ber.onnx" in (folder / name).read_bytes().decode("utf-8")
    # External data beside it; a model cannot name a data file of such a name.
    onnx.save(onnx.load(FACE), tmp_path / "in.onnx", save_as_external_data=True, location="w")
    for name in ("in.onnx", "w"):
        (tmp_path / name).rename(folder / name)
    assert program([*FC2CONV, folder / "in.onnx", folder / "out.onnx"], env).returncode == 0
    unnamed = program([*FC2CONV, folder / "in.onnx", folder / os.fsdecode(b"\xff.onnx")], env)
    assert unnamed.returncode == 2
    assert b"the name is no UTF-8" in unnamed.stderr
    missing = program([*FC2CONV, folder / os.fsdecode(b"\xff.onnx"), "out.onnx"], env)
    assert missing.returncode == 2
    assert missing.stderr.endswith(b"na\\udcefve/\\udcff.onnx: No such file or directory\n")


def test_every_character_that_the_program_prints_has_a_stand_in() -> None:
    printed: dict[str, str] = {}
    for file in Path(onnx_fc2conv.__file__).parent.rglob("*.py"):
        if file.name in ("streams.py", "junit.py"):  # the table, and what XML cannot hold
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        expressions = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        documentation = set() if file.parent.name == "cli" else expressions  # there it is the help
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in documentation:
                printed |= {c: file.name for c in text if not c.isascii() and c.isprintable()}
    assert printed.keys() <= STAND_INS.keys()
    assert all(text.isascii() for text in STAND_INS.values())


# Readers that go, streams that are closed, disks that are full


@pytest.mark.parametrize("lines", [0, 1, 1000], ids=["start", "middle", "end"])
def test_a_reader_that_goes(lines: int, expected: dict[str, bytes], tmp_path: Path) -> None:
    words = conversion(tmp_path)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    if lines:
        for _, _line in zip(range(lines), process.stdout, strict=False):
            pass
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (0, b"")
    assert written(tmp_path) == expected


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["check", DIGITS, MODELS / "digits_page.onnx"], 1),
        (["inspect", "missing.onnx"], 2),
        (["inspect", MODELS / "digits8.onnx", "--pool", "sideways"], 2),
        (["inspect", FACE, "--json"], 0),
        (["--help"], 0),
    ],
    ids=["different", "missing", "usage", "json", "help"],
)
def test_an_exit_code_stays(stream: str, words: list[str | Path], code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = program([*FC2CONV, *words], **{stream: write})
    finally:
        os.close(write)
    assert done.returncode == code
    assert b"Exception ignored" not in (done.stderr or b"")
    assert b"Errno" not in (done.stdout or b"") + (done.stderr or b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, expected: dict[str, bytes], tmp_path: Path) -> None:
    done = in_shell(closed, conversion(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert written(tmp_path) == expected


def test_no_file_is_taken_for_a_closed_stream(tmp_path: Path) -> None:
    """A library that logs to descriptor 2 would write into the first file opened."""
    script = (
        "from onnx_fc2conv.__main__ import _program\n"
        "with _program('x'), open('first', 'w') as file:\n"
        "    file.write(str(file.fileno() > 2))"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    words = ["sh", "-c", f"cd {tmp_path} && exec {sys.executable} {path} <&- >&- 2>&-"]
    assert program(words, {"PYTHONPATH": str(MODELS.parent)}).returncode == 0
    assert (tmp_path / "first").read_text() == "True"


def test_a_log_on_a_full_disk_is_no_fault_of_the_model(
    expected: dict[str, bytes], tmp_path: Path
) -> None:
    done = in_shell(">/dev/full", conversion(tmp_path))
    assert (done.returncode, done.stderr) == (
        0,
        b"fc2conv: standard output: No space left on device\n",
    )
    assert written(tmp_path) == expected
    assert in_shell("2>/dev/full", [*FC2CONV, "missing.onnx", "out.onnx"]).returncode == 2


def test_a_log_ends_where_the_disk_was_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FullForAMoment(io.RawIOBase):
        taken = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if bytes(data) == b"two\n":
                raise OSError(errno.ENOSPC, "No space left on device")
            self.taken += bytes(data)
            return len(data)

    raw = FullForAMoment()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw)))
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # put back in the end
    with lasting_streams("fc2conv"):
        for line in ("one", "two", "three"):
            print(line, flush=True)
    assert raw.taken == b"one\n"
    assert capsys.readouterr().err == "fc2conv: standard output: No space left on device\n"


def test_a_document_on_a_full_disk_is_an_error() -> None:
    done = in_shell(">/dev/full", [*FC2CONV, "inspect", FACE, "--json"])
    assert done.returncode == 2
    assert done.stderr == b"fc2conv: standard output: No space left on device\n"


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    words = [*FC2CONV, "convert", "--help"]
    expected_text = program(words).stdout
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    assert size < len(expected_text)
    os.set_blocking(write, False)
    with subprocess.Popen(words, stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        pending = bytearray(4)
        while process.poll() is None and int.from_bytes(pending, sys.byteorder) < size // 2:
            time.sleep(0.01)
            fcntl.ioctl(read, termios.FIONREAD, pending)
        time.sleep(0.5)  # it has run into the full pipe
        found = b"".join(iter(lambda: os.read(read, 65536), b""))
        os.close(read)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert (process.returncode, found) == (0, expected_text)


def test_progress_on_a_terminal_that_knows_ascii_only(
    expected: dict[str, bytes], tmp_path: Path
) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "xterm"}
    np.save(tmp_path / "image.npy", np.zeros((30, 40), np.uint8))
    for words in (conversion(tmp_path), [*FC2CONV, "scan", FACE, "image.npy", "-o", "found"]):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=theirs, env=env, cwd=tmp_path
        ) as process:
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # so Linux says that the other end is closed
                while more := os.read(ours, 65536):
                    shown += more
        os.close(ours)
        assert process.returncode == 0
        assert shown.isascii()
        assert b"Reading" in shown
        assert b"\\u28" not in shown
    assert {name: written(tmp_path)[name] for name in expected} == expected
