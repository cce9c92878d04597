"""Whatever is wrong with a model file is one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.files.reading import as_model, load
from tests.nets import Net

FACE = Path(__file__).parents[2] / "models" / "face25.onnx"
SIZE = FACE.stat().st_size


def with_external_data(folder: Path, name: str = "face.onnx") -> Path:
    """The model with its weights in a file of their own."""
    file = folder / name
    onnx.save(
        onnx.load(FACE), file, save_as_external_data=True, location=f"{name}.data", size_threshold=0
    )
    return file


def moved_weights(folder: Path, location: str) -> Path:
    """The model that says its weights lie elsewhere."""
    file = with_external_data(folder)
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(model, file)
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outputs(file: Path) -> list[np.ndarray]:
    import onnxruntime as ort  # noqa: PLC0415 - only these tests run models

    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((2, 1, 25, 25), np.float32)
    return session.run(None, {"image": image})


def written(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = folder / "model.onnx"
        file.write_bytes(content)
        return file

    return make


def as_text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = folder / name
        file.write_text(text)
        return file

    return make


def outside(folder: Path) -> Path:
    """The data file exists, beside the folder of the model."""
    inner = folder / "inner"
    inner.mkdir()
    file = moved_weights(inner, "../face.onnx.data")
    shutil.move(inner / "face.onnx.data", folder)
    return file


def hidden_outside(folder: Path) -> Path:
    inner = folder / "inner"
    (inner / "deeper").mkdir(parents=True)
    file = moved_weights(inner, "deeper/../../face.onnx.data")
    shutil.move(inner / "face.onnx.data", folder)
    return file


def absolute(folder: Path) -> Path:
    return moved_weights(folder, str(folder / "face.onnx.data"))


def too_short(folder: Path) -> Path:
    file = with_external_data(folder)
    data = folder / "face.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    return file


def without_opset(folder: Path) -> Path:
    model = onnx.load(FACE)
    del model.opset_import[:]
    return written(model.SerializeToString())(folder)


def broken_graph(folder: Path) -> Path:
    model = onnx.load(FACE)
    model.graph.node[0].input[0] = "nowhere"
    return written(model.SerializeToString())(folder)


def unknown_operator(folder: Path) -> Path:
    model = onnx.load(FACE)
    model.graph.node[0].op_type = "Convolve"
    return written(model.SerializeToString())(folder)


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.onnx", "No such file"),
    "nul-in-the-name": (lambda folder: folder / "a\0b.onnx", "embedded null"),
    "directory": (lambda folder: folder, "is a directory"),
    "below-a-file": (lambda _: FACE / "model.onnx", "Not a directory"),
    "empty": (written(b""), "is empty"),
    "random": (written(np.random.default_rng(0).bytes(5000)), "is not an ONNX model"),
    "zeros": (written(bytes(1000)), "is not an ONNX model"),
    "text": (written(b"Dear reader,\nthis is no model.\n"), "is not an ONNX model"),
    "json-named-onnx": (written(b'{\n"a": 1\n}'), "is not an ONNX model"),
    "json": (as_text("model.json", '{\n"a": 1\n}'), "is not an ONNX model"),
    "text-format": (as_text("model.textproto", "one\ntwo"), "is not an ONNX model"),
    "data-missing": (lambda folder: moved_weights(folder, "gone.data"), "gone.data"),
    "data-a-folder": (lambda folder: moved_weights(folder, "."), "not a file"),
    "data-too-short": (too_short, "up to byte"),
    "data-outside": (outside, "outside its own folder"),
    "data-hidden-outside": (hidden_outside, "outside its own folder"),
    "data-absolute": (absolute, "outside its own folder"),
    "no-opset": (without_opset, "is not an ONNX model"),
    "broken-graph": (broken_graph, "is not valid"),
    "unknown-operator": (unknown_operator, "is not valid"),
}
CUTS = (1, 2, 3, 10, 100, 1000, SIZE // 2, SIZE - 100, SIZE - 10, SIZE - 2, SIZE - 1)


def assert_one_line(error: pytest.ExceptionInfo[InvalidModelError], file: Path) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    assert repr(str(file))[1:-1] in message


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_file(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    file = make(tmp_path)
    with pytest.raises(InvalidModelError, match=message) as error:
        load(file)
    assert_one_line(error, file)


@pytest.mark.parametrize("length", CUTS)
def test_truncated_file(length: int, tmp_path: Path) -> None:
    file = written(FACE.read_bytes()[:length])(tmp_path)
    with pytest.raises(InvalidModelError) as error:
        load(file)
    assert_one_line(error, file)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_unreadable_file(tmp_path: Path) -> None:
    file = written(FACE.read_bytes())(tmp_path)
    file.chmod(0)
    with pytest.raises(InvalidModelError, match="Permission denied") as error:
        load(file)
    assert_one_line(error, file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: model.ClearField("graph"),
        lambda model: model.ClearField("opset_import"),
        lambda model: model.graph.node[1].input.__setitem__(0, "nowhere"),
        lambda model: model.graph.initializer[0].dims.append(7),
    ],
    ids=["no-graph", "no-opset", "unconnected", "wrong-dims"],
)
def test_invalid_proto(spoil: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(FACE)
    spoil(model)
    with pytest.raises(InvalidModelError, match="the ModelProto is not") as error:
        as_model(model)
    assert "\n" not in str(error.value)


def test_sources_are_copied() -> None:
    proto = onnx.load(FACE)
    before = proto.SerializeToString()
    for source in (FACE, str(FACE), proto, ir.load(FACE)):
        model = as_model(source)
        model.graph.outputs[0].name = "changed"
    assert proto.SerializeToString() == before


def test_sources_in_external_data_are_mapped(tmp_path: Path) -> None:
    model = load(with_external_data(tmp_path))
    kinds = {type(value.const_value) for value in model.graph.initializers.values()}
    assert kinds == {ir.ExternalTensor}


def test_a_dim_of_minus_one_is_any_length(tmp_path: Path) -> None:
    """Some exporters write it; onnxruntime takes it so too."""
    proto = onnx.load(FACE)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, tmp_path / "face.onnx")
    model = load(tmp_path / "face.onnx")
    assert [list(v.shape or ()) for v in model.graph.inputs] == [[ir.SymbolicDim(None), 1, 25, 25]]
    conversion = convert(model)
    assert conversion.after is not None
    assert conversion.after.inputs["image"][1:] == (1, "H", "W")
    assert check(model, conversion.model or model)


def test_an_output_said_to_be_empty() -> None:
    net = Net()
    proto = net.model(net.head(net.trunk()))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 0
    assert check(proto, convert(proto).model or proto)
