"""Layers of patches: a window shifted over a grid, written as rows of a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from onnx_fc2conv import Conversion, RefusedError, check, convert, convert_to_fc
from onnx_fc2conv.geometry import SlidingWindow
from tests.nets import Array, Net, Tensor, i64, op_types, session
from tests.oracle import assert_slides, converted_model, refusals

K = 6
HALVED = {"pads": [1, 1, 1, 1], "strides": [2, 2]}


@dataclass(frozen=True)
class Case:
    """A convolution: the per-sample shape of the image, the kernel and the node's attributes."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    attributes: dict[str, Any]

    @property
    def extent(self) -> tuple[int, ...]:
        """The size that it gives; ValueError if it has none."""
        options = {name: value for name, value in self.attributes.items() if name != "group"}
        return SlidingWindow.resolve(self.image[1:], self.kernel, **options).output_extent

    @property
    def padded(self) -> bool:
        return bool(self.attributes.keys() & {"pads", "auto_pad"})


CASES = {
    "2-D": Case((2, 8, 10), (3, 3), {}),
    "strided": Case((2, 9, 11), (3, 3), {"strides": [2, 2]}),
    "strided, pixels left over": Case((2, 8, 10), (3, 3), {"strides": [2, 2]}),
    "other strides": Case((2, 9, 11), (3, 2), {"strides": [3, 1]}),
    "without overlap": Case((2, 8, 12), (2, 4), {"strides": [2, 4]}),
    "strided 1×1": Case((3, 7, 9), (1, 1), {"strides": [2, 2]}),
    "dilated": Case((2, 8, 10), (3, 2), {"dilations": [2, 3]}),
    "dilated and strided": Case((2, 9, 9), (3, 3), {"dilations": [2, 1], "strides": [1, 2]}),
    "a whole axis": Case((2, 4, 10), (4, 3), {}),
    "1-D": Case((3, 14), (4,), {"strides": [2]}),
    "3-D": Case((2, 5, 6, 4), (2, 3, 2), {"strides": [1, 1, 2]}),
    "padded": Case((2, 6, 7), (3, 3), {"pads": [1, 1, 1, 1]}),
    "padded and strided": Case((2, 8, 7), (5, 3), {"pads": [2, 1, 2, 1], "strides": [2, 2]}),
    "padded before": Case((2, 6, 6), (3, 3), {"pads": [2, 1, 0, 0]}),
    "padded behind": Case((2, 6, 6), (3, 3), {"pads": [0, 0, 1, 2]}),
    "padded and dilated": Case((2, 6, 7), (3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "SAME_UPPER": Case((2, 6, 7), (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "each patch is padded": Case((2, 2, 2), (3, 3), {"pads": [1, 1, 1, 1]}),
    "groups": Case((4, 6, 7), (3, 3), {"group": 2}),
    "groups, padded and strided": Case((4, 7, 6), (3, 3), {"group": 2, **HALVED}),
    "depthwise": Case((6, 6, 7), (3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "groups of 1×1": Case((4, 5, 6), (1, 1), {"group": 2}),
    "groups, strided 1×1": Case((4, 5, 6), (1, 1), {"group": 2, "strides": [2, 2]}),
    "groups 1-D": Case((4, 9), (3,), {"group": 2, "pads": [1, 1]}),
    "padded 1-D": Case((3, 9), (3,), {"pads": [1, 1], "strides": [2]}),
    "padded 3-D": Case((2, 4, 5, 3), (3, 3, 2), {"pads": [1, 1, 0, 1, 1, 1]}),
}


def network(case: Case, opset: int = 13) -> ir.Model:
    """Conv, Relu, a pooling of 2 where there is room for it, and a head."""
    net = Net(opset=opset, image=case.image)
    kernel = net.random(K, case.image[0] // case.attributes.get("group", 1), *case.kernel)
    y = net.op("Conv", net.x, kernel, net.random(K), name="conv", **case.attributes)
    y = net.op("Relu", y)
    pool = [min(2, length) for length in case.extent]
    y = net.op("MaxPool", y, kernel_shape=pool, strides=[1] * len(pool))
    shape = (K, *(length - size + 1 for length, size in zip(case.extent, pool, strict=True)))
    return net.ir_model(net.head(Tensor(y.value, shape)))


def there_and_back(model: ir.Model) -> Conversion:
    return convert(convert_to_fc(model).model)


def kernels(model: ir.Model) -> list[Array]:
    found = []
    for node in model.graph:
        if node.op_type == "Conv":
            stored = ir.convenience.get_const_tensor(node.inputs[1])  # type: ignore[arg-type]
            assert stored is not None
            found.append(stored.numpy())
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_patches_of_a_convolution(case: Case) -> None:
    """The way back gives what the convolution itself converts to, at the native size and others."""
    model = network(case)
    direct, back = convert(model), there_and_back(model)
    one, two = converted_model(direct), converted_model(back)
    assert op_types(two) == op_types(one)
    for kernel, same in zip(kernels(one), kernels(two), strict=True):
        np.testing.assert_array_equal(kernel, same)
    meant, means = direct.geometry["y"], back.geometry["y"]
    assert (means.verdict, means.stride, means.cells) == (meant.verdict, meant.stride, meant.cells)
    assert means.windows_exact == (not case.padded)

    run, again = session(one), session(two)
    for grown in (0, 2, 3, 5):
        size = [length + grown + axis for axis, length in enumerate(case.image[1:])]
        size = list(case.image[1:]) if grown == 0 else size
        if case.attributes.get("auto_pad"):
            size = [length + 2 * (grown // 2) for length in case.image[1:]]
        x = np.random.default_rng(grown).integers(-4, 5, (2, case.image[0], *size))
        x = x.astype(np.float32)
        (wanted,), (got,) = run({"x": x}).values(), again({"x": x}).values()
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES.values() if not c.padded])
def test_windows_are_exact(case: Case) -> None:
    assert_slides(convert_to_fc(network(case)).model)


@pytest.mark.parametrize("name", ["padded 3-D", "groups, padded and strided", "depthwise"])
def test_the_check_follows(name: str) -> None:
    """Against the matrices as against the first model, at larger sizes too; --static as well."""
    model = network(CASES[name])
    matrices = convert_to_fc(model).model
    back = converted_model(convert(matrices))
    assert check(matrices, back)
    assert check(model, back)
    fixed = converted_model(convert(matrices, static=True))
    assert not {"MatMul", "Gemm"} & set(op_types(fixed))
    assert check(matrices, fixed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any convolution of a small image, also where patches lie in the padding alone."""
    rank = draw(st.integers(1, 3))
    few, groups = st.integers(1, 3), draw(st.sampled_from([1, 1, 2, 3]))

    def some(least: int, most: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(least, most), min_size=count, max_size=count))

    image = (groups * draw(few), *some(2, 7 if rank < 3 else 4))
    attributes = {"group": groups, "strides": some(1, 3), "dilations": some(1, 2)}
    attributes |= {"pads": some(0, 2, 2 * rank)} if draw(st.booleans()) else {}
    case = Case(image, tuple(some(1, 3)), attributes)
    try:
        assert case.extent
    except ValueError:
        reject()
    return case


@settings(max_examples=settings.default.max_examples // 5)  # type: ignore[union-attr]
@given(cases())
def test_never_another_function(case: Case) -> None:
    """Whatever comes back computes the same; what does not is refused."""
    model = network(case)
    try:
        back = there_and_back(model)
    except RefusedError:
        return
    x = np.random.default_rng(0).integers(-4, 5, (2, *case.image)).astype(np.float32)
    (wanted,) = session(model)({"x": x}).values()
    (got,) = session(converted_model(back))({"x": x}).values()
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 11, 18])
def test_at_other_opsets(opset: int) -> None:
    back = there_and_back(network(CASES["padded and strided"], opset))
    assert op_types(converted_model(back)) == ["Conv", "Relu", "MaxPool", "Conv"]


def embedding(net: Net, y: Tensor, size: int = 2) -> Tensor:
    """Patches without overlap, as a vision transformer cuts them: [N, tokens, size²·C]."""
    channels, height, width = y.shape
    rows, columns = height // size, width // size
    y = net.op("Reshape", y, i64(0, channels, rows, size, columns, size))
    y = net.op("Transpose", y, perm=[0, 2, 4, 3, 5, 1])
    tokens, features = rows * columns, size * size * channels
    return net.op("Reshape", y, i64(0, tokens, features), shape=(tokens, features))


def embedding_by_rows(net: Net, y: Tensor) -> Tensor:
    """The same with the tokens along two axes."""
    channels, height, width = y.shape
    y = net.op("Reshape", y, i64(0, channels, height // 2, 2, width // 2, 2))
    y = net.op("Transpose", y, perm=[0, 2, 4, 1, 3, 5])
    shape = (height // 2, width // 2, 4 * channels)
    return net.op("Reshape", y, i64(0, *shape), shape=shape)


def unfold(net: Net, y: Tensor) -> Tensor:
    """torch.nn.Unfold: a Gather along each axis, [N, C·9, tokens], then transposed."""
    channels, height, width = y.shape
    down = np.arange(3)[:, None] + np.arange(height - 2)
    right = np.arange(3)[:, None] + np.arange(width - 2)
    y = net.op("Gather", net.op("Gather", y, down, axis=2), right, axis=4)
    y = net.op("Transpose", y, perm=[0, 1, 2, 4, 3, 5])
    tokens = (height - 2) * (width - 2)
    y = net.op("Reshape", y, i64(0, 9 * channels, tokens))
    return net.op("Transpose", y, perm=[0, 2, 1], shape=(tokens, 9 * channels))


def columns(net: Net, y: Tensor) -> Tensor:
    """Column by column of the map: [N, W, C·H], as text recognizers have it."""
    channels, height, width = y.shape
    y = net.op("Transpose", y, perm=[0, 3, 1, 2])
    shape = (width, channels * height)
    return net.op("Reshape", y, i64(0, *shape), shape=shape)


SPELLINGS: dict[Callable[[Net, Tensor], Tensor], tuple[tuple[int, ...], tuple[int, ...] | None]] = {
    embedding: ((2, 2), (2, 2)),
    embedding_by_rows: ((2, 2), (2, 2)),
    unfold: ((3, 3), None),
    columns: ((6, 1), None),
}


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.__name__)
def test_patches_by_hand(spelling: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net()
    rows = spelling(net, net.trunk(pool=False))
    y = net.op("MatMul", rows, net.random(rows.shape[-1], K))
    y = net.op("Relu", net.op("Add", y, net.random(K)), shape=(*rows.shape[:-1], K))
    conversion = assert_slides(net.model(net.head(y)))
    window, strides = SPELLINGS[spelling]
    assert conversion.heads[0].kernel_shape == (K, 3, *window)
    (conv,) = [n for n in converted_model(conversion).graph if n.op_type == "Conv"][1:2]
    assert conv.attributes.get_ints("strides", None) == strides


def test_rows_in_any_order() -> None:
    """Rows and elements may be shuffled: each says where it lies."""
    net = Net()
    rows = embedding(net, net.trunk(pool=False))
    tokens, features = rows.shape
    y = net.op("Gather", rows, np.random.default_rng(0).permutation(tokens), axis=1)
    y = net.op("Gather", y, np.random.default_rng(1).permutation(features), axis=2)
    y = net.op("Relu", net.op("MatMul", y, net.random(features, K)), shape=(tokens, K))
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.heads[0].kernel_shape == (K, 3, 2, 2)


def one_label_off(index: Array) -> None:
    index[20, 4] += 1


def one_row_missing(index: Array) -> None:
    index[-1] = index[0]


def one_row_moved(index: Array) -> None:
    index[9] = index[9] + 1


def one_pad_too_many(index: Array) -> None:
    index[7, 4] = 48


def pads_swapped(index: Array) -> None:
    index[0, 0], index[0, 8] = index[0, 8], index[0, 0]


@pytest.mark.parametrize(
    "fault",
    [one_label_off, one_row_missing, one_row_moved, one_pad_too_many, pads_swapped],
    ids=lambda fault: fault.__name__,
)
def test_what_is_almost_a_convolution_is_none(fault: Callable[[Array], None]) -> None:
    """One element elsewhere: as before, refused for the constants among the features."""
    matrices = convert_to_fc(network(Case((2, 6, 8), (3, 3), {"pads": [1, 1, 1, 1]}))).model
    (gather,) = [node for node in matrices.graph if node.op_type == "Gather"]
    stored = gather.inputs[1]
    assert stored is not None
    index = ir.convenience.get_const_tensor(stored).numpy().copy()  # type: ignore[union-attr]
    fault(index)
    stored.const_value = ir.tensor(index, name=stored.name)
    assert refusals(matrices)[0].code == "constant-features"


def test_padding_that_is_not_zero_is_none() -> None:
    matrices = convert_to_fc(network(CASES["padded"])).model
    (pad,) = [node for node in matrices.graph if node.op_type == "Pad"]
    value = ir.val("one", const_value=ir.tensor(np.array(1, np.float32), name="one"))
    matrices.graph.register_initializer(value)
    pad.resize_inputs(3)
    pad.replace_input_with(2, value)
    assert refusals(matrices)[0].code == "constant-features"
