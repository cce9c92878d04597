"""Blocks of cells turned into channels, and back: SpaceToDepth, Focus, PixelShuffle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Net, Tensor, conv, i64, op_types, session
from tests.oracle import assert_refused, assert_slides, converted_model

GONE = ("Gemm", "MatMul", "Flatten", "Reshape", "Transpose")
END = 2**63 - 1


def operator(net: Net, y: Tensor, block: int) -> Tensor:
    channels, height, width = y.shape
    shape = (channels * block**2, height // block, width // block)
    return net.op("SpaceToDepth", y, blocksize=block, shape=shape)


def pixel_unshuffle(net: Net, y: Tensor, block: int) -> Tensor:
    """As PyTorch exports it: channel c·b² + i·b + j."""
    channels, height, width = y.shape
    rows, columns = height // block, width // block
    split = net.op("Reshape", y, i64(-1, channels, rows, block, columns, block))
    turned = net.op("Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    shape = (channels * block**2, rows, columns)
    return net.op("Reshape", turned, i64(-1, *shape), shape=shape)


def channels_last(net: Net, y: Tensor, block: int) -> Tensor:
    """As Keras models write it: [N, H, W, C]."""
    channels, height, width = y.shape
    rows, columns = height // block, width // block
    y = net.op("Transpose", y, perm=[0, 2, 3, 1])
    split = net.op("Reshape", y, i64(-1, rows, block, columns, block, channels))
    turned = net.op("Transpose", split, perm=[0, 1, 3, 2, 4, 5])
    shape = (channels * block**2, rows, columns)
    y = net.op("Reshape", turned, i64(-1, rows, columns, shape[0]))
    return net.op("Transpose", y, perm=[0, 3, 1, 2], shape=shape)


def focus(net: Net, y: Tensor, block: int) -> Tensor:
    """YOLOv5: every other pixel of every other row, four times."""
    channels, height, width = y.shape
    parts: list[Tensor] = []
    for j in range(block):
        for i in range(block):
            rows = net.op("Slice", y, i64(i), i64(END), i64(2), i64(block))
            parts.append(net.op("Slice", rows, i64(j), i64(END), i64(3), i64(block)))
    shape = (channels * block**2, height // block, width // block)
    return net.op("Concat", *parts, axis=1, shape=shape)


Spelling = Callable[[Net, Tensor, int], Tensor]
SPELLINGS: list[Spelling] = [operator, pixel_unshuffle, channels_last, focus]


@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_blocks_before_a_convolution(spelling: Spelling, block: int) -> None:
    net = Net(image=(2, 12, 18))
    y = spelling(net, net.x, block)
    y = conv(net, y, (y.shape[1] - 1, y.shape[2] - 1), kernel=2)
    model = net.model(net.head(y))
    conversion = assert_slides(model, gone=GONE)
    geometry = conversion.geometry["y"]
    assert geometry.stride == geometry.size_step == (block, block)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_blocks_of_a_padded_map(spelling: Spelling) -> None:
    """The check finds the trunk again."""
    net = Net(image=(2, 12, 14))
    y = conv(net, net.x, (12, 14), pads=[1, 1, 1, 1])
    y = spelling(net, y, 2)
    y = conv(net, y, (6, 7), pads=[1, 1, 1, 1])
    model = net.model(net.head(net.op("MaxPool", y, kernel_shape=[2, 2], shape=(3, 5, 6))))
    conversion = assert_slides(model, gone=GONE, exact=False)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_layers_between(spelling: Spelling) -> None:
    net = Net(image=(2, 8, 12))
    y = spelling(net, net.x, 2)
    parameters = [np.abs(net.random(8)) for _ in range(4)]
    normal = net.op("Relu", net.op("BatchNormalization", y, *parameters))
    shifted = net.op("Add", normal, net.random(8, 1, 1), shape=y.shape)
    assert_slides(net.model(net.head(conv(net, shifted, (3, 5), kernel=2))), gone=GONE)


@pytest.mark.parametrize("spelling", SPELLINGS[:3])
def test_blocks_before_a_layer_slide_by_pixels(spelling: Spelling) -> None:
    """Nothing needs the blocks: the layer reads the map itself."""
    net = Net(image=(2, 8, 12))
    conversion = assert_slides(net.model(net.head(spelling(net, net.x, 2))), gone=GONE)
    assert conversion.geometry["y"].stride == (1, 1)
    assert "SpaceToDepth" not in op_types(converted_model(conversion))


def shuffled(net: Net, y: Tensor, block: int) -> Tensor:
    """PixelShuffle as older exporters write it."""
    channels, height, width = y.shape
    split = net.op("Reshape", y, i64(-1, channels // block**2, block, block, height, width))
    turned = net.op("Transpose", split, perm=[0, 1, 4, 2, 5, 3])
    shape = (channels // block**2, height * block, width * block)
    return net.op("Reshape", turned, i64(-1, *shape), shape=shape)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_blocks_there_and_back(spelling: Spelling) -> None:
    """A coarse convolution, whose cells are made fine again, then taken together by a stride."""
    net = Net(image=(2, 8, 12))
    y = conv(net, spelling(net, net.x, 2), (4, 6), kernel=1, channels=8)
    y = conv(net, shuffled(net, y, 2), (4, 6), kernel=2, strides=[2, 2])
    conversion = assert_slides(net.model(net.head(y)), gone=GONE)
    assert conversion.geometry["y"].stride == (2, 2)


def test_blocks_that_were_shifted_are_refused() -> None:
    """A block that reaches over into the next one is none."""
    net = Net(image=(2, 8, 12))
    y = net.op("Reshape", net.x, i64(-1, 8, 4, 6), shape=(8, 4, 6))
    y = conv(net, y, (3, 5), kernel=2)
    assert_refused(net.model(net.head(y)), "baked-size", "Conv")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_sizes_fail_loudly(spelling: Spelling) -> None:
    net = Net(image=(2, 8, 12))
    y = conv(net, spelling(net, net.x, 2), (3, 5), kernel=2)
    dense = session(converted_model(convert(net.model(net.head(y)))))
    with pytest.raises(Exception, match=r"Concat|SpaceToDepth|block"):
        dense({"x": np.zeros((1, 2, 9, 13), np.float32)})
