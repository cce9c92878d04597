"""Features in any order: kernels are permuted, nothing is moved at run time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from tests.nets import Net, Tensor, i64, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
)

C, H, W = 3, 3, 4
D = C * H * W

Spelling = Callable[[Net, Tensor], Tensor]


def nhwc(net: Net, y: Tensor) -> Tensor:
    return net.flat(Tensor(net.op("Transpose", y, perm=[0, 2, 3, 1]).value, (H, W, C)))


def nwch(net: Net, y: Tensor) -> Tensor:
    return net.flat(Tensor(net.op("Transpose", y, perm=[0, 3, 1, 2]).value, (W, C, H)))


def channels_to_rows(net: Net, y: Tensor) -> Tensor:
    rows = net.op("Reshape", y, i64(0, C, -1))
    return net.op("Reshape", net.op("Transpose", rows, perm=[0, 2, 1]), i64(0, -1), shape=(D,))


def batch_last(net: Net, y: Tensor) -> Tensor:
    turned = net.op("Reshape", net.op("Transpose", y, perm=[1, 2, 3, 0]), i64(D, -1))
    return net.op("Transpose", turned, perm=[1, 0], shape=(D,))


def slice_back(net: Net, y: Tensor) -> Tensor:
    flat = net.flat(y)
    return net.op("Slice", flat, i64(-1), i64(-D - 1), i64(1), i64(-1), shape=(D,))


def slice_part(net: Net, y: Tensor) -> Tensor:
    return net.op("Slice", net.flat(y), i64(5), i64(29), i64(1), i64(2), shape=(12,))


def crop(net: Net, y: Tensor) -> Tensor:
    middle = net.op("Slice", y, i64(1, 1), i64(3, 3), i64(2, 3))
    return net.flat(Tensor(middle.value, (C, 2, 2)))


def gather_twice(net: Net, y: Tensor) -> Tensor:
    return net.op("Gather", net.flat(y), i64(3, 30, 3, 7, 0), axis=1, shape=(5,))


def split_and_swap(net: Net, y: Tensor) -> Tensor:
    first, second = net.ops("Split", net.flat(y), i64(10, 26), outputs=2, axis=1)
    return net.op("Concat", second, first, axis=1, shape=(D,))


def twice(net: Net, y: Tensor) -> Tensor:
    flat = net.flat(y)
    return net.op("Concat", flat, flat, axis=-1, shape=(2 * D,))


def two_flattens(net: Net, y: Tensor) -> Tensor:
    return net.op("Concat", nhwc(net, y), net.flat(y), axis=1, shape=(2 * D,))


def squeeze(net: Net, y: Tensor) -> Tensor:
    wide = net.op("Reshape", y, i64(0, 1, 1, D))
    return net.op("Squeeze", wide, i64(1, 2), shape=(D,))


def unsqueeze(net: Net, y: Tensor) -> Tensor:
    return net.op("Squeeze", net.op("Unsqueeze", net.flat(y), i64(2)), i64(-1), shape=(D,))


def identity(net: Net, y: Tensor) -> Tensor:
    return net.op("Identity", net.flat(net.op("Identity", y, shape=y.shape)), shape=(D,))


def cast_to_itself(net: Net, y: Tensor) -> Tensor:
    return net.op("Cast", net.flat(y), to=ir.DataType.FLOAT, shape=(D,))


def space_to_depth(net: Net, y: Tensor) -> Tensor:
    cut = net.op("Slice", y, i64(0), i64(2), i64(2))
    return net.flat(Tensor(net.op("SpaceToDepth", cut, blocksize=2).value, (12, 1, 2)))


def expand(net: Net, y: Tensor) -> Tensor:
    column = net.op("Unsqueeze", net.flat(y), i64(1))
    return net.op("Reshape", net.op("Expand", column, i64(1, 2, D)), i64(0, -1), shape=(2 * D,))


SPELLINGS: tuple[Spelling, ...] = (
    *(nhwc, nwch, channels_to_rows, batch_last, slice_back, slice_part, crop, gather_twice),
    *(split_and_swap, twice, two_flattens, squeeze, unsqueeze, identity, cast_to_itself),
    *(space_to_depth, expand),
)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.__name__)
def test_moved_features(spelling: Spelling) -> None:
    net = Net(opset=13)
    conversion = assert_slides(net.model(net.fc(spelling(net, net.trunk()))))
    assert conversion.model is not None
    assert op_types(conversion.model) == ["Conv", "Relu", "MaxPool", "Conv"]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.__name__)
def test_moved_features_of_two_layers(spelling: Spelling) -> None:
    """The same movements behind an FC layer, on a 1x1 map; an activation in between."""
    net = Net(opset=13)
    hidden = net.op("Tanh", net.fc(net.flat(net.trunk()), D))
    square = net.op("Reshape", hidden, i64(-1, C, H, W), shape=(C, H, W))
    assert_slides(net.model(net.fc(spelling(net, square))))


@pytest.mark.parametrize("opset", [9, 11])
def test_squeeze_with_attributes(opset: int) -> None:
    net = Net(opset=opset)
    wide = net.op("Unsqueeze", net.flat(net.trunk()), axes=[1])
    flat = net.op("Squeeze", wide, axes=[1], shape=(D,))
    assert_slides(net.model(net.fc(flat)))


def test_positions_that_depend_on_the_image_are_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    indices = net.op("Cast", flat, to=ir.DataType.INT64)
    y = net.op("GatherElements", flat, indices, axis=1, shape=(D,), name="pick")
    assert_refused(net.model(net.fc(y)), "data-dependent", "GatherElements pick")


@pytest.mark.parametrize("activation", [None, "Relu"])
def test_constant_features(activation: str | None) -> None:
    """Their part of the layer is a bias; a second layer has nothing of them."""
    net = Net(batch=1)
    y = net.op("Concat", net.random(1, 2), net.flat(net.trunk()), axis=1, shape=(D + 2,))
    if activation is not None:
        y = net.op(activation, y, shape=y.shape)
    conversion = assert_slides(net.model(net.fc(net.fc(y, 6))), free_batch=False)
    assert [layer.kernel_shape for layer in conversion.heads][-1] == (4, 6, 1, 1)


def test_constants_for_every_sample() -> None:
    """A column of ones, as many as there are samples."""
    net = Net()
    flat = net.flat(net.trunk())
    batch = net.op("Slice", net.op("Shape", flat), i64(0), i64(1), i64(0))
    shape = net.op("Concat", batch, i64(1), axis=0)
    ones = net.op("Expand", np.ones((1, 1), np.float32), shape)
    y = net.op("Concat", flat, ones, axis=1, shape=(D + 1,))
    assert_slides(net.model(net.fc(y)))


def test_constants_joined_with_a_map_are_refused() -> None:
    """Coordinates of the pixels: they fit one size."""
    net = Net(batch=1)
    y = net.op("Concat", net.x, net.random(1, 2, 8, 10), axis=1, shape=(4, 8, 10), name="c")
    assert_refused(net.model(net.head(y)), "constant-features", "Concat c")


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_padded_features(opset: int, value: float) -> None:
    """Channels added before a residual, as PyTorch's F.pad writes it."""
    net = Net(opset=opset)
    y = net.fc(net.flat(net.trunk()), 4)
    if opset < 11:
        y = net.op("Pad", y, pads=[0, 1, 0, 2], value=value)
    else:
        y = net.op("Pad", y, i64(0, 1, 0, 2), np.array(value, np.float32))
    y = net.op("Relu", y, shape=(7,))
    gone = ("Gemm", "Flatten", "Pad")
    assert_slides(net.model(net.op("Add", net.fc(y, 7), y)), gone=gone)


def test_features_padded_along_some_axes() -> None:
    net = Net(opset=18)
    y = net.op("Pad", net.flat(net.trunk()), i64(3, 1), None, i64(1), shape=(D + 4,))
    assert_slides(net.model(net.fc(y)))


def test_features_padded_with_features() -> None:
    net = Net()
    y = net.op("Pad", net.flat(net.trunk()), i64(0, 3, 0, 1), mode="edge", shape=(D + 4,))
    assert_slides(net.model(net.fc(y)))


def test_padded_samples_are_refused() -> None:
    net = Net()
    y = net.op("Pad", net.flat(net.trunk()), i64(1, 0, 0, 0), shape=(D,), name="p")
    assert_refused(net.model(net.fc(y)), "batch-mixing", "Pad p")


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("layer", [True, False])
def test_a_score_for_the_background(opset: int, batch: str | int, layer: bool) -> None:
    """Constants beside the scores, and an operator that needs both."""
    net = Net(opset=opset, batch=batch)
    scores = net.fc(net.flat(net.trunk()), 3)
    if opset < 11:
        y = net.op("Pad", scores, pads=[0, 1, 0, 2], value=0.5)
    else:
        y = net.op("Pad", scores, i64(0, 1, 0, 2), np.array(0.5, np.float32))
    y = net.op("Softmax", y, axis=1)
    if layer:
        y = net.fc(Tensor(y.value, (6,)))
    gone = ("Gemm", "MatMul", "Flatten")
    assert_slides(net.model(y), gone=gone, free_batch=batch == "N")


def test_many_constants_beside_the_scores_are_refused() -> None:
    net = Net(batch=1)
    scores = net.fc(net.flat(net.trunk()), 3)
    y = net.op("Concat", scores, net.random(1, 12), axis=1)
    y = net.op("Softmax", y, axis=1)
    assert_refused(net.model(y), "constant-features", "Softmax", "with 12 constants")


def test_an_activation_of_one_feature_in_five() -> None:
    net = Net()
    one, rest = net.ops("Split", net.head(net.trunk(), 5), i64(1, 4), outputs=2, axis=1)
    y = net.op("Concat", rest, net.op("Tanh", one), axis=1, shape=(5,))
    assert_slides(net.model(net.fc(y)))
