"""Commands where what Windows lacks is taken away; see tests/windows/sitecustomize.py."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_fc2conv.benchmark import worker
from onnx_fc2conv.files.embedded import read_model
from onnx_fc2conv.runtime import start
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.scanning import pyramid
from onnx_fc2conv.scanning.sources import ArraySource
from tests.cli.conftest import MODELS
from tests.windows.sitecustomize import guarded, is_open

FACE, DIGITS = MODELS / "face25.onnx", MODELS / "digits8.onnx"
WINDOWS = Path(__file__).with_name("windows")


def on_windows(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from onnx_fc2conv.__main__ import {program} as p; p()"]
    paths = os.pathsep.join(map(str, (WINDOWS, MODELS.parent)))
    return subprocess.run(
        [*command, *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def external(folder: Path) -> Path:
    """The model with its weights beside it."""
    folder.mkdir()
    path = folder / "in.onnx"
    onnx.save(onnx.load(FACE), path, save_as_external_data=True, location="w", size_threshold=256)
    return path


CONVERSIONS: dict[str, tuple[str, list[str], list[str]]] = {
    "checked": ("fc2conv", ["out.onnx"], ["out.onnx"]),
    "detector": ("fc2conv", ["out.onnx", "--detector", "--background", "0"], ["out.onnx"]),
    "patches": ("conv2fc", ["out.onnx"], ["out.onnx"]),
    "arrays": ("conv2fc", ["out.npz", "--form", "sparse"], ["out.npz"]),
}


@pytest.mark.parametrize(("program", "words", "files"), CONVERSIONS.values(), ids=CONVERSIONS)
def test_a_model_that_was_checked_is_written(
    program: str, words: list[str], files: list[str], tmp_path: Path
) -> None:
    out, *options = words
    for overwrite in ((), ("--overwrite",)):
        done = on_windows(program, FACE, tmp_path / out, *options, *overwrite)
        assert (done.returncode, done.stderr) == (0, "")
        assert names(tmp_path) == files


def test_a_model_with_its_data_is_replaced(tmp_path: Path) -> None:
    source, out = external(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    for data in ("out.onnx.data", "out.onnx.2.data", "out.onnx.data"):
        done = on_windows("fc2conv", source, out / "out.onnx", "--overwrite")
        assert (done.returncode, done.stderr) == (0, "")
        assert names(out) == ["out.onnx", data]
    # A file of another data file's name: the present one is read, to see what it uses.
    (tmp_path / "one").mkdir()
    for file in (FACE, DIGITS):
        (tmp_path / "one" / "out.onnx.data").write_bytes(b"somebody's")
        done = on_windows("fc2conv", file, tmp_path / "one" / "out.onnx", "--overwrite")
        assert (done.returncode, done.stderr) == (0, "")


def test_what_differs_is_gone(tmp_path: Path) -> None:
    done = on_windows("fc2conv", FACE, tmp_path / "out.onnx", "--rtol", "0")
    assert (done.returncode, names(tmp_path)) == (1, [])


def test_a_scan_is_written_again(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((60, 70), np.uint8))
    words = ("scan", FACE, tmp_path / "*.npy", "-o", tmp_path / "out", "--scales", "1,0.5")
    for options in ((), ("--overwrite",)):
        done = on_windows("fc2conv", *words, "--memory", "500kB", *options)
        assert (done.returncode, done.stderr) == (0, "")
    assert "image.journal" not in names(tmp_path / "out")


def test_a_benchmark_does_not_know_the_load(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    options = ("--size", "12,12", "--repeats", "1", "--json", file)
    done = on_windows("fc2conv", "bench", DIGITS, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "load of the machine unknown before, unknown after" in done.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["load_average"] == [None, None]


def test_peak_memory_is_asked_of_psapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that fills in the structure by the offsets of psapi.h, of 64 bits."""

    def info(process: int, counters: Any, size: int) -> int:
        assert (process, size) == (-1, 72)
        ctypes.c_uint64.from_address(ctypes.addressof(counters._obj) + 8).value = 123 << 32
        return 1

    kernel = SimpleNamespace(
        GetCurrentProcess=_Function(lambda: -1), K32GetProcessMemoryInfo=_Function(info)
    )
    monkeypatch.setattr(ctypes, "WinDLL", lambda _, use_last_error: kernel, raising=False)
    assert worker._peak_working_set() == 123 << 32


class _Function:
    """A function of a library, which is told its types."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open files can be neither replaced nor deleted, in this process."""
    for name, own in guarded().items():
        monkeypatch.setattr(os, name, own)


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("fails", [False, True])
def test_a_resized_image_leaves_no_file(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(pyramid, "_IN_MEMORY", 0)
    source = ArraySource(np.zeros((40, 50, 1), np.uint8))
    if fails:
        monkeypatch.setattr(pyramid, "_rounded", lambda *_: np.zeros(()) / 0)
        with pytest.raises(FloatingPointError), np.errstate(all="raise"):
            pyramid.resized(source, 0.5)
    else:
        small = pyramid.resized(source, 0.5)
        assert small.read(slice(0, 20), slice(0, 25)).shape == (20, 25, 1)
        assert len(names(tmp_path)) == 1
        del small
    gc.collect()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("locked")
def test_weights_that_a_session_maps_are_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(start, "INLINE_LIMIT", 0)
    first = Session(read_model(FACE))
    (folder,) = tmp_path.iterdir()
    assert is_open(folder / "weights"), "onnxruntime maps no weights: this test has no point"
    del first
    second = Session(read_model(DIGITS))
    assert not folder.exists()
    assert len(names(tmp_path)) == 1
    del second
    start._delete()  # as in the end
    assert names(tmp_path) == []
