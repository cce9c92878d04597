"""Constants added to and multiplied with features and maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.nets import Array, Net, Tensor, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
    refusals,
)

C, H, W = 3, 3, 4
D = C * H * W

ACTIVATIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "Relu": (6, {}),
    "LeakyRelu": (6, {"alpha": 0.3}),
    "Sigmoid": (6, {}),
    "Tanh": (6, {}),
    "Elu": (6, {"alpha": 0.7}),
    "Selu": (6, {}),
    "HardSigmoid": (6, {"alpha": 0.3, "beta": 0.4}),
    "Softplus": (1, {}),
    "Softsign": (1, {}),
    "ThresholdedRelu": (10, {"alpha": 0.2}),
    "Neg": (6, {}),
    "Abs": (6, {}),
    "Erf": (9, {}),
    "Sign": (9, {}),
    "Celu": (12, {"alpha": 2.0}),
    "HardSwish": (14, {}),
    "Mish": (18, {}),
    "Gelu": (20, {"approximate": "tanh"}),
}


def per_channel(net: Net) -> Array:
    return np.repeat(net.random(C), H * W)


CONSTANTS: dict[str, Callable[[Net], Array]] = {
    "scalar": lambda net: net.random() + np.float32(2),
    "one": lambda net: net.random(1),
    "one-by-one": lambda net: net.random(1, 1),
    "channel": per_channel,
    "position": lambda net: net.random(D),
    "row": lambda net: net.random(1, D),
}


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS.keys())
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("flipped", [False, True], ids=["v·c", "c·v"])
def test_arithmetic_before_the_first_layer(
    constant: Callable[[Net], Array], op_type: str, flipped: bool
) -> None:
    net = Net()
    flat = net.flat(net.op("Exp", net.trunk(), shape=(C, H, W)))
    value = constant(net).astype(np.float32)
    y = net.op(op_type, *((value, flat) if flipped else (flat, value)), shape=(D,), name="scale")
    model = net.model(net.fc(y))
    if op_type == "Div" and flipped and value.size == D and constant is not per_channel:
        assert_refused(model, "position-dependent", "Div scale", f"{list(value.shape)}")
    else:
        assert_slides(model)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("flipped", [False, True], ids=["v·c", "c·v"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5)], ids=str)
def test_arithmetic_between_layers(op_type: str, flipped: bool, shape: tuple[int, ...]) -> None:
    net = Net()
    hidden = net.op("Exp", net.fc(net.flat(net.trunk()), 5, bias=False))
    value = np.asarray(net.random(*shape), np.float32)
    y = net.op(op_type, *((value, hidden) if flipped else (hidden, value)), shape=(5,))
    assert_slides(net.model(net.fc(net.op("Tanh", y, shape=(5,)))), tolerance=2e-5)


def test_deferred_scale_and_shift_compose() -> None:
    """Standardized features: (v - mean) / deviation · gain + offset, each per position."""
    net = Net()
    y = net.flat(net.trunk())
    y = net.op("Sub", y, net.random(D))
    y = net.op("Div", y, np.abs(net.random(1, D)) + 1)
    y = net.op("Mul", net.random(D), y)
    y = net.op("Sub", net.random(D), y, shape=(D,))
    conversion = assert_slides(net.model(net.fc(y)))
    assert [layer.bytes_kept for layer in conversion.heads] == ["folded"]
    assert conversion.model is not None
    assert op_types(conversion.model) == ["Conv", "Relu", "MaxPool", "Conv"]


@pytest.mark.parametrize("then", ["scalar", "channel"])
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
def test_deferred_scale_then_a_constant_of_the_channel(then: str, op_type: str) -> None:
    net = Net()
    y = net.op("Mul", net.flat(net.trunk()), net.random(D))
    constant = np.array(1.7, np.float32) if then == "scalar" else per_channel(net)
    y = net.op(op_type, y, constant, shape=(D,))
    assert_slides(net.model(net.fc(y)))


def test_deferred_scale_moved_and_read_by_two_layers() -> None:
    net = Net()
    scaled = net.op("Mul", net.flat(net.trunk()), net.random(D), shape=(D,))
    square = net.op("Reshape", scaled, np.array([0, C, H, W]))
    moved = net.op("Transpose", square, perm=[0, 3, 2, 1])
    flat = net.op("Flatten", moved, shape=(D,))
    assert_slides(net.model(net.fc(scaled), net.fc(flat)))


@pytest.mark.parametrize("op_type", ["Relu", "Softplus"])
def test_position_dependent_constant_then_activation_is_refused(op_type: str) -> None:
    net = Net()
    y = net.op("Add", net.flat(net.trunk()), net.random(D), name="offset")
    y = net.op(op_type, y, shape=(D,), name="act")
    assert_refused(net.model(net.fc(y)), "position-dependent", f"{op_type} act", "linear layer")


@pytest.mark.parametrize("shape", [(1, C, H, W), (H, W), (C, 1, W), (1, 1, H, 1)], ids=str)
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
def test_a_positional_constant_on_a_map_that_a_layer_reads(
    op_type: str, shape: tuple[int, ...]
) -> None:
    """A learned position embedding: each window has its own, from its first cell on."""
    net = Net()
    y = net.op(op_type, net.trunk(), 1 + np.abs(net.random(*shape)), shape=(C, H, W))
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.heads[0].bytes_kept == "folded"


def test_two_positional_constants_and_channels_last() -> None:
    net = Net()
    y = net.op("Mul", net.trunk(), net.random(H, W))
    y = net.op("Add", net.op("Transpose", y, perm=[0, 2, 3, 1]), net.random(H, W, C))
    assert_slides(net.model(net.head(Tensor(y.value, (H, W, C)))))


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("Conv", {}),
        ("Relu", {}),
        ("MaxPool", {"kernel_shape": [2, 2]}),
        ("GlobalAveragePool", {}),
        ("Softmax", {"axis": 1}),
        ("InstanceNormalization", {}),
    ],
)
def test_a_positional_constant_that_something_else_reads_is_refused(
    op_type: str, attributes: dict[str, Any]
) -> None:
    net = Net()
    y = net.op("Add", net.trunk(), net.random(1, C, H, W), shape=(C, H, W), name="embed")
    weights = {"Conv": (net.random(C, C, 1, 1),), "InstanceNormalization": (net.random(C),) * 2}
    made = net.op(op_type, y, *weights.get(op_type, ()), name="next", **attributes)
    shapes = {"MaxPool": (C, H - 1, W - 1), "GlobalAveragePool": (C, 1, 1)}
    model = net.model(net.head(Tensor(made.value, shapes.get(op_type, (C, H, W)))))
    (refusal,) = refusals(model)
    assert refusal.node == f"{op_type} next"
    assert refusal.code in ("positional-constant", "position-dependent")


def test_a_positional_constant_in_the_maximum_is_refused() -> None:
    net = Net()
    trunk = net.trunk()
    y = net.op("Max", trunk, net.random(1, C, H, W), shape=trunk.shape, name="bias_map")
    assert_refused(net.model(net.head(y)), "positional-constant", "Max bias_map", "[1, 3, 3, 4]")


@pytest.mark.parametrize("shape", [(C, 1, 1), (1, C, 1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("op_type", ["Add", "Mul", "Max", "Pow"])
def test_channel_constant_in_the_trunk(shape: tuple[int, ...], op_type: str) -> None:
    net = Net()
    trunk = net.op("Sigmoid", net.trunk(), shape=(C, H, W))
    y = net.op(op_type, trunk, np.asarray(net.random(*shape)), shape=trunk.shape)
    assert_slides(net.model(net.head(y)))


def test_gray_image_spread_over_channels() -> None:
    net = Net(image=(1, 8, 10))
    y = net.op("Sub", net.x, net.random(3, 1, 1), shape=(3, 8, 10))
    y = net.op("Conv", y, net.random(4, 3, 3, 3), shape=(4, 6, 8))
    assert_slides(net.model(net.head(y)))


def test_scalar_computed_from_the_image_size_is_the_native_one() -> None:
    """Attention-like scaling by √width: a constant at the window's size."""
    net = Net()
    trunk = net.trunk()
    width = net.op("Gather", net.op("Shape", trunk), np.array(3), axis=0)
    root = net.op("Sqrt", net.op("Cast", width, to=1))
    y = net.op("Div", net.flat(trunk), root, shape=(D,))
    assert_slides(net.model(net.fc(y)))


def test_map_scaled_by_its_size_is_refused() -> None:
    net = Net()
    trunk = net.trunk()
    width = net.op("Cast", net.op("Gather", net.op("Shape", trunk), np.array(3), axis=0), to=1)
    y = net.op("Div", trunk, width, shape=trunk.shape, name="scale")
    assert_refused(net.model(net.head(y)), "baked-size", "Div scale")


def test_scale_by_the_batch_size_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    count = net.op("Cast", net.op("Gather", net.op("Shape", flat), np.array(0), axis=0), to=1)
    y = net.op("Div", flat, count, shape=(D,), name="mean")
    assert_refused(net.model(net.fc(y)), "batch-mixing", "Div mean")


def test_constant_that_differs_between_samples_is_refused() -> None:
    net = Net(batch=2)
    y = net.op("Add", net.fc(net.flat(net.trunk())), net.random(2, 4), shape=(4,), name="shift")
    assert_refused(net.model(net.fc(y)), "batch-mixing", "Add shift")


def test_constant_that_cannot_be_computed_is_refused() -> None:
    net = Net()
    broken = net.op("Reshape", net.random(4), np.array([3, 5]))
    y = net.op("Add", net.fc(net.flat(net.trunk())), broken, shape=(4,), name="shift")
    assert_refused(net.model(y), "not-computable", "Add shift", "cannot be computed")
