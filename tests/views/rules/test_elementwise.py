"""Elementwise operators before, between and after the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.nets import Array, Net, Tensor, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
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


def stacked(net: Net, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The activation in the trunk, on the flattened features, between layers, and at the end."""
    trunk = net.trunk(relu=False)
    y = Tensor(activation(trunk).value, trunk.shape)
    y = Tensor(activation(net.flat(y)).value, (D,))
    y = Tensor(activation(net.fc(y, 5)).value, (5,))
    return activation(net.fc(y, 4))


@pytest.mark.parametrize("op_type", ACTIVATIONS)
def test_activations(op_type: str) -> None:
    since, attributes = ACTIVATIONS[op_type]
    net = Net(opset=max(since, 9))
    conversion = assert_slides(net.model(stacked(net, lambda y: net.op(op_type, y, **attributes))))
    assert conversion.model is not None
    assert op_types(conversion.model).count(op_type) == 4


@pytest.mark.parametrize("op_type", ["BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bits(op_type: str) -> None:
    """Features as integers, on a map and on the flattened features."""
    net = Net(opset=18)
    mask = () if op_type == "BitwiseNot" else (np.array(5, np.int32),)

    def bits(y: Tensor) -> Tensor:
        whole = net.op("Cast", net.op("Mul", y, np.array(64, np.float32)), to=6)
        return Tensor(net.op("Cast", net.op(op_type, whole, *mask), to=1).value, y.shape)

    assert_slides(net.model(net.fc(bits(net.flat(bits(net.trunk()))))))


def test_clip_with_attributes() -> None:
    net = Net(opset=9)
    assert_slides(net.model(stacked(net, lambda y: net.op("Clip", y, min=0.0, max=1.5))))


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("bounds", [(0.0, 1.5), (None, 0.5), (-0.5, None)], ids=str)
def test_clip_with_inputs(opset: int, bounds: tuple[float | None, ...]) -> None:
    net = Net(opset=opset)
    limits = [None if bound is None else np.array(bound, np.float32) for bound in bounds]
    assert_slides(net.model(stacked(net, lambda y: net.op("Clip", y, *limits))))


@pytest.mark.parametrize("slope", [(), (1,), (D,), (1, D)], ids=str)
def test_prelu_on_features(slope: tuple[int, ...]) -> None:
    """One slope a channel, though written for every feature."""
    net = Net()
    values = np.repeat(net.random(C), H * W) if D in slope else net.random(1)
    y = net.op("PRelu", net.flat(net.trunk(relu=False)), values.reshape(slope), shape=(D,))
    assert_slides(net.model(net.fc(y)))


@pytest.mark.parametrize("slope", [(), (1,), (5,), (1, 5)], ids=str)
def test_prelu_between_layers(slope: tuple[int, ...]) -> None:
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 5)
    y = net.op("PRelu", hidden, net.random(*slope), shape=(5,))
    assert_slides(net.model(net.fc(y)))


def test_prelu_with_a_slope_for_every_position_is_refused() -> None:
    net = Net()
    y = net.op("PRelu", net.flat(net.trunk()), net.random(D), shape=(D,), name="act")
    assert_refused(net.model(net.fc(y)), "position-dependent", "PRelu act")


def test_residual_layers() -> None:
    net = Net()
    y = net.fc(net.flat(net.trunk()), 6)
    for _ in range(2):
        inner = net.op("Relu", net.fc(y, 6))
        y = net.op("Add", y, net.fc(Tensor(inner.value, (6,)), 6), shape=(6,))
    assert_slides(net.model(net.fc(y)))


def test_gated_layers_with_mismatched_order() -> None:
    """h · reverse(g): the same elements in another order are gathered first."""
    net = Net()
    flat = net.flat(net.trunk())
    h, g = net.fc(flat, 6), net.op("Sigmoid", net.fc(flat, 6))
    backwards = net.op("Gather", g, np.arange(6)[::-1].copy(), axis=1)
    assert_slides(net.model(net.fc(net.op("Mul", h, backwards, shape=(6,)))))


@pytest.mark.parametrize("op_type", ["Max", "Min", "Sum", "Mean"])
def test_three_layers_combined(op_type: str) -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op(op_type, net.fc(flat, 5), net.fc(flat, 5), net.fc(flat, 5), shape=(5,))
    assert_slides(net.model(net.fc(y)))


def test_where_with_a_condition_from_the_image() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    h, g = net.fc(flat, 5), net.fc(flat, 5)
    larger = net.op("Greater", h, g)
    y = net.op("Where", larger, h, net.op("Neg", g), shape=(5,))
    assert_slides(net.model(net.fc(y)))


def test_where_with_a_constant() -> None:
    net = Net()
    h = net.fc(net.flat(net.trunk()), 5)
    mask = np.array([[True, False, True, True, False]])
    y = net.op("Where", mask, h, np.array(0.5, np.float32), shape=(5,))
    assert_slides(net.model(net.fc(y)))


def test_logarithm_of_a_part_is_finite() -> None:
    """The other features are negative; a weight of zero would not take their NaN away."""
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 4)
    both = net.op("Concat", net.op("Exp", hidden), net.op("Neg", net.op("Exp", hidden)), axis=1)
    part = net.op("Slice", both, np.array([0]), np.array([4]), np.array([1]))
    y = net.op("Log", part, shape=(4,))
    assert_slides(net.model(net.fc(y)))


def test_logarithm_of_a_part_of_one_layer_is_finite() -> None:
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 6)
    signs = np.array([1, 1, 1, -1, -1, -1], np.float32)
    signed = net.op("Mul", net.op("Exp", hidden), signs)
    part = net.op("Gather", signed, np.array([2, 0]), axis=1)
    assert_slides(net.model(net.fc(net.op("Log", part, shape=(2,)))))


@pytest.mark.parametrize(("batch", "features"), [("N", 1), (3, 3)])
def test_samples_added_to_features_are_refused(batch: int | str, features: int) -> None:
    """Yᵀ + Y has a shape that fits, but adds up different samples."""
    net = Net(batch=batch)
    y = net.fc(net.flat(net.trunk()), features)
    turned = net.op("Transpose", y, perm=[1, 0])
    mixed = net.op("Add", turned, y, shape=(features,), name="mix")
    assert_refused(net.model(net.fc(mixed)), "batch-mixing", "Add mix")


def test_outer_product() -> None:
    net = Net()
    y = net.fc(net.flat(net.trunk()))
    column = net.op("Unsqueeze", y, np.array([2]))
    row = net.op("Unsqueeze", y, np.array([1]))
    outer = net.op("Mul", column, row)
    assert_slides(net.model(net.fc(net.op("Flatten", outer, shape=(16,)))))


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


SUBGRAPHS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "gelu": lambda net, y: net.op(
        "Mul",
        net.op("Mul", y, net.op("Add", net.op("Erf", net.op("Div", y, scalar(1.4142))), scalar(1))),
        scalar(0.5),
    ),
    "swish": lambda net, y: net.op("Mul", y, net.op("Sigmoid", y)),
    "mish": lambda net, y: net.op("Mul", y, net.op("Tanh", net.op("Softplus", y))),
    "hard swish": lambda net, y: net.op(
        "Mul", y, net.op("Div", net.op("Relu", net.op("Add", y, scalar(3))), scalar(6))
    ),
    "clamp": lambda net, y: net.op("Min", net.op("Max", y, scalar(-0.2)), net.random(1)),
    "leaky": lambda net, y: net.op(
        "Where", net.op("Greater", y, scalar(0)), y, net.op("Mul", y, scalar(0.1))
    ),
    "power": lambda net, y: net.op("Pow", net.op("Abs", y), np.array([1.5], np.float32)),
    "and": lambda net, y: net.op(
        "Where",
        net.op("And", net.op("Greater", y, scalar(-0.3)), net.op("Less", y, scalar(0.4))),
        y,
        scalar(0),
    ),
    "xor": lambda net, y: net.op(
        "Cast",
        net.op(
            "Or",
            net.op("Xor", net.op("Greater", y, scalar(0)), net.op("Less", y, scalar(0.3))),
            net.op("Greater", y, scalar(1)),
        ),
        to=1,
    ),
}


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_activations_in_pieces(name: str) -> None:
    net = Net(opset=15)
    assert_slides(net.model(stacked(net, lambda y: SUBGRAPHS[name](net, y))))


@pytest.mark.parametrize("shape", [(1,), (5,), (1, 5), (1, 1), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("op_type", ["Min", "Max", "Pow", "Where"])
def test_constants_of_any_shape(op_type: str, shape: tuple[int, ...]) -> None:
    net = Net()
    y = net.op("Sigmoid", net.fc(net.flat(net.trunk()), 5), shape=(5,))
    constant = np.abs(net.random(*shape))
    first = (constant > 0.5,) if op_type == "Where" else ()
    made = net.op(op_type, *first, y, constant)
    if len(shape) > 2:
        made = net.op("Squeeze", made, np.array([0]))
    assert_slides(net.model(net.fc(Tensor(made.value, (5,)))))


def test_swish() -> None:
    net = Net(opset=24, ir_version=10)
    activation = {"alpha": 1.5}
    assert_slides(net.model(stacked(net, lambda y: net.op("Swish", y, **activation))))
