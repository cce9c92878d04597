"""Types: halves, doubles, bfloat16, and Casts anywhere between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence import check
from onnx_fc2conv.equivalence.reporting.report import EquivalenceReport
from onnx_fc2conv.pipeline import convert
from tests.nets import Array, Net, Tensor
from tests.oracle import assert_refused, assert_slides, converted_model

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
DOUBLE, BFLOAT = ir.DataType.DOUBLE, ir.DataType.BFLOAT16
FEW_DIGITS = 2e-2
LAYERS = ("Gemm", "MatMul", "Flatten")


def cast(net: Net, y: Tensor, dtype: ir.DataType) -> Tensor:
    return net.op("Cast", y, to=dtype.value, shape=y.shape)


def cast_like(net: Net, y: Tensor, dtype: ir.DataType) -> Tensor:
    like = net.weight(np.zeros(2, dtype.numpy()))
    return Tensor(net.op("CastLike", y, like).value, y.shape)


def layer(net: Net, y: Tensor, outputs: int, dtype: ir.DataType) -> Tensor:
    """A Gemm in this type."""
    numpy = dtype.numpy()
    weight, bias = net.random(outputs, y.shape[-1]).astype(numpy), net.random(outputs).astype(numpy)
    return net.op("Gemm", y, weight, bias, transB=1, shape=(outputs,))


def softmax_in_float(net: Net) -> Tensor:
    return net.op("Softmax", cast(net, net.head(net.trunk()), FLOAT), axis=1)


def half_head(net: Net) -> Tensor:
    y = cast(net, net.flat(net.trunk()), HALF)
    return cast(net, layer(net, net.op("Relu", layer(net, y, 6, HALF), shape=(6,)), 4, HALF), FLOAT)


def half_before_flatten(net: Net) -> Tensor:
    y = cast(net, net.trunk(), HALF)
    return cast(net, layer(net, net.flat(y), 4, HALF), FLOAT)


def cast_between_layers(net: Net) -> Tensor:
    hidden = net.op("Relu", net.fc(net.flat(net.trunk()), 6), shape=(6,))
    return layer(net, cast(net, hidden, HALF), 4, HALF)


def cast_there_and_back(net: Net) -> Tensor:
    hidden = cast(net, cast(net, net.fc(net.flat(net.trunk()), 6), HALF), FLOAT)
    return net.fc(hidden, 4)


def cast_like_between_layers(net: Net) -> Tensor:
    hidden = net.fc(net.flat(net.trunk()), 6)
    return layer(net, cast_like(net, hidden, HALF), 4, HALF)


def cast_like_the_image(net: Net) -> Tensor:
    y = cast(net, net.head(net.trunk()), HALF)
    return net.op("CastLike", y, net.x, shape=(4,))


def cast_like_features(net: Net) -> Tensor:
    flat = net.flat(net.trunk())
    return net.op("CastLike", cast(net, net.fc(flat), HALF), flat, shape=(4,))


def constant_cast_like_features(net: Net) -> Tensor:
    y = net.head(net.trunk())
    offset = net.op("CastLike", net.weight(np.array([0.5], np.float16)), y)
    return net.op("Add", y, offset, shape=(4,))


MIXED: dict[str, tuple[Callable[[Net], Tensor], ir.DataType, ir.DataType, float]] = {
    "half": (lambda net: net.head(net.trunk()), HALF, HALF, FEW_DIGITS),
    "half-softmax-in-float": (softmax_in_float, HALF, FLOAT, FEW_DIGITS),
    "half-head": (half_head, FLOAT, FLOAT, FEW_DIGITS),
    "half-before-flatten": (half_before_flatten, FLOAT, FLOAT, FEW_DIGITS),
    "cast-between-layers": (cast_between_layers, FLOAT, HALF, FEW_DIGITS),
    "cast-there-and-back": (cast_there_and_back, FLOAT, FLOAT, FEW_DIGITS),
    "cast-like-between-layers": (cast_like_between_layers, FLOAT, HALF, FEW_DIGITS),
    "cast-like-the-image": (cast_like_the_image, FLOAT, FLOAT, FEW_DIGITS),
    "cast-like-features": (cast_like_features, FLOAT, FLOAT, FEW_DIGITS),
    "constant-cast-like-features": (constant_cast_like_features, FLOAT, FLOAT, 1e-5),
}


@pytest.mark.parametrize("name", MIXED)
def test_casts_anywhere(name: str) -> None:
    build, dtype, output, tolerance = MIXED[name]
    net = Net(dtype=dtype, opset=17)
    model = net.model(build(net), dtype=output)
    conversion = assert_slides(model, gone=LAYERS, tolerance=tolerance, dtype=dtype.numpy())
    assert "CastLike" not in [node.op_type for node in converted_model(conversion).graph]
    assert check(model, converted_model(conversion))


RARE: dict[str, tuple[ir.DataType, int, bool]] = {
    "double": (DOUBLE, 17, True),
    "double-of-the-image": (DOUBLE, 17, False),
    "bfloat16": (BFLOAT, 22, True),
    "bfloat16-of-the-image": (BFLOAT, 22, False),
}
"""Types in which onnxruntime has no Conv on the CPU."""


def rare(dtype: ir.DataType, opset: int, *, trunk: bool) -> ir.Model:
    net = Net(dtype=dtype, opset=opset, ir_version=10)
    y = net.trunk() if trunk else Tensor(net.x.value, net.image)
    hidden = net.op("Relu", net.fc(net.flat(y), 6), shape=(6,))
    return net.ir_model(net.op("Softmax", net.fc(hidden, 4), axis=1))


def checked(dtype: ir.DataType, opset: int, *, trunk: bool, spoil: bool) -> EquivalenceReport:
    model = rare(dtype, opset, trunk=trunk)
    converted = converted_model(convert(model))
    if spoil:
        kernel = next(n for n in converted.graph if n.op_type == "Conv").inputs[1]
        assert kernel is not None
        assert kernel.const_value is not None
        other: Array = kernel.const_value.numpy()[..., ::-1].copy()
        kernel.const_value = ir.tensor(other, dtype=dtype)
    return check(model, converted)


@pytest.mark.parametrize("name", RARE)
def test_the_check_runs_what_onnxruntime_cannot(name: str) -> None:
    dtype, opset, trunk = RARE[name]
    report = checked(dtype, opset, trunk=trunk, spoil=False)
    assert report, report.failures
    said = {result.subject: result for result in report.results if result.tier == "runtime"}
    assert "the converted model" in said
    # onnxruntime has a Gemm of doubles
    assert ("the reference" in said) == (trunk or dtype == BFLOAT)
    assert f"does not run it in {dtype.name}" in said["the converted model"].detail


@pytest.mark.parametrize("name", RARE)
def test_a_wrong_kernel_is_found_there_too(name: str) -> None:
    dtype, opset, trunk = RARE[name]
    report = checked(dtype, opset, trunk=trunk, spoil=True)
    assert "native" in {failure.tier for failure in report.failures}


@pytest.mark.parametrize("opset", [13, 21])
def test_conv_has_no_bfloat16_before_opset_22(opset: int) -> None:
    net = Net(dtype=BFLOAT, opset=opset)
    y = net.fc(net.flat(Tensor(net.x.value, net.image)), name="fc")
    reason = f"computes in BFLOAT16, which Conv does not in opset {opset}"
    assert_refused(net.ir_model(y), "unsupported-type", "Gemm fc", reason)


def test_the_tolerance_of_halves_is_no_carte_blanche() -> None:
    """A tenth of the weights' size is found, in the coarsest type."""
    model = rare(BFLOAT, 22, trunk=True)
    converted = converted_model(convert(model))
    kernel = next(n for n in converted.graph if n.op_type == "Conv" and n.name).inputs[1]
    assert kernel is not None
    assert kernel.const_value is not None
    changed: Array = kernel.const_value.numpy().astype(np.float32) * np.float32(1.25)
    kernel.const_value = ir.tensor(changed.astype(BFLOAT.numpy()), dtype=BFLOAT)
    assert not check(model, converted)
