"""Products of bytes are exact, whatever onnxruntime does on this CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_fc2conv.runtime import byte_products
from onnx_fc2conv.runtime.byte_products import PRODUCTS, saturates
from onnx_fc2conv.runtime.session import Session
from tests.nets import Array

U8, I8 = np.uint8, np.int8
SAME = [(U8, U8), (I8, I8)]
MIXED = [(U8, I8), (I8, U8)]
LENGTH = 66
"""Terms of a sum: some blocks of what a CPU multiplies at once, and two more."""

ONE = np.array(1, np.float32)


@pytest.fixture(params=["as this CPU is", "as a CPU that saturates"])
def _cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of a session, on every CPU."""
    if request.param == "as a CPU that saturates":
        monkeypatch.setattr(byte_products, "saturates", lambda: True)


def extremes(dtype: Any, *shape: int) -> Array:
    """The largest numbers of a type, and in every third place any."""
    limits, rng = np.iinfo(dtype), np.random.default_rng(sum(shape))
    array = np.full(shape, limits.max, dtype)
    array.flat[::3] = rng.integers(limits.min, limits.max, array.size, endpoint=True)[::3]
    return array


class Operator:
    """A model of one node, whose inputs are constants or come from the user."""

    def __init__(self, op_type: str, domain: str = "", **attributes: Any) -> None:
        self.node = (op_type, domain, attributes)
        self.inputs: list[ir.Value | None] = []
        self.fed: dict[str, Array] = {}
        self.constants: list[ir.Value] = []

    def reads(self, array: Array | None, *, constant: bool = True) -> None:
        if array is None:
            self.inputs.append(None)
            return
        name = f"i{len(self.inputs)}"
        value = ir.val(name, ir.DataType.from_numpy(array.dtype), array.shape)
        if constant:
            value.const_value = ir.tensor(array, name=name)
            self.constants.append(value)
        else:
            self.fed[name] = array
        self.inputs.append(value)

    def model(self, dtype: ir.DataType) -> ir.Model:
        op_type, domain, attributes = self.node
        node = ir.node(op_type, self.inputs, attributes, domain=domain)
        node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(dtype)
        graph = ir.Graph(
            [v for v in self.inputs if v is not None and v.name in self.fed],
            node.outputs[:1],
            nodes=[node],
            initializers=self.constants,
            opset_imports={"": 17, "com.microsoft": 1},
            name="one",
        )
        return ir.Model(graph, ir_version=8)


def sums(one: Array, two: Array, zero: Array | None, zero_too: Array | None) -> Array:
    """Exact sums of products, [M, K] · [K, N]."""
    wide = [
        array.astype(np.int64) - (0 if offset is None else offset.astype(np.int64))
        for array, offset in ((one, zero), (two, zero_too))
    ]
    result: Array = wide[0] @ wide[1]
    return result


def as_kernel(weight: Array) -> Array:
    """A matrix [K, N] as the kernel [N, K, 1, 1]."""
    return np.ascontiguousarray(weight.T)[:, :, None, None]


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize(("one", "two"), [*SAME, *MIXED])
@pytest.mark.parametrize("zeros", [True, False], ids=["zero points", "no zero points"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize("op_type", ["MatMulInteger", "ConvInteger"])
def test_operators_of_integers(
    op_type: str, one: Any, two: Any, zeros: bool, constant: bool
) -> None:
    data, weight = extremes(one, 5, LENGTH), extremes(two, LENGTH, 7)
    zero, zero_too = (np.array(3, one), np.array(5, two)) if zeros else (None, None)
    made = Operator(op_type)
    if op_type == "MatMulInteger":
        operands = data, weight
    else:
        operands = data[:, :, None, None], as_kernel(weight)
    made.reads(operands[0], constant=False)
    made.reads(operands[1], constant=constant)
    made.reads(zero)
    made.reads(zero_too)
    found = Session(made.model(ir.DataType.INT32)).run(made.fed)["y"]
    np.testing.assert_array_equal(found.reshape(5, 7), sums(data, weight, zero, zero_too))


QUANTIZED: Mapping[str, tuple[str, Callable[[Array], Array]]] = {
    "QLinearMatMul": ("", lambda weight: weight),
    "QLinearConv": ("", as_kernel),
    "QGemm": ("com.microsoft", lambda weight: weight),
}


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize(("one", "two"), [*SAME, (U8, I8)])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("op_type", QUANTIZED)
def test_quantized_operators(op_type: str, one: Any, two: Any, per_channel: bool) -> None:
    """The result has so large a step that it holds every sum, rounded to even."""
    domain, shaped = QUANTIZED[op_type]
    data, weight = extremes(one, 5, LENGTH), extremes(two, LENGTH, 7)
    count = (7,) if per_channel else ()
    zero, zero_too = np.array(3, one), np.full(count, 5, two)
    step = np.array(2.0**14, np.float32)
    made = Operator(op_type, domain)
    made.reads(data if op_type != "QLinearConv" else data[:, :, None, None], constant=False)
    operands = (ONE, zero, shaped(weight), np.ones(count, np.float32), zero_too)
    result = (step, np.array(7, one))
    for array in (*operands, *((None,) if op_type == "QGemm" else ()), *result):
        made.reads(array)
    dtype = ir.DataType.from_numpy(np.dtype(one))
    found = Session(made.model(dtype)).run(made.fed)["y"].reshape(5, 7)
    exact = np.rint(sums(data, weight, zero, np.asarray(zero_too).flat[0]) / float(step)) + 7
    limits = np.iinfo(one)
    np.testing.assert_array_equal(found, np.clip(exact, limits.min, limits.max))


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("zeros", [True, False], ids=["zero points", "no zero points"])
def test_sums_that_become_floats(zeros: bool) -> None:
    data, weight = extremes(U8, 5, LENGTH), extremes(I8, LENGTH, 7)
    zero, zero_too = (np.array(3, U8), np.array(5, I8)) if zeros else (None, None)
    made = Operator("MatMulIntegerToFloat", "com.microsoft")
    made.reads(data, constant=False)
    for array in (weight, ONE, ONE, zero, zero_too):
        made.reads(array)
    found = Session(made.model(ir.DataType.FLOAT)).run(made.fed)["y"]
    np.testing.assert_array_equal(found, sums(data, weight, zero, zero_too))


def by_option(model: ir.Model, feeds: Mapping[str, Array]) -> Array:
    """What onnxruntime computes when it is told to make the weights unsigned itself."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    made: Array = session.run(["y"], dict(feeds))[0]
    return made


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("zeros", [True, False], ids=["zero points", "no zero points"])
def test_floats_that_are_quantized_on_the_way(zeros: bool) -> None:
    """DynamicQuantizeLinear-11 says how: from 0 to the largest number in steps of a 255th."""
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 1, (5, LENGTH)).astype(np.float32) + 4
    weight, zero = extremes(I8, LENGTH, 7), np.array(5, I8) if zeros else None
    made = Operator("DynamicQuantizeMatMul", "com.microsoft")
    made.reads(features, constant=False)
    for array in (weight, ONE, zero):
        made.reads(array)
    scale = features.max() / np.float32(255)
    quantized = np.rint(features / scale).astype(U8)
    exact = sums(quantized, weight, np.array(0, U8), zero) * float(scale)
    found = Session(made.model(ir.DataType.FLOAT)).run(made.fed)["y"]
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.usefixtures("_cpu")
def test_attention() -> None:
    made = Operator("QAttention", "com.microsoft", num_heads=2)
    made.reads(extremes(U8, 1, 3, 64), constant=False)
    scale = np.array(1 / 4096, np.float32)
    weight, bias = extremes(I8, 64, 3 * 8), np.zeros(3 * 8, np.float32)
    for array in (weight, bias, ONE, scale, None, np.array(3, U8), np.array(0, I8)):
        made.reads(array)
    model = made.model(ir.DataType.FLOAT)
    np.testing.assert_array_equal(Session(model).run(made.fed)["y"], by_option(model, made.fed))


@pytest.mark.usefixtures("_cpu")
def test_lstm() -> None:
    rng = np.random.default_rng(0)
    made = Operator("DynamicQuantizeLSTM", "com.microsoft", hidden_size=8)
    made.reads(rng.uniform(0, 1, (3, 1, 64)).astype(np.float32), constant=False)
    made.reads(extremes(I8, 1, 64, 32))
    made.reads(extremes(I8, 1, 8, 32))
    scale, zero = np.full(1, 1 / 8192, np.float32), np.zeros(1, I8)
    for array in (None, None, None, None, None, scale, zero, scale, zero):
        made.reads(array)
    model = made.model(ir.DataType.FLOAT)
    np.testing.assert_array_equal(Session(model).run(made.fed)["y"], by_option(model, made.fed))


def test_every_operator_is_tested_here() -> None:
    tested = {("", "MatMulInteger"), ("", "ConvInteger"), ("com.microsoft", "MatMulIntegerToFloat")}
    tested |= {(domain, op_type) for op_type, (domain, _) in QUANTIZED.items()}
    others = ("QLinearConv", "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM")
    assert set(PRODUCTS) == tested | {("com.microsoft", op_type) for op_type in others}


@pytest.mark.parametrize(("one", "two"), MIXED)
def test_the_probe_tells_what_onnxruntime_does(one: Any, two: Any) -> None:
    """Where it says that nothing saturates, a default session gives exact sums."""
    data, weight = extremes(one, 5, LENGTH), extremes(two, LENGTH, 7)
    wrong = False
    for op_type, operands in (
        ("MatMulInteger", (data, weight)),
        ("ConvInteger", (data[:, :, None, None], as_kernel(weight))),
    ):
        made = Operator(op_type)
        for array in operands:
            made.reads(array, constant=False)
        session = Session(made.model(ir.DataType.INT32), as_deployed=True)
        found = session.run(made.fed)["y"].reshape(5, 7)
        wrong |= bool((found != sums(data, weight, None, None)).any())
    assert wrong == saturates()
