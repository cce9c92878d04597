"""Bad files give one clear line, exit 2 or 3, no traceback and no output file."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import MODELS, Run

FACE25 = MODELS / "face25.onnx"


def _missing(path: Path) -> None:
    """Nothing is there."""


def _empty(path: Path) -> None:
    path.touch()


def _directory(path: Path) -> None:
    path.mkdir()


def _random_bytes(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(4096))


def _text(path: Path) -> None:
    path.write_text("this is not a model\n")


def _truncated(path: Path) -> None:
    path.write_bytes(FACE25.read_bytes()[:100_000])


def _external_data_missing(path: Path) -> None:
    model = onnx.load(FACE25)
    onnx.save(model, path, save_as_external_data=True, location="gone.data", size_threshold=0)
    path.with_name("gone.data").unlink()


def _external_data_outside(path: Path) -> None:
    model = onnx.load(FACE25)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../outside.bin")
    path.write_bytes(model.SerializeToString())


def _unknown_input(path: Path) -> None:
    model = onnx.load(FACE25)
    model.graph.node[0].input[0] = "nowhere"
    path.write_bytes(model.SerializeToString())


def _cycle(path: Path) -> None:
    model = onnx.load(FACE25)
    model.graph.node[0].input[0] = model.graph.node[3].output[0]
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "make",
    [
        _missing,
        _empty,
        _directory,
        _random_bytes,
        _text,
        _truncated,
        _external_data_missing,
        _external_data_outside,
        _unknown_input,
        _cycle,
    ],
    ids=lambda make: make.__name__.strip("_"),
)
def test_bad_file(run: Run, tmp_path: Path, make: Callable[[Path], None]) -> None:
    model, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    make(model)
    left = sorted(tmp_path.iterdir())
    for command in ((model, out), ("inspect", model)):
        result = run(*command)
        assert result.code == 2
        assert len(result.error_lines) == 1, result.err
        assert "model.onnx" in result.err
        assert "Traceback" not in result.err
        assert sorted(tmp_path.iterdir()) == left


def test_a_text_model_has_nothing_to_convert(run: Run, tmp_path: Path) -> None:
    """Embedding → Gemm on token ids: no image input."""
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"], "embed"),
            helper.make_node("MatMul", ["embedded", "weight"], ["scores"], "classify"),
        ],
        "text",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N", 16])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", 16, 4])],
        [
            onnx.numpy_helper.from_array(np.ones((100, 8), np.float32), "table"),
            onnx.numpy_helper.from_array(np.ones((8, 4), np.float32), "weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "text.onnx")
    result = run(tmp_path / "text.onnx", tmp_path / "out.onnx")
    assert result.code == 3
    assert "nothing-to-convert" in result.err
    assert "classify" in result.err
    assert not (tmp_path / "out.onnx").exists()


def test_an_output_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    assert "does not exist" in run(FACE25, tmp_path / "no" / "out.onnx").err
    result = run(FACE25, tmp_path)
    assert result.code == 2
    assert "is a directory" in result.err
