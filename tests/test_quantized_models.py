"""Real models, quantized by onnxruntime's own quantizer, convert, prove and slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import onnx_fc2conv
from onnx_fc2conv import RefusedError
from onnx_fc2conv.runtime import byte_products
from tests.nets import Array, op_types, session

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "models"
SOURCES = [ROOT / "models" / "digits8.onnx", ROOT / "models" / "face25.onnx"]
BY_OTHERS = ["onnx2c__cntk_mnist8", "ortoe__cnn_mnist_pytorch", "marabou__conv_mp1"]
SOURCES += [path for name in BY_OTHERS if (path := SHARED / f"{name}.onnx").exists()]
U8, I8 = QuantType.QUInt8, QuantType.QInt8
LAYERS = {"Gemm", "MatMul", "QGemm", "QLinearMatMul", "MatMulInteger", "Flatten", "Reshape"}


class Images(CalibrationDataReader):  # type: ignore[misc]
    """A few images to find the ranges with."""

    def __init__(self, name: str, shape: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.feeds = [{name: rng.random(shape, dtype=np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Array] | None:
        return self.feeds.pop() if self.feeds else None


@pytest.fixture(autouse=True)
def _quiet() -> None:
    ort.set_default_logger_severity(3)


def plain(source: Path, folder: Path) -> tuple[Path, onnx.ValueInfoProto]:
    """The model as the quantizer takes it: of opset 13, without shapes of inner tensors."""
    model = onnx.load(source)
    if model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 13)
    del model.graph.value_info[:]
    path = folder / source.name
    onnx.save(model, path)
    listed = {tensor.name for tensor in model.graph.initializer}
    return path, next(i for i in model.graph.input if i.name not in listed)


def quantized(source: Path, folder: Path, **options: Any) -> Path:
    path, image = plain(source, folder)
    shape = [dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim]
    result = folder / "quantized.onnx"
    quantize_static(path, result, Images(image.name, shape), **options)
    return result


def assert_proven(path: Path, conversion: onnx_fc2conv.Conversion) -> None:
    """The check passes, and whole models give the same bit by bit."""
    assert conversion.model is not None
    report = onnx_fc2conv.check(path, conversion.model, geometry=conversion.geometry)
    assert report, report.to_markdown()
    asserted = [result for result in report.results if result.status == "passed"]
    expected = {"native", "feature windows"} if conversion.geometry else {"native"}
    assert expected <= {result.tier for result in asserted}
    whole = [result for result in asserted if result.tier != "geometry"]
    assert all(result.worst_error == 0.0 for result in whole), report.to_markdown()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("form", "types", "per_channel"),
    [
        (QuantFormat.QDQ, (U8, I8), True),
        (QuantFormat.QDQ, (I8, I8), False),
        (QuantFormat.QOperator, (U8, U8), True),
        (QuantFormat.QOperator, (I8, I8), False),
    ],
    ids=["QDQ u8 i8", "QDQ i8 i8", "QOperator u8 u8", "QOperator i8 i8"],
)
def test_static_quantization(
    source: Path, form: Any, types: Any, per_channel: bool, tmp_path: Path
) -> None:
    activation, weight = types
    path = quantized(
        source,
        tmp_path,
        quant_format=form,
        per_channel=per_channel,
        activation_type=activation,
        weight_type=weight,
    )
    conversion = onnx_fc2conv.convert(path)
    assert_proven(path, conversion)
    assert conversion.model is not None
    image, *_ = conversion.model.graph.inputs
    before_the_image = {"Reshape"} if "cntk" in source.stem else set()  # of its kernels
    assert not set(op_types(conversion.model)) & (LAYERS - before_the_image)
    (geometry,) = conversion.geometry.values()
    grown = [w + 2 * s for w, s in zip(geometry.window, geometry.stride, strict=True)]
    assert image.shape is not None
    images = np.zeros((2, int(image.shape[1]), *grown), np.float32)  # type: ignore[arg-type]
    (scores,) = session(conversion.model)({image.name or "": images}).values()
    assert scores.shape[2:] == (3, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"activation_type": QuantType.QInt16, "weight_type": I8},
        {"weight_type": QuantType.QInt4},
        {"extra_options": {"UseQDQContribOps": True}},
        {"extra_options": {"AddQDQPairToWeight": True}, "per_channel": True},
        {"extra_options": {"QuantizeBias": False}},
        {"op_types_to_quantize": ["Gemm"]},
    ],
    ids=["16 bits", "4 bits", "com.microsoft", "Q → DQ of weights", "bias of floats", "layers"],
)
def test_options_of_the_quantizer(
    options: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = quantized(SOURCES[0], tmp_path, quant_format=QuantFormat.QDQ, **options)
    conversion = onnx_fc2conv.convert(path)
    assert conversion.model is not None
    # Where onnxruntime has no kernel of integers, a sum between two steps may round either way.
    rtol = 1e-4 if "16 bits" in request.node.name else None
    geometry = conversion.geometry
    report = onnx_fc2conv.check(path, conversion.model, geometry=geometry, rtol=rtol)
    assert report, report.to_markdown()
    dequantized = [
        value.producer().op_type  # type: ignore[union-attr]
        for node in conversion.model.graph
        if node.op_type == "Conv" and node.metadata_props
        for value in node.inputs[1:2]
        if value is not None
    ]
    assert dequantized == ["DequantizeLinear"] * 2


@pytest.mark.parametrize("saturating", [False, True], ids=["this CPU", "one that saturates"])
@pytest.mark.parametrize("static", [False, True], ids=["dense", "static"])
def test_default_quantization_on_every_cpu(
    saturating: bool, static: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if saturating:
        monkeypatch.setattr(byte_products, "saturates", lambda: True)
    path = quantized(SOURCES[0], tmp_path)
    assert_proven(path, onnx_fc2conv.convert(path, static=static))


@pytest.mark.parametrize("source", SOURCES[:2], ids=lambda path: path.stem)
@pytest.mark.parametrize("weight", [U8, I8])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("only", [None, ["Gemm", "MatMul"]], ids=["everything", "layers"])
def test_dynamic_quantization(
    source: Path, weight: Any, per_channel: bool, only: list[str] | None, tmp_path: Path
) -> None:
    """It keeps its size bit by bit; it cannot slide."""
    path, _ = plain(source, tmp_path)
    result = tmp_path / "quantized.onnx"
    quantize_dynamic(
        path, result, weight_type=weight, per_channel=per_channel, op_types_to_quantize=only
    )
    conversion = onnx_fc2conv.convert(result, static=True)
    assert conversion.model is not None
    assert "MatMulInteger" not in op_types(conversion.model)
    assert len(conversion.heads) == 2
    assert_proven(result, conversion)
    with pytest.raises(RefusedError) as error:
        onnx_fc2conv.convert(result)
    first = error.value.refusals[0]
    assert first.code == "dynamic-quantization"
    assert "DynamicQuantizeLinear" in first.node
