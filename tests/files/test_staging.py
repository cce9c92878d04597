"""What is written is whole, or not there at all; a model is never paired with another's weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.reading import load
from onnx_fc2conv.files.staging import staged
from tests.files.test_reading import FACE, contents, outputs, with_external_data, written


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_staged_writes_a_model_that_loads(external: bool, tmp_path: Path) -> None:
    source = with_external_data(tmp_path) if external else FACE
    before = contents(tmp_path)
    target = tmp_path / "out" / "copy.onnx"
    target.parent.mkdir()
    with staged(target, load(source), overwrite=False) as pending:
        assert not target.exists()
        assert outputs(pending)[0].shape == (2, 2)
    assert sorted(contents(target.parent)) == ["copy.onnx"] + ["copy.onnx.data"] * external
    assert {name: contents(tmp_path)[name] for name in before} == before
    np.testing.assert_array_equal(outputs(target)[0], outputs(FACE)[0])
    assert load(target)
    assert [path.name for path in target.parent.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_staged_keeps_nothing_on_error(external: bool, tmp_path: Path) -> None:
    source = with_external_data(tmp_path) if external else FACE
    before = contents(tmp_path)
    with (
        pytest.raises(RuntimeError, match="not equivalent"),
        staged(tmp_path / "out.onnx", load(source), overwrite=False),
    ):
        raise RuntimeError("not equivalent")
    assert contents(tmp_path) == before
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_staged_keeps_the_old_file_on_error(tmp_path: Path) -> None:
    target = written(b"precious")(tmp_path)
    with pytest.raises(KeyError), staged(target, load(FACE), overwrite=True):
        raise KeyError
    assert contents(tmp_path) == {"model.onnx": b"precious"}


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_staged_over_its_own_source(external: bool, tmp_path: Path) -> None:
    if external:
        file = with_external_data(tmp_path)
    else:
        file = Path(shutil.copy(FACE, tmp_path / "face.onnx"))
    model = load(file)
    model.graph.name = "rewritten"
    with staged(file, model, overwrite=True):
        pass
    assert load(file).graph.name == "rewritten"
    np.testing.assert_array_equal(outputs(file)[0], outputs(FACE)[0])
    # The old data file is what `model` reads from.
    data = ["face.onnx.2.data", "face.onnx.data"] if external else []
    assert sorted(contents(tmp_path)) == sorted(["face.onnx", *data])


def occupied_data(folder: Path) -> Path:
    """The name of the data file is taken by something else."""
    (folder / "out.onnx.data").write_bytes(b"precious")
    return folder / "out.onnx"


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "exists": (written(b"precious"), "exists already"),
    "directory": (lambda folder: folder, "is a directory"),
    "no-folder": (lambda folder: folder / "none" / "out.onnx", "does not exist"),
    "data-exists": (occupied_data, "out.onnx.data exists already"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_staged_refuses(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    target = make(tmp_path)
    model = load(with_external_data(source))
    before = contents(tmp_path)
    with (
        pytest.raises(ArgumentError, match=message) as error,
        staged(target, model, overwrite=False),
    ):
        pytest.fail("the block must not run")
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"source"}


def scaled(folder: Path, name: str, factor: float) -> ir.Model:
    """The model with other weights, in external data."""
    source = folder / name
    source.mkdir()
    model = onnx.load(FACE)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    file = source / "in.onnx"
    onnx.save(model, file, save_as_external_data=True, location="w", size_threshold=256)
    return load(file)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """OUT with its data file."""
    out = tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    with staged(out, scaled(tmp_path, "first", 1), overwrite=False):
        pass
    assert files(out.parent) == ["out.onnx", "out.onnx.data"]
    return out


def test_a_pair_is_replaced_by_a_pair(pair: Path, tmp_path: Path) -> None:
    """The names of the data files take turns, so that a moment between the two is never mixed."""
    for turn, name in enumerate(("out.onnx.2.data", "out.onnx.data"), 2):
        with staged(pair, scaled(tmp_path, f"turn{turn}", turn), overwrite=True):
            pass
        assert files(pair.parent) == sorted(["out.onnx", name])
        np.testing.assert_array_equal(
            outputs(pair)[0], outputs(tmp_path / f"turn{turn}" / "in.onnx")[0]
        )


def test_an_end_at_any_step_leaves_a_whole_pair(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill would leave after each step that changes the folder."""
    model, before = scaled(tmp_path, "second", 2), outputs(pair)[0]
    after = outputs(tmp_path / "second" / "in.onnx")[0]
    seen: list[np.ndarray] = []

    def looked_at(step: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            result = step(*arguments, **options)
            seen.append(outputs(pair)[0])
            return result

        return call

    with staged(pair, model, overwrite=True):
        for name in ("replace", "unlink"):
            monkeypatch.setattr(Path, name, looked_at(getattr(Path, name)))
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(seen, [before, after, after])


def test_an_error_between_the_renames_takes_the_data_file_back(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(pair.parent)
    replace = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target == pair:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with (
        pytest.raises(ArgumentError, match="No space left on device"),
        staged(pair, scaled(tmp_path, "second", 2), overwrite=True),
    ):
        pass
    assert contents(pair.parent) == before
    assert files(pair.parent) == ["out.onnx", "out.onnx.data"]


def test_another_run_was_quicker(pair: Path, tmp_path: Path) -> None:
    slow, quick = scaled(tmp_path, "slow", 2), scaled(tmp_path, "quick", 3)
    with (
        pytest.raises(ArgumentError, match="another run has written"),
        staged(pair, slow, overwrite=True),
        staged(pair, quick, overwrite=True),
    ):
        pass
    np.testing.assert_array_equal(outputs(pair)[0], outputs(tmp_path / "quick" / "in.onnx")[0])
    assert files(pair.parent) == ["out.onnx", "out.onnx.2.data"]


def test_another_run_made_the_same_file_first(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    with (
        pytest.raises(ArgumentError, match="exists already"),
        staged(out, load(FACE), overwrite=False),
    ):
        out.write_bytes(b"theirs")
    assert contents(tmp_path) == {"out.onnx": b"theirs"}


def test_a_pair_becomes_one_file(pair: Path) -> None:
    with staged(pair, load(FACE), overwrite=True):
        pass
    assert files(pair.parent) == ["out.onnx"]


def test_a_data_file_that_the_weights_come_from_stays(tmp_path: Path) -> None:
    """IN keeps its weights under the name that OUT would use."""
    source = tmp_path / "in.onnx"
    onnx.save(onnx.load(FACE), source, save_as_external_data=True, location="out.onnx.data")
    before = contents(tmp_path)
    with staged(tmp_path / "out.onnx", load(source), overwrite=True):
        pass
    assert {name: contents(tmp_path)[name] for name in before} == before
    assert files(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.2.data", "out.onnx.data"]


def test_in_is_never_written_over_in_another_case(tmp_path: Path) -> None:
    """Where case does not count, ``Out.onnx.data`` and ``out.onnx.data`` are one file."""
    source = tmp_path / "in.onnx"
    onnx.save(onnx.load(FACE), source, save_as_external_data=True, location="Out.onnx.data")
    (tmp_path / "out.onnx.data").hardlink_to(tmp_path / "Out.onnx.data")
    before = contents(tmp_path)
    with staged(tmp_path / "out.onnx", load(source), overwrite=True):
        pass
    assert {name: contents(tmp_path)[name] for name in before} == before
    assert set(contents(tmp_path)) == {*before, "out.onnx", "out.onnx.2.data"}
    with (
        pytest.raises(ArgumentError, match="OUT is a file that IN keeps weights in"),
        staged(tmp_path / "out.onnx.data", load(source), overwrite=True),
    ):
        pass


def test_old_weights_that_another_program_reads_stay(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows nobody can delete them; the new model is there all the same."""
    unlink = Path.unlink

    def held(self: Path, missing_ok: bool = False) -> None:
        if self.name == "out.onnx.data":
            raise PermissionError(13, "The file is being used by another process")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    with staged(pair, scaled(tmp_path, "second", 2), overwrite=True):
        pass
    assert files(pair.parent) == ["out.onnx", "out.onnx.2.data", "out.onnx.data"]
    np.testing.assert_array_equal(outputs(pair)[0], outputs(tmp_path / "second" / "in.onnx")[0])
