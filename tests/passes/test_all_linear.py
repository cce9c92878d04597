"""--static --all-linear: every Gemm and MatMul by a constant matrix is a 1×1 Conv in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import ArgumentError, Conversion, FcToConv, RefusedError, check, convert
from tests.nets import Array, Net, Tensor, conv, i64, op_types, session
from tests.oracle import assert_close, converted_model

Dims = Sequence[int | str]

OTHER_SIZES = ({"N": 1, "T": 2, "A": 1, "B": 3}, {"N": 3, "T": 5, "A": 2, "B": 1})


def sized(dims: Dims, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)


def assert_all_linear(model: Any, layers: int = 1, left: int = 0, coded: bool = True) -> Conversion:
    """Convert every layer: the same interface, and the same numbers at several sizes.

    ``coded``: whether a weight stands in both models, so that the integers tier applies.
    """
    conversion = convert(model, static=True, all_linear=True)
    made = converted_model(conversion)
    assert conversion.after == conversion.before
    assert (len(conversion.heads), len(conversion.left_alone)) == (layers, left)
    operators = op_types(made)
    assert operators.count("Gemm") + operators.count("MatMul") == left
    original, converted = session(model), session(made)
    for sizes in OTHER_SIZES:
        rng = np.random.default_rng(0)
        feeds = {
            name: rng.normal(size=sized(dims, sizes)).astype(np.float32)
            for name, dims in conversion.before.inputs.items()
        }
        for name, expected in original(feeds).items():
            assert_close(converted(feeds)[name], expected, 1e-5, f"{name} at {sizes}")
    native = {n: sized(dims, OTHER_SIZES[0]) for n, dims in conversion.before.inputs.items()}
    report = check(model, made, input_shapes=native, geometry=conversion.geometry)
    assert report, report.to_markdown()
    passed = {result.tier for result in report.results if result.status == "passed"}
    assert "native" in passed
    assert ("integers" in passed) == coded
    return conversion


def layer(
    op_type: str, x: Dims, w: tuple[int, ...], left: bool = False, opset: int = 13, **rest: Any
) -> Any:
    """A model of one layer; ``c`` is the shape of what a Gemm adds."""
    net = Net(batch=x[0], image=tuple(x[1:]), opset=opset)  # type: ignore[arg-type]
    weight = net.random(*w)
    operands: list[Tensor | Array] = [weight, net.x] if left else [net.x, weight]
    if "c" in rest:
        operands.append(net.random(*rest.pop("c")))
    return net.model(net.op(op_type, *operands, name="layer", **rest))


POINTWISE = ["Unsqueeze", "Conv", "Squeeze"]
SWAP = ["Transpose", *POINTWISE, "Transpose"]
MERGE = ["Transpose", "Reshape", "Conv", "Reshape", "Transpose"]


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize(
    ("x", "w", "operators"),
    [
        ([5], (5, 3), POINTWISE),
        (["N", 5], (5, 3), POINTWISE),
        (["N", "T", 5], (5, 3), SWAP),
        (["A", "B", "T", 5], (5, 3), ["Transpose", "Conv", "Transpose"]),
        (["A", "B", "T", 4, 5], (5, 3), MERGE),
        (["A", "B", 2, 3, 4, 5], (5, 3), MERGE),
        (["N", "T", 5], (5,), ["Transpose", *POINTWISE]),
        (["N", 5], (1, 1, 5, 3), [*POINTWISE, "Unsqueeze"]),
        (["N", "T", 5], (1, 5, 3), SWAP),
    ],
)
def test_tokens_times_a_matrix(
    x: Dims, w: tuple[int, ...], operators: list[str], opset: int
) -> None:
    conversion = assert_all_linear(layer("MatMul", x, w, opset=opset))
    assert op_types(converted_model(conversion)) == operators


@pytest.mark.parametrize(
    ("x", "w", "operators"),
    [
        ([5], (3, 5), POINTWISE),
        ([5, "T"], (3, 5), POINTWISE),
        (["N", 5, "T"], (3, 5), POINTWISE),
        (["N", "A", 5, "T"], (3, 5), ["Transpose", "Conv", "Transpose"]),
        (["N", "A", 2, 5, "T"], (3, 5), MERGE),
        (["N", 5, "T"], (5,), POINTWISE),
        ([5, "T"], (1, 3, 5), [*POINTWISE, "Unsqueeze"]),
    ],
)
def test_a_matrix_times_columns(x: Dims, w: tuple[int, ...], operators: list[str]) -> None:
    conversion = assert_all_linear(layer("MatMul", x, w, left=True))
    assert op_types(converted_model(conversion)) == operators


@pytest.mark.parametrize(
    ("x", "w", "left", "rest", "operators"),
    [
        (["N", 5], (5, 3), False, {"c": (3,)}, POINTWISE),
        (["N", 5], (3, 5), False, {"transB": 1, "c": (1, 3), "alpha": 0.5, "beta": 2.0}, POINTWISE),
        ([5, "N"], (3, 5), False, {"transA": 1, "transB": 1, "c": (1,)}, [*POINTWISE, "Transpose"]),
        ([4, 5], (5, 3), False, {"c": (4, 3), "beta": 0.5}, [*POINTWISE, "Mul", "Add"]),
        ([4, 5], (5, 3), False, {"c": (4, 1)}, [*POINTWISE, "Add"]),
        ([5, "T"], (3, 5), True, {"c": (3, 1), "beta": 2.0}, POINTWISE),
        (["T", 5], (3, 5), True, {"transB": 1, "c": (3, 1)}, [*POINTWISE, "Transpose"]),
        ([5, 4], (5, 3), True, {"transA": 1, "c": (4,)}, [*POINTWISE, "Add"]),
    ],
)
def test_gemm(
    x: Dims, w: tuple[int, ...], left: bool, rest: dict[str, Any], operators: list[str]
) -> None:
    scaled = "alpha" in rest or (left and "beta" in rest)
    conversion = assert_all_linear(layer("Gemm", x, w, left, **rest), coded=not scaled)
    assert op_types(converted_model(conversion)) == operators


@pytest.mark.parametrize(
    ("shape", "folds"), [((3,), True), ((1, 1, 3), True), ((2, 3), False), ((1, 1, 1, 3), False)]
)
def test_an_added_constant_is_the_bias_if_it_has_one_value_for_each_output(
    shape: tuple[int, ...], folds: bool
) -> None:
    net = Net(image=(2, 5))
    y = net.op("MatMul", net.x, net.random(5, 3))
    model = net.model(net.op("Add", net.random(*shape), y))
    conversion = assert_all_linear(model)
    assert ("Add" not in op_types(converted_model(conversion))) == folds


def transformer(net: Net) -> Tensor:
    """One block on tokens [N, T, 8]: attention of one head, a residual, an MLP."""
    query, key, value = (net.op("MatMul", net.x, net.random(8, 8)) for _ in range(3))
    turned = net.op("Transpose", key, perm=[0, 2, 1])
    scores = net.op("Softmax", net.op("MatMul", query, turned, name="scores"), axis=-1)
    y = net.op("Add", net.x, net.op("MatMul", scores, value, name="context"))
    hidden = net.op("Relu", net.op("Add", net.op("MatMul", y, net.random(8, 16)), net.random(16)))
    return net.op("Add", y, net.op("MatMul", hidden, net.random(16, 8)))


def test_a_transformer_of_any_batch_and_sequence() -> None:
    net = Net(image=("T", 8))  # type: ignore[arg-type]
    conversion = assert_all_linear(net.model(transformer(net)), layers=5, left=2)
    assert [layer.node for layer in conversion.left_alone] == ["scores", "context"]
    assert all("both change with the input" in layer.reason for layer in conversion.left_alone)


def test_a_transformer_of_fixed_size_bakes_no_matrix_for_each_token() -> None:
    net = Net(image=(6, 8))
    conversion = assert_all_linear(net.model(transformer(net)), layers=5, left=2)
    assert {layer.kernel_shape[2:] for layer in conversion.heads} == {(1, 1)}
    assert sum(np.prod(layer.kernel_shape) for layer in conversion.heads) == 3 * 64 + 2 * 128


def test_token_numbers_stay_within_their_table() -> None:
    net = Net(image=(2, 3))
    net.inputs = []
    ids = net.input("ids", ("N", "T"), ir.DataType.INT64)
    y = net.op("Gather", net.weight(net.random(5, 8)), ids)
    model = net.model(net.op("MatMul", y, net.random(8, 4)))
    conversion = convert(model, static=True, all_linear=True)
    report = check(model, converted_model(conversion), input_shapes={"ids": (1, 7)}, geometry={})
    assert report, report.to_markdown()
    passed = {r.tier for r in report.results if r.status == "passed"}
    assert passed >= {"native", "integers", "other sizes"}


def test_features_of_an_image_and_others() -> None:
    net = Net()
    other = net.input("other", ("N", 5))
    y = net.op("Add", net.head(net.trunk(), 4), net.fc(Tensor(other.value, (5,)), 4))
    conversion = assert_all_linear(net.model(net.fc(Tensor(y.value, (4,)))), layers=3)
    assert [layer.kernel_shape[2:] for layer in conversion.heads] == [(3, 4), (1, 1), (1, 1)]


def test_an_image_of_symbolic_size_gets_none() -> None:
    net = Net(image=(2, "A", "B"))  # type: ignore[arg-type]
    y = net.op("GlobalAveragePool", net.op("Relu", net.x), shape=(2, 1, 1))
    conversion = convert(net.model(net.head(y)), static=True, all_linear=True)
    run = session(converted_model(conversion))
    for size in ((4, 4), (7, 5)):
        assert run({"x": np.zeros((2, 2, *size), np.float32)})["y"].shape == (2, 4)


def test_a_weight_of_two_layers_is_one_kernel() -> None:
    net = Net(image=(2, 5))
    weight = net.weight(net.random(5, 5), "shared")
    y = net.op("MatMul", net.op("MatMul", net.x, weight), weight)
    conversion = assert_all_linear(net.model(y), layers=2)
    assert [layer.kernel for layer in conversion.heads] == ["shared.kernel"] * 2


def test_a_weight_that_constants_compute() -> None:
    net = Net(image=(2, 5))
    weight = net.op("Transpose", net.constant(net.random(3, 5)), perm=[1, 0])
    assert_all_linear(net.model(net.op("MatMul", net.x, weight)))


def test_a_stack_of_matrices_is_a_grouped_conv() -> None:
    net = Net(image=(2, 4, 5), batch=1)
    y = net.op("MatMul", net.op("MatMul", net.x, net.random(5, 3)), net.random(2, 3, 6), name="b")
    assert_all_linear(net.model(y), layers=2)


def test_nothing_to_convert() -> None:
    net = Net(image=(2, 5))
    y = net.op("MatMul", net.x, net.op("Transpose", net.x, perm=[0, 2, 1]), name="gram")
    with pytest.raises(RefusedError, match=r"no Gemm or MatMul is a layer .*gram"):
        convert(net.model(y), static=True, all_linear=True)


def test_goes_with_static_only() -> None:
    net = Net()
    with pytest.raises(ArgumentError, match="--all-linear goes with --static only"):
        convert(net.model(net.head(net.trunk())), all_linear=True)


def test_the_pass_twice() -> None:
    net = Net(image=("T", 8))  # type: ignore[arg-type]
    model = net.ir_model(transformer(net))
    all_linear = FcToConv(static=True, all_linear=True)
    assert all_linear(model).modified
    before = ir.to_onnx_text(model, exclude_initializers=True)
    assert not all_linear(model).modified
    assert ir.to_onnx_text(model, exclude_initializers=True) == before


def test_a_layer_after_a_trunk_keeps_its_kernel() -> None:
    net = Net()
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1])
    y = net.op("Reshape", y, i64(-1, 3 * 80), shape=(240,))
    conversion = assert_all_linear(net.model(net.fc(y)))
    assert conversion.heads[0].kernel_shape == (4, 3, 8, 10)


EINSUMS: dict[str, tuple[str, Dims, tuple[int, ...], bool]] = {
    "rows": ("nd,dk->nk", ["N", 6], (6, 4), False),
    "rows, transposed": ("nd,kd->nk", ["N", 6], (4, 6), False),
    "rows, square and transposed": ("nd,kd->nk", ["N", 6], (6, 6), False),
    "tokens": ("ntd,dk->ntk", ["N", "T", 6], (6, 4), False),
    "tokens, transposed": ("ntd,kd->ntk", ["N", "T", 6], (6, 6), False),
    "weight first": ("kd,ntd->ntk", ["N", "T", 6], (4, 6), True),
    "channels": ("nct,kc->nkt", ["N", 6, "T"], (4, 6), False),
    "outputs in between": ("ntd,dk->nkt", ["N", "T", 6], (6, 4), False),
    "no arrow": ("bc,cd", ["N", 6], (6, 4), False),
}


@pytest.mark.parametrize(("equation", "x", "w", "left"), EINSUMS.values(), ids=EINSUMS.keys())
def test_einsum_by_a_matrix(equation: str, x: Dims, w: tuple[int, ...], left: bool) -> None:
    assert_all_linear(layer("Einsum", x, w, left, equation=equation), coded=False)


@pytest.mark.parametrize(
    ("equation", "x", "w"),
    [
        ("ntd,dhk->nthk", ["N", "T", 6], (6, 2, 3)),
        ("ntd,td->nt", ["N", 5, 6], (5, 6)),
        ("ntd,dk->tnk", ["N", "T", 6], (6, 4)),
        ("...d,dk->...k", ["N", "T", 6], (6, 4)),
    ],
)
def test_other_einsums_are_left_alone(equation: str, x: Dims, w: tuple[int, ...]) -> None:
    model = layer("Einsum", x, w, equation=equation)
    with pytest.raises(RefusedError) as raised:
        convert(model, static=True, all_linear=True)
    assert "nothing-to-convert" in str(raised.value)


def test_an_einsum_of_one_operand_is_no_layer() -> None:
    net = Net(image=(5, 5))
    model = net.model(net.op("Einsum", net.x, equation="...ii->...i", name="diagonal"))
    with pytest.raises(RefusedError):
        convert(model, static=True, all_linear=True)


def test_a_gemm_whose_operand_is_of_unknown_rank() -> None:
    """Gemm takes matrices only, so that no shape needs to be known."""
    net = Net(image=(1, 6))
    y = net.op("Squeeze", net.x, shape=(6,))
    model = net.model(net.op("Gemm", y, net.random(6, 4), net.random(4), name="layer"))
    conversion = convert(model, static=True, all_linear=True)
    assert len(conversion.heads) == 1
    x = net.rng.normal(size=(3, 1, 6)).astype(np.float32)
    made, expected = (session(m)({"x": x})["y"] for m in (converted_model(conversion), model))
    assert_close(made, expected, 1e-5, "y")
