"""Files beyond what one protobuf holds (2 GB), with the limit set low."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence import check
from onnx_fc2conv.files import staging
from onnx_fc2conv.pipeline import convert
from onnx_fc2conv.runtime import start
from tests.cli.conftest import Run, run
from tests.nets import Net, session
from tests.oracle import converted_model

__all__ = ["run"]

LIMIT = 1 << 10


def embedded(folder: Path, name: str = "model.onnx") -> Path:
    """Weights of some kilobytes in the model itself, in another order than the kernel's."""
    net = Net()
    y = net.op("Transpose", net.trunk(), perm=[0, 2, 3, 1], shape=(3, 4, 3))
    model = net.model(net.fc(net.op("Relu", net.fc(net.flat(y), 40), shape=(40,)), 4))
    onnx.save(model, folder / name)
    return folder / name


def external(folder: Path, location: str, *, front: int = 0) -> Path:
    """The same, with its weights in a file of their own: in a folder, or behind other bytes."""
    file = embedded(folder)
    model = onnx.load(file)
    (folder / location).parent.mkdir(exist_ok=True)
    with (folder / location).open("wb") as data:
        data.write(bytes(front))
        for tensor in model.graph.initializer:
            offset = data.tell()
            content = tensor.raw_data
            data.write(content + bytes(-len(content) % 64))
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (
                ("location", location),
                ("offset", offset),
                ("length", len(content)),
            ):
                tensor.external_data.add(key=key, value=str(value))
    onnx.save(model, file)
    return file


LOCATIONS = {
    "beside": ("weights.bin", 0),
    "below": ("weights/all.bin", 0),
    "behind-other-bytes": ("weights.bin", 4096),
    "name-in-unicode": ("веса.bin", 64),
}


@pytest.mark.parametrize("name", LOCATIONS)
def test_external_data(name: str, run: Run, tmp_path: Path) -> None:
    location, front = LOCATIONS[name]
    source = external(tmp_path, location, front=front)
    out = tmp_path / "out.onnx"
    outcome = run(source, out)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out.onnx.data").exists()
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 2, 8, 10)).astype(np.float32)}
    whole, made = (session(onnx.load(file))(feeds)["y"] for file in (source, out))
    np.testing.assert_allclose(made.reshape(whole.shape), whole, rtol=1e-5, atol=1e-5)


def test_a_result_too_large_for_one_file_is_written_in_two(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "INLINE_LIMIT", LIMIT)
    monkeypatch.setattr(start, "INLINE_LIMIT", LIMIT)
    source, out = embedded(tmp_path), tmp_path / "out.onnx"
    outcome = run(source, out)
    assert outcome.code == 0, outcome.err
    assert "its weights are in out.onnx.data" in outcome.out
    assert out.stat().st_size < (tmp_path / "out.onnx.data").stat().st_size
    assert check(source, out)


def test_a_small_result_is_one_file(run: Run, tmp_path: Path) -> None:
    source, out = embedded(tmp_path), tmp_path / "out.onnx"
    outcome = run(source, out)
    assert outcome.code == 0, outcome.err
    assert "out.onnx.data" not in outcome.out
    assert not (tmp_path / "out.onnx.data").exists()


def test_the_check_hands_large_models_over_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in memory has no file, and one protobuf holds 2 GB at most."""
    source = ir.load(embedded(tmp_path))
    converted = converted_model(convert(source))
    files: list[Path] = []
    save = ir.save

    def saved(model: ir.Model, file: Path, **options: str) -> None:
        files.append(file)
        save(model, file, **options)

    monkeypatch.setattr(start, "INLINE_LIMIT", LIMIT)
    monkeypatch.setattr(start.ir, "save", saved)
    assert check(source, converted)
    assert files
    assert not any(file.exists() for file in files)
