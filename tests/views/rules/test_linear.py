"""Gemm and MatMul in all their spellings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from tests.nets import Array, Net, Tensor, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
    converted_model,
)

K = 4


@pytest.mark.parametrize(
    ("trans_a", "trans_b", "alpha", "beta"),
    list(product((0, 1), (0, 1), (1.0, 0.5), (1.0, 0.0, -2.0))),
)
def test_gemm_attributes(trans_a: int, trans_b: int, alpha: float, beta: float) -> None:
    net = Net()
    flat = net.flat(net.trunk())
    operand = net.op("Transpose", flat, perm=[1, 0]) if trans_a else flat
    weight = net.random(K, flat.size) if trans_b else net.random(flat.size, K)
    y = net.op(
        "Gemm",
        operand,
        weight,
        net.random(K),
        transA=trans_a,
        transB=trans_b,
        alpha=alpha,
        beta=beta,
    )
    conversion = assert_slides(net.model(y))
    kept = "folded" if alpha != 1.0 else "same" if trans_b else "permuted"
    assert [layer.bytes_kept for layer in conversion.heads] == [kept]
    assert [layer.weight_shape for layer in conversion.heads] == [(K, 36)]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_gemm_opsets(opset: int) -> None:
    net = Net(opset=opset)
    conversion = assert_slides(net.model(net.head(net.trunk())))
    assert op_types(converted_model(conversion)) == ["Conv", "Relu", "MaxPool", "Conv"]


BIAS_SHAPES: dict[str, tuple[int, ...] | None] = {
    "absent": None,
    "scalar": (),
    "one": (1,),
    "vector": (K,),
    "row": (1, K),
    "one-by-one": (1, 1),
}


@pytest.mark.parametrize("shape", BIAS_SHAPES.values(), ids=BIAS_SHAPES.keys())
@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_gemm_bias_shapes(shape: tuple[int, ...] | None, beta: float) -> None:
    net = Net(opset=13)
    flat = net.flat(net.trunk())
    bias = () if shape is None else (net.random(*shape),)
    y = net.op("Gemm", flat, net.random(flat.size, K), *bias, beta=beta)
    assert_slides(net.model(y))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(
    "shape", [None, (), (1,), (K, 1)], ids=["absent", "scalar", "one", "column"]
)
def test_image_in_second_place(trans_a: int, trans_b: int, shape: tuple[int, ...] | None) -> None:
    net = Net()
    flat = net.flat(net.trunk())
    operand = flat if trans_b else net.op("Transpose", flat, perm=[1, 0])
    weight = net.random(flat.size, K) if trans_a else net.random(K, flat.size)
    bias = () if shape is None else (net.random(*shape),)
    y = net.op("Gemm", weight, operand, *bias, transA=trans_a, transB=trans_b)
    assert_slides(net.model(y), batch_axis=1)


@pytest.mark.parametrize("first", [True, False], ids=["per-row", "per-column"])
def test_bias_that_differs_between_samples_is_refused(first: bool) -> None:
    net = Net(batch=K)
    flat = net.flat(net.trunk())
    weight, bias = net.random(K, flat.size), net.random(K)
    if first:
        y = net.op("Gemm", flat, weight, bias[:, None], transB=1, name="fc")
    else:
        y = net.op("Gemm", weight, flat, bias, transB=1, name="fc")
    assert_refused(net.model(y), "bias-not-constant", "Gemm fc", "other values for other samples")


def test_a_bias_from_the_image() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    other = net.fc(flat)
    y = net.op("Gemm", flat, net.random(flat.size, K), other, name="fc")
    assert_slides(net.model(y))


def test_bias_from_the_image_times_zero_is_no_bias() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    assert_slides(net.model(net.op("Gemm", flat, net.random(36, K), net.fc(flat), beta=0.0)))


def right(net: Net, flat: Tensor) -> Tensor:
    return net.op("MatMul", flat, net.random(flat.size, K))


def left(net: Net, flat: Tensor) -> Tensor:
    return net.op("MatMul", net.random(K, flat.size), net.op("Transpose", flat, perm=[1, 0]))


def leading_one(net: Net, flat: Tensor) -> Tensor:
    return net.op("MatMul", flat, net.random(1, flat.size, K))


def leading_one_rank_3(net: Net, flat: Tensor) -> Tensor:
    row = net.op("Reshape", flat, np.array([-1, 1, flat.size]))
    return net.op("MatMul", row, net.random(1, flat.size, K))


def vector_right(net: Net, flat: Tensor) -> Tensor:
    return net.op("MatMul", flat, net.random(flat.size))


def vector_left(net: Net, flat: Tensor) -> Tensor:
    return net.op("MatMul", net.random(flat.size), net.op("Transpose", flat, perm=[1, 0]))


def column_rank_3(net: Net, flat: Tensor) -> Tensor:
    column = net.op("Reshape", flat, np.array([-1, flat.size, 1]))
    return net.op("MatMul", net.random(1, K, flat.size), column)


@pytest.mark.parametrize(
    ("head", "batch_axis"),
    [
        pytest.param(right, 0, id="right"),
        pytest.param(left, 1, id="left"),
        pytest.param(leading_one, 1, id="leading-one"),
        pytest.param(leading_one_rank_3, 0, id="leading-one-rank-3"),
        pytest.param(vector_right, 0, id="vector-right"),
        pytest.param(vector_left, 0, id="vector-left"),
        pytest.param(column_rank_3, 0, id="column-rank-3"),
    ],
)
def test_matmul(head: Callable[[Net, Tensor], Tensor], batch_axis: int) -> None:
    net = Net()
    y = head(net, net.flat(net.trunk()))
    assert_slides(net.model(y), batch_axis=batch_axis)


@pytest.mark.parametrize("bias_rank", [1, 2])
def test_matmul_of_a_vector(bias_rank: int) -> None:
    """A model that dropped its batch axis: rank-1 features."""
    net = Net(batch=1)
    trunk = net.trunk()
    vector = net.op("Reshape", trunk, np.array([-1]), shape=(trunk.size,))
    hidden = net.op("MatMul", vector, net.random(trunk.size, 5))
    hidden = net.op("Add", hidden, net.random(5))
    y = net.op("MatMul", hidden, net.random(5, K) if bias_rank == 1 else net.random(1, 5, K))
    assert_slides(net.model(y), free_batch=False, batch_axis=None)


BIASES: dict[str, Callable[[Net], Tensor | Array]] = {
    "vector": lambda net: net.random(K),
    "row": lambda net: net.random(1, K),
    "one": lambda net: net.random(1),
    "constant": lambda net: net.constant(net.random(K)),
}


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())
@pytest.mark.parametrize("flipped", [False, True], ids=["fc+b", "b+fc"])
def test_matmul_add_is_one_convolution(
    bias: Callable[[Net], Tensor | Array], flipped: bool
) -> None:
    net = Net()
    product_ = right(net, net.flat(net.trunk()))
    operands = [product_, bias(net)]
    y = net.op("Add", *(reversed(operands) if flipped else operands))
    conversion = assert_slides(net.model(y), gone=("MatMul", "Add", "Flatten", "Reshape"))
    types = [t for t in op_types(converted_model(conversion)) if t != "Constant"]
    assert types == ["Conv", "Relu", "MaxPool", "Conv"]


def test_bias_is_not_folded_where_the_product_is_an_output() -> None:
    net = Net()
    product_ = right(net, net.flat(net.trunk()))
    assert_slides(net.model(net.op("Add", product_, net.random(K)), product_))


def test_bias_is_not_folded_where_the_product_is_used_twice() -> None:
    net = Net()
    product_ = right(net, net.flat(net.trunk()))
    biased = net.op("Add", product_, net.random(K))
    y = net.op("Mul", biased, product_)
    conversion = assert_slides(net.model(y))
    assert "Add" in op_types(converted_model(conversion))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_stacked_layers(layers: int) -> None:
    net = Net()
    y = net.flat(net.trunk())
    for width in range(3, 3 + layers):
        y = net.fc(y, width)
    conversion = assert_slides(net.model(y))
    shapes = [layer.kernel_shape for layer in conversion.heads]
    assert shapes[0] == (3, 3, 3, 4)
    assert all(shape[2:] == (1, 1) for shape in shapes[1:])


def test_several_heads_on_one_flatten() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    conversion = assert_slides(net.model(net.fc(flat, 3), right(net, flat), net.fc(flat, 5)))
    assert [layer.weight_shape[0] for layer in conversion.heads] == [3, K, 5]
    assert set(conversion.geometry) == {"y", "y2", "y3"}


def test_attention_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("MatMul", flat, net.op("Transpose", flat, perm=[1, 0]), name="scores")
    assert_refused(net.model(y), "weight-not-constant", "MatMul scores", "attention")


def test_contracting_the_batch_is_refused() -> None:
    net = Net(batch=4)
    flat = net.flat(net.trunk())
    y = net.op("Gemm", flat, net.random(4, 5), transA=1, name="fc")
    assert_refused(net.model(y), "batch-mixing", "Gemm fc", "contracts the batch axis")


def test_batch_of_weights_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("MatMul", flat, net.random(2, flat.size, K), name="experts")
    assert_refused(net.model(y), "weight-not-matrix", "MatMul experts", "[2, 36, 4]")
