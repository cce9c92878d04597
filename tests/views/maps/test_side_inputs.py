"""Vectors beside the image: a second input, or what is computed from one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_fc2conv import convert
from tests.nets import Net, Tensor, i64, op_types, session
from tests.oracle import assert_refused, assert_slides, converted_model

K = 5
GONE = ("Gemm", "MatMul", "Flatten", "Squeeze", "Concat")


def plain(net: Net) -> Tensor:
    return net.input("age", ("N", 3))


def hidden(net: Net) -> Tensor:
    """A layer of the vector alone: it stays."""
    age = net.input("age", ("N", 3))
    return net.op("Relu", net.fc(age, 4), shape=(4,))


def embedded(net: Net) -> Tensor:
    table = net.random(7, 3)
    index = net.op("Cast", net.op("Clip", net.input("age", ("N",))), to=7)
    return net.op("Gather", table, net.op("Mod", index, np.array(7)), shape=(3,))


VECTORS = {"input": plain, "layer": hidden, "embedding": embedded}


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("first", [False, True], ids=["image+vector", "vector+image"])
@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_joined_with_flattened_features(
    vector: Callable[[Net], Tensor], first: bool, opset: int
) -> None:
    net = Net(opset=opset)
    side, flat = vector(net), net.flat(net.trunk())
    operands = (side, flat) if first else (flat, side)
    y = net.op("Concat", *operands, axis=1, shape=(side.size + flat.size,))
    y = net.op("Relu", net.fc(y, 6), shape=(6,))
    gone = GONE if vector is not hidden else GONE[1:]
    conversion = assert_slides(net.model(net.fc(y)), gone=gone)
    assert conversion.after is not None
    assert conversion.after.inputs["age"] == ("N", *side.shape) or vector is not plain


def test_joined_with_the_features_of_a_layer() -> None:
    net = Net()
    side = plain(net)
    y = net.op("Concat", net.head(net.trunk()), side, axis=1, shape=(7,))
    y = net.op("Sigmoid", net.op("Mul", y, net.random(7)), shape=(7,))
    assert_slides(net.model(net.fc(y)), gone=GONE)


def test_joined_twice() -> None:
    net = Net()
    side, flat = plain(net), net.flat(net.trunk())
    y = net.op("Concat", side, flat, side, axis=1, shape=(42,))
    assert_slides(net.model(net.fc(y)), gone=GONE)


def test_rows_of_length_1() -> None:
    """Keras keeps an axis: [N, 1, D]."""
    net = Net()
    side = net.op("Unsqueeze", plain(net), i64(1))
    flat = net.op("Reshape", net.trunk(), i64(-1, 1, 36))
    y = net.op("Squeeze", net.op("Concat", flat, side, axis=2), i64(1), shape=(39,))
    assert_slides(net.model(net.fc(y)), gone=("Gemm", "Flatten", "Squeeze", "Concat"))


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Sub", "Max"])
@pytest.mark.parametrize("features", [1, K])
def test_combined_with_features(op_type: str, features: int) -> None:
    """Conditioning: one value for each feature, or one for all."""
    net = Net()
    side = net.input("gate", ("N", features))
    y = net.op(op_type, side, net.fc(net.flat(net.trunk()), K), shape=(K,))
    assert_slides(net.model(net.fc(y)), gone=GONE)


def test_feature_wise_modulation_of_a_map() -> None:
    """FiLM: a scale and a shift of each channel, computed from a vector."""
    net = Net()
    side, trunk = net.input("text", ("N", 4)), net.trunk()
    scale, shift = (
        net.op("Unsqueeze", net.fc(side, 3), i64(2, 3), shape=(3, 1, 1)) for _ in range(2)
    )
    y = net.op("Add", net.op("Mul", trunk, scale), shift, shape=trunk.shape)
    assert_slides(net.model(net.head(y)), gone=("Flatten", "Squeeze"))


def test_modulation_of_tokens() -> None:
    net = Net()
    side, trunk = net.input("text", ("N", 3)), net.trunk()
    y = net.op("Transpose", net.op("Reshape", trunk, i64(0, 3, -1)), perm=[0, 2, 1])
    y = net.op("Mul", y, net.op("Unsqueeze", side, i64(1)), shape=(12, 3))
    assert_slides(net.model(net.head(y)), gone=("Gemm", "Flatten", "Squeeze"))


def test_gates_of_flattened_features_are_refused() -> None:
    """Every element of the map has its own factor: as many maps as positions would be needed."""
    net = Net()
    side, flat = net.input("gate", ("N", 36)), net.flat(net.trunk())
    y = net.op("Mul", flat, side, shape=flat.shape, name="gated")
    assert_refused(net.model(net.fc(y)), "position-dependent", "Mul gated")


def test_the_vector_alone_is_left_alone() -> None:
    net = Net()
    side = net.input("age", ("N", 4))
    alone = net.fc(side, name="alone")
    y = net.op("Add", net.head(net.trunk()), alone, shape=(4,))
    conversion = assert_slides(net.model(y), gone=("Flatten", "MatMul"))
    assert [layer.node for layer in conversion.left_alone] == ["alone"]
    assert "Gemm" in op_types(converted_model(conversion))


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("vector", [(4, "input"), (1, "input"), (3, "layer")])
def test_added_by_a_layer_itself(vector: tuple[int, str], beta: float) -> None:
    """Gemm's third operand: a vector beside the image, or the features of another layer."""
    length, kind = vector
    net = Net()
    side = net.input("age", ("N", length))
    flat = net.flat(net.trunk())
    addend = net.fc(side, 4) if kind == "layer" else side
    outputs = 4 if length == 1 else addend.shape[0]
    weight = net.random(outputs, 36)
    y = net.op("Gemm", flat, weight, addend, transB=1, beta=beta, shape=(outputs,))
    assert_slides(net.model(net.fc(net.op("Relu", y, shape=y.shape))), gone=("Flatten", "MatMul"))


@pytest.mark.parametrize("beta", [1.0, -2.0])
def test_a_residual_layer_in_one_node(beta: float) -> None:
    net = Net()
    y = net.op("Relu", net.fc(net.flat(net.trunk()), 6), shape=(6,))
    y = net.op("Gemm", y, net.random(6, 6), y, beta=beta, shape=(6,))
    y = net.op("Gemm", y, net.random(6, 6), net.op("Neg", y), beta=beta, shape=(6,))
    assert_slides(net.model(net.fc(y)))


def test_a_whole_map_added_by_a_layer_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("Gemm", flat, net.random(36, 36), flat, shape=(36,), name="fc")
    assert_refused(net.model(net.fc(y)), "flattened-features", "Gemm fc")


def test_a_vector_of_another_length_added_by_a_layer_is_refused() -> None:
    net = Net()
    side = net.input("age", ("N", 3))
    y = net.op("Gemm", net.flat(net.trunk()), net.random(36, 6), side, shape=(6,), name="fc")
    assert_refused(net.model(net.fc(y)), "bias-not-constant", "Gemm fc", "[1, 3]")


@pytest.mark.parametrize("batch", ["N", 1, 3])
@pytest.mark.parametrize("op_type", ["Add", "Gemm"])
def test_one_vector_for_all_images(op_type: str, batch: int | str) -> None:
    net = Net(batch=batch)
    side = net.input("age", (1, 4))
    flat = net.flat(net.trunk())
    if op_type == "Add":
        y = net.op("Add", net.fc(flat), side, shape=(4,))
    else:
        y = net.op("Gemm", flat, net.random(4, 36), side, transB=1, shape=(4,))
    model = net.model(y)
    original, dense = session(model), session(converted_model(convert(model)))
    image = net.rng.normal(size=(3, 2, 10, 14)).astype(np.float32)
    age = net.rng.normal(size=(1, 4)).astype(np.float32)
    cells = dense({"x": image, "age": age})["y"]
    for i, j in np.ndindex(*cells.shape[2:]):
        crops = image[:, :, 2 * i : 2 * i + 8, 2 * j : 2 * j + 10]
        parts = [crops] if batch != 1 else np.split(crops, 3)
        want = np.concatenate([original({"x": part, "age": age})["y"] for part in parts])
        np.testing.assert_allclose(cells[:, :, i, j], want, atol=1e-5)


def test_two_images_joined() -> None:
    net = Net()
    other = net.input("x2", ("N", 2, 8, 10))
    kernel = net.weight(net.random(3, 2, 3, 3))
    flat = [net.flat(net.op("Conv", image, kernel, shape=(3, 6, 8))) for image in (net.x, other)]
    y = net.op("Concat", *flat, axis=1, shape=(288,))
    assert_slides(net.model(net.fc(y)))


def test_two_images_of_different_sizes_joined_are_refused() -> None:
    net = Net()
    other = net.input("x2", ("N", 2, 5, 5))
    y = net.op("Concat", net.flat(net.x), net.flat(other), axis=1, shape=(210,))
    assert_refused(net.model(net.fc(y, name="fc")), "misaligned", "Gemm fc")


def test_a_vector_for_another_number_of_images_is_refused() -> None:
    net = Net(batch=1)
    side = net.input("age", (2, 4))
    y = net.op("Add", net.head(net.trunk()), side, shape=(4,), name="join")
    assert_refused(net.model(y), "other-input", "Add join", "not one vector for each image")


def test_a_vector_of_unknown_length_is_refused() -> None:
    net = Net()
    side = net.input("age", ("N", "D"))
    y = net.op("Add", net.head(net.trunk()), side, shape=(4,), name="join")
    assert_refused(net.model(y), "other-input", "Add join")


def test_a_weight_from_another_input_is_refused() -> None:
    net = Net()
    weight = net.input("w", (36, 4))
    y = net.op("MatMul", net.flat(net.trunk()), weight, shape=(4,), name="fc")
    assert_refused(net.model(y), "weight-not-constant", "MatMul fc")
