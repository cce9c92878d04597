"""Models that take long are compared on fewer inputs; no kind is left out, and no fault passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_fc2conv.equivalence import check, pair
from onnx_fc2conv.equivalence.running.native_shapes import native_shapes_of, products_of
from onnx_fc2conv.files.embedded import MappedTensor
from onnx_fc2conv.files.reading import load
from onnx_fc2conv.pipeline import convert
from tests.nets import Net
from tests.oracle import converted_model

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def padded(tmp_path: Path) -> tuple[Path, Path]:
    """A model whose trunk pads, so that cells are not the scores of crops, and its dense one."""
    net = Net()
    kernel = net.rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    x = net.op("Conv", net.x, kernel, pads=[1, 1, 1, 1], shape=(3, 8, 10))
    source, target = tmp_path / "padded.onnx", tmp_path / "dense.onnx"
    onnx.save(net.model(net.fc(net.flat(x), 4)), source)
    ir.save(converted_model(convert(source)), target)
    return source, target


def test_fewer_inputs_of_every_kind(
    padded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def details() -> dict[str, str]:
        report = check(*padded)
        assert report
        return {result.tier: result.detail for result in report.runs[0].results}

    usual = details()
    monkeypatch.setattr(pair, "_HEAVY", 0)
    fewer = details()
    kinds = "4 kinds of input (normal, uniform, image-like, large)"
    assert f"{kinds} at batch 1 and 3" in usual["native"]
    assert f"{kinds}, normal at batch 1 and 3" in fewer["native"]
    assert usual["feature windows"] == fewer["feature windows"]
    assert "over 16 windows" in fewer["image windows"]
    assert "over 16 windows" not in usual["image windows"]


def test_a_fault_in_a_heavy_model(
    padded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "_HEAVY", 0)
    source, target = padded
    model = onnx.load(target)
    kernel = next(t for t in model.graph.initializer if list(t.dims) == [4, 3, 8, 10])
    wrong = numpy_helper.to_array(kernel).copy()
    wrong[:, :, 0, 0], wrong[:, :, 1, 0] = wrong[:, :, 1, 0].copy(), wrong[:, :, 0, 0].copy()
    kernel.CopyFrom(numpy_helper.from_array(wrong, kernel.name))
    onnx.save(model, target)
    report = check(source, target)
    failed = {result.tier for result in report.runs[0].results if result.status == "failed"}
    assert {"weights", "native", "feature windows"} <= failed


def test_shapes_and_products_of_a_model() -> None:
    model = load(MODELS / "face25.onnx")
    shapes = native_shapes_of(model, {"image": (1, 1, 25, 25)})
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    products = sum(
        int(np.prod(shapes[conv.outputs[0].name]) * np.prod(conv.inputs[1].shape[1:]))
        for conv in convolutions
    )
    assert products_of(model, shapes) == products > 0
    assert shapes["scores"] == (1, 2)


def test_released_weights_can_be_read_again(tmp_path: Path) -> None:
    net, file = Net(), tmp_path / "model.onnx"
    model = net.model(net.fc(net.flat(net.trunk()), 1000))
    onnx.save(model, file)
    mapped = [
        value.const_value
        for value in load(file).graph.initializers.values()
        if isinstance(value.const_value, MappedTensor)
    ]
    assert mapped
    for tensor in mapped:
        before = tensor.numpy().copy()
        tensor.release()
        np.testing.assert_array_equal(tensor.numpy(), before)
