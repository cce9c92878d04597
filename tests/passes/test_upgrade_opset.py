"""The pass UpgradeOpset: each old operator against what its specification says, in NumPy.

onnxruntime has no kernels for these versions, so that there is nothing else to compare with; where
``onnx.version_converter`` upgrades the model too, both upgrades must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from onnx_fc2conv.errors import RefusedError
from onnx_fc2conv.passes import UpgradeOpset
from tests.nets import Array, session

RNG = np.random.default_rng(7)
X = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
ROWS = X.reshape(2, 60)
POSITIVE = np.abs(X) + np.float32(0.1)
CHANNELS = RNG.normal(size=3).astype(np.float32)
SQUARE = X[:, :, :, :3].copy()
"""As many columns as channels: a slope aligned with the wrong axis would not fail, but differ."""


@dataclass(frozen=True)
class Case:
    """One operator: what it is given, and what version 1 (or 6) says it computes."""

    op_type: str
    expected: Array
    x: Array = field(default_factory=lambda: X)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[Array, ...] = ()
    opsets: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    hinted: bool = True
    """Whether ``consumed_inputs`` exists before version 6."""


def old_model(case: Case, opset: int) -> onnx.ModelProto:
    """A model of one node, in IR version 3, which lists its initializers as inputs."""
    names = [f"c{position}" for position in range(len(case.constants))]
    hint = {"consumed_inputs": [0] * (1 + len(names))} if case.hinted and opset < 6 else {}
    node = helper.make_node(case.op_type, ["x", *names], ["y"], **case.attributes, **hint)
    stored = [numpy_helper.from_array(a, n) for a, n in zip(case.constants, names, strict=True)]
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, case.x.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, case.expected.shape)
    graph = helper.make_graph([node], "old", [x, *listed], [y], stored)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, ir_version=3, opset_imports=imports)


def upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = ir.from_proto(model)
    assert UpgradeOpset()(changed).modified
    assert not UpgradeOpset()(changed).modified
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.version for entry in proto.opset_import] == [7]
    return proto


def spread(array: Array, axes: int) -> Array:
    return array.reshape(*array.shape, *[1] * axes)


def softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def normalized(x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> Array:
    return (x - mean) / np.sqrt(variance + np.float32(1e-3)) * scale + bias


def broadcasting() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    functions = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    grid, last, single = POSITIVE[0, 0], POSITIVE[0, 0, 0], np.array([2], np.float32)
    two = POSITIVE[0, :, :, 0].copy()
    for op_type, function in functions.items():
        cases |= {
            f"{op_type}-same": Case(op_type, function(X, POSITIVE), constants=(POSITIVE,)),
            f"{op_type}-last": Case(
                op_type, function(X, grid), constants=(grid,), attributes={"broadcast": 1}
            ),
            f"{op_type}-channels": Case(
                op_type,
                function(X, spread(CHANNELS, 2)),
                constants=(CHANNELS,),
                attributes={"broadcast": 1, "axis": 1},
            ),
            f"{op_type}-channels-as-many-columns": Case(
                op_type,
                function(SQUARE, spread(CHANNELS, 2)),
                SQUARE,
                constants=(CHANNELS,),
                attributes={"broadcast": 1, "axis": 1},
            ),
            f"{op_type}-two-axes": Case(
                op_type,
                function(X, spread(two, 1)),
                constants=(two,),
                attributes={"broadcast": 1, "axis": 1},
            ),
            f"{op_type}-minus": Case(
                op_type,
                function(X, last),
                constants=(last,),
                attributes={"broadcast": 1, "axis": -1},
            ),
            f"{op_type}-one": Case(
                op_type, function(X, 2), constants=(single,), attributes={"broadcast": 1}
            ),
        }
    power = Case("Pow", X**2, constants=(single,), attributes={"broadcast": 1}, hinted=False)
    return cases | {"Pow": power}


def layers() -> dict[str, Case]:
    weight = RNG.normal(size=(4, 60)).astype(np.float32)
    bias = RNG.normal(size=4).astype(np.float32)
    whole = RNG.normal(size=(2, 4)).astype(np.float32)
    statistics = [RNG.uniform(0.1, 1, 3).astype(np.float32) for _ in range(4)]
    by_position = [RNG.uniform(0.1, 1, (3, 4, 5)).astype(np.float32) for _ in range(4)]
    test = {"is_test": 1, "epsilon": 1e-3}
    slope = np.where(X < 0, X * spread(CHANNELS, 2), X)
    slope_square = np.where(SQUARE < 0, SQUARE * spread(CHANNELS, 2), SQUARE)
    return {
        "Gemm-broadcast": Case(
            "Gemm",
            np.float32(0.5) * ROWS @ weight.T + 2 * bias,
            ROWS,
            {"broadcast": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
            (weight, bias),
            hinted=False,
        ),
        "Gemm": Case(
            "Gemm", ROWS @ weight.T + whole, ROWS, {"transB": 1}, (weight, whole), hinted=False
        ),
        "BatchNormalization": Case(
            "BatchNormalization",
            normalized(X, *(spread(array, 2) for array in statistics)),
            attributes=test,
            constants=tuple(statistics),
        ),
        "BatchNormalization-spatial-0": Case(
            "BatchNormalization",
            normalized(X, *by_position),
            attributes=test | {"spatial": 0},
            constants=tuple(by_position),
        ),
        "Dropout": Case("Dropout", X, attributes={"is_test": 1, "ratio": 0.5}),
        "PRelu": Case("PRelu", slope, constants=(CHANNELS,)),
        "PRelu-as-many-columns": Case("PRelu", slope_square, SQUARE, constants=(CHANNELS,)),
        "PRelu-rows": Case(
            "PRelu", np.where(X < 0, X * CHANNELS[0], X), constants=(CHANNELS[:1].copy(),)
        ),
    }


def others() -> dict[str, Case]:
    e, square_root = np.exp, np.sqrt
    plain: dict[str, Callable[[Array], Array]] = {
        "Abs": np.abs,
        "Ceil": np.ceil,
        "Elu": lambda x: np.where(x < 0, e(x) - 1, x),
        "Exp": e,
        "Floor": np.floor,
        "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        "LeakyRelu": lambda x: np.where(x < 0, np.float32(0.01) * x, x),
        "Log": np.log,
        "Neg": np.negative,
        "Reciprocal": np.reciprocal,
        "Relu": lambda x: np.maximum(x, 0),
        "Sigmoid": lambda x: 1 / (1 + e(-x)),
        "Sqrt": square_root,
        "Tanh": np.tanh,
    }
    positive = {"Log", "Reciprocal", "Sqrt"}
    cases = {
        op_type: Case(op_type, function(given), given)
        for op_type, function in plain.items()
        for given in [POSITIVE if op_type in positive else X]
    }
    flipped = X[::-1].copy()
    pads = [(0, 0), (0, 0), (1, 1), (2, 0)]
    listed = [low for low, _ in pads] + [high for _, high in pads]
    mean, variance = X.mean((2, 3), keepdims=True), X.var((2, 3), keepdims=True)
    coarse = 1.0507 * np.where(X < 0, 1.6732 * e(X) - 1.6732, X)
    fine = 1.0507009873554805 * np.where(X < 0, 1.6732632423543772 * (e(X) - 1), X)
    return cases | {
        "AveragePool": Case(
            "AveragePool",
            (X[:, :, 1:, 1:] + X[:, :, :-1, 1:] + X[:, :, 1:, :-1] + X[:, :, :-1, :-1]) / 4,
            attributes={"kernel_shape": [2, 2]},
            hinted=False,
        ),
        "Clip": Case("Clip", np.clip(X, -0.5, 0.3), attributes={"min": -0.5, "max": 0.3}),
        "Clip-below": Case("Clip", np.maximum(X, 0), attributes={"min": 0.0}),
        "Concat": Case(
            "Concat",
            np.concatenate([X, flipped], 2),
            attributes={"axis": 2},
            constants=(flipped,),
            hinted=False,
        ),
        "Concat-default": Case(
            "Concat",
            np.concatenate([X, flipped], 1),
            constants=(flipped,),
            hinted=False,
            opsets=(1, 2, 3),
        ),
        "Flatten": Case("Flatten", ROWS, hinted=False),
        "InstanceNormalization": Case(
            "InstanceNormalization",
            (X - mean) / np.sqrt(variance + 1e-5),
            constants=(np.ones(3, np.float32), np.zeros(3, np.float32)),
        ),
        "Max": Case("Max", np.maximum(X, flipped), constants=(flipped,)),
        "Mean": Case("Mean", (X + flipped) / 2, constants=(flipped,)),
        "Min": Case("Min", np.minimum(X, flipped), constants=(flipped,)),
        "Pad": Case(
            "Pad",
            np.pad(X, pads, constant_values=2),
            attributes={"pads": listed, "value": 2.0},
            hinted=False,
            opsets=(2, 3, 4, 5, 6),
        ),
        "Pad-1": Case(
            "Pad", np.pad(X, pads), attributes={"paddings": listed}, hinted=False, opsets=(1,)
        ),
        "Reshape": Case("Reshape", ROWS, attributes={"shape": [0, -1]}, opsets=(1, 2, 3, 4)),
        "Selu-1": Case("Selu", coarse, opsets=(1, 5)),
        "Selu-6": Case("Selu", fine, opsets=(6,)),
        "Softmax": Case("Softmax", softmax(ROWS).reshape(X.shape), hinted=False),
        "Split": Case(
            "Split",
            X[:, :, :3].copy(),
            attributes={"axis": 2, "split": [3]},
            x=X[:, :, :3].copy(),
            hinted=False,
            opsets=(2, 6),
        ),
        "Sum": Case("Sum", X + flipped, constants=(flipped,)),
    }


CASES = broadcasting() | layers() | others()


@pytest.mark.parametrize("name", CASES)
def test_computes_what_the_old_version_says(name: str) -> None:
    case = CASES[name]
    for opset in case.opsets:
        actual = session(upgraded(old_model(case, opset)))({"x": case.x})["y"]
        assert actual.shape == case.expected.shape
        np.testing.assert_allclose(actual, case.expected, rtol=2e-6, atol=2e-6)


ALIGNED = ("-channels", "-two-axes", "-minus")
"""Where the converter stops: it wants shapes that broadcast without the axis, too."""
CONVERTER_DIFFERS = {
    "PRelu": "aligns the slopes with the columns",
    "PRelu-as-many-columns": "aligns the slopes with the columns",
    "Pad-1": "has no rule",
    "Selu-1": "takes the constants of version 6",
}


@pytest.mark.parametrize(
    "name",
    [n for n in CASES if n not in CONVERTER_DIFFERS and not any(part in n for part in ALIGNED)],
)
def test_agrees_with_the_converter_of_onnx(name: str) -> None:
    case = CASES[name]
    model = old_model(case, case.opsets[-1])
    other = version_converter.convert_version(model, 7)
    ours, theirs = (session(made)({"x": case.x})["y"] for made in (upgraded(model), other))
    np.testing.assert_array_equal(ours, theirs)


def cast_to_word() -> onnx.ModelProto:
    """Cast-1 names a type, ArgMax gives what is cast."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["y"], to="FLOAT"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 60])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "old", [x], [y])
    return helper.make_model(graph, ir_version=3, opset_imports=[helper.make_opsetid("", 5)])


def test_cast_to_a_word() -> None:
    actual = session(upgraded(cast_to_word()))({"x": ROWS})["y"]
    np.testing.assert_array_equal(actual, ROWS.argmax(1).astype(np.float32))


REFUSED: dict[str, tuple[Case, int, str]] = {
    "training-normalization": (
        Case("BatchNormalization", X, constants=(CHANNELS,) * 4),
        5,
        r"BatchNormalization y: is in training mode.*\[training-mode\]",
    ),
    "training-dropout": (Case("Dropout", X), 6, r"Dropout y: is in training mode"),
    "two-readings": (
        Case(
            "Add",
            X,
            constants=(POSITIVE[0, :, :, 0].copy(),),
            attributes={"broadcast": 1, "axis": -3},
        ),
        6,
        r"broadcasts 2 axes from axis -3.*opset 6.*\[old-opset\]",
    ),
    "too-many-axes": (
        Case("Add", X, constants=(X[0],), attributes={"broadcast": 1, "axis": 2}),
        6,
        r"broadcasts 3 axes from axis 2 of 4",
    ),
    "slopes-by-position": (
        Case("PRelu", X, constants=(X[0],)),
        6,
        r"has a slope of shape \[3, 4, 5\]",
    ),
    "no-rule": (
        Case("LpPool", X, attributes={"kernel_shape": [1, 1], "p": 2.0}, hinted=False),
        1,
        r"is LpPool-1, which no rule upgrades",
    ),
    "no-shape": (Case("Reshape", ROWS), 1, r"has no shape"),
    "no-paddings": (Case("Pad", X, hinted=False), 1, r"has no paddings"),
    "no-type": (Case("Cast", X, attributes={"to": "REAL"}, hinted=False), 1, r"'REAL', which is"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_and_changes_nothing(name: str) -> None:
    case, opset, reason = REFUSED[name]
    model = ir.from_proto(old_model(case, opset))
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(RefusedError, match=reason):
        UpgradeOpset()(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_refuses_subgraphs() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, X.shape)],
    )
    model = old_model(CASES["Flatten"], 6)
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    del model.graph.node[:]
    model.graph.node.append(choice)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    with pytest.raises(RefusedError, match="If y: has a subgraph"):
        UpgradeOpset()(ir.from_proto(model))


def test_leaves_newer_models_alone() -> None:
    model = ir.from_proto(old_model(CASES["Flatten"], 6))
    model.graph.opset_imports[""] = 7
    assert not UpgradeOpset()(model).modified
