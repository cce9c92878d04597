"""Maps that meet: concatenated, added, joined, and those that must not."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fc2conv import check
from tests.nets import Net, Tensor, conv, session
from tests.oracle import (
    assert_refused,
    assert_slides,
    converted_model,
)


def test_branches_concatenated() -> None:
    net = Net()
    one, two = conv(net, net.x, (6, 8)), conv(net, net.x, (6, 8))
    joined = net.op("Concat", one, net.op("Relu", two), axis=1, shape=(6, 6, 8))
    y = net.op("Concat", joined, one, axis=-3, shape=(9, 6, 8))
    assert_slides(net.model(net.head(y)))


def test_residual_trunk() -> None:
    net = Net()
    stem = conv(net, net.x, (6, 8))
    inner = conv(net, Tensor(net.op("Relu", stem).value, stem.shape), (6, 8), kernel=1)
    assert_slides(net.model(net.head(net.op("Add", stem, inner, shape=stem.shape))))


def test_a_pooled_image_joined_with_a_map_is_refused() -> None:
    """The map grows, what was pooled over the whole image does not."""
    net = Net(image=(2, 3, 3))
    one = conv(net, net.x, (1, 1))
    two = net.op("GlobalMaxPool", net.x, shape=(2, 1, 1))
    y = net.op("Concat", one, two, axis=1, shape=(5, 1, 1), name="join")
    assert_refused(net.model(net.head(y)), "misaligned", "Concat join")


def test_branches_of_different_strides_are_refused() -> None:
    net = Net(image=(2, 6, 6))
    one = conv(net, net.x, (2, 2), strides=[2, 2])
    two = conv(net, net.x, (2, 2), strides=[3, 3])
    y = net.op("Add", one, two, shape=(3, 2, 2), name="join")
    assert_refused(net.model(net.head(y)), "misaligned", "Add join", "strides 2 and 3")


def test_layers_whose_maps_grow_apart_are_refused() -> None:
    """Both maps have one cell at the native size, but not at the next one."""
    net = Net(image=(2, 7, 7))
    one = conv(net, net.x, (3, 3), kernel=3, strides=[2, 2])
    two = conv(net, net.x, (3, 3), kernel=2, strides=[2, 2])
    y = net.op("Add", net.head(one), net.head(two), shape=(4,), name="join")
    assert_refused(net.model(y), "misaligned", "Add join")


@pytest.mark.parametrize("op_type", ["Concat", "Add"])
def test_maps_that_grow_apart(op_type: str) -> None:
    """At 7 pixels both have 3 cells, at 8 pixels 3 and 4: then the original does not run either."""
    net = Net(image=(2, 7, 7))
    one = conv(net, net.x, (3, 3), kernel=3, strides=[2, 2])
    two = conv(net, net.x, (3, 3), kernel=2, strides=[2, 2])
    axis = {"axis": 1} if op_type == "Concat" else {}
    channels = 6 if op_type == "Concat" else 3
    y = net.op(op_type, one, two, shape=(channels, 3, 3), name="join", **axis)
    model = net.model(net.head(y))
    conversion = assert_slides(model)
    geometry = conversion.geometry["y"]
    assert geometry.size_step == (2, 2)
    assert "multiples of 2×2" in geometry.why
    assert f"{op_type} join" in geometry.why
    dense = converted_model(conversion)
    with pytest.raises(Exception, match="join"):
        session(dense)({"x": np.zeros((1, 2, 8, 9), np.float32)})
    report = check(model, dense)
    assert report, report.to_markdown()


def test_a_stem_whose_branches_are_padded_in_different_ways() -> None:
    """ResNet-D, Xception: the pads of either branch are those that SAME means at 8×10 pixels."""
    net = Net()
    one = conv(net, net.x, (4, 5), kernel=3, strides=[2, 2], auto_pad="SAME_UPPER")
    pooled = net.op("AveragePool", net.x, kernel_shape=[2, 2], strides=[2, 2], shape=(2, 4, 5))
    y = net.op("Add", one, conv(net, pooled, (4, 5), kernel=1), shape=one.shape, name="join")
    model = net.model(net.head(y))
    conversion = assert_slides(model, exact=False)
    assert conversion.geometry["y"].size_step is None  # both take two pixels for a cell
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


def test_padded_branches_that_grow_apart() -> None:
    net = Net(image=(2, 9, 9))
    one = conv(net, net.x, (5, 5), kernel=3, strides=[2, 2], pads=[1, 1, 1, 1])
    two = conv(net, net.x, (5, 5), kernel=2, strides=[2, 2], pads=[1, 1, 0, 0])
    three = conv(net, net.x, (5, 5), kernel=2, strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.op("Concat", one, two, three, axis=1, shape=(9, 5, 5), name="join")
    model = net.model(net.head(y))
    conversion = assert_slides(model, exact=False)
    assert conversion.geometry["y"].size_step == (2, 2)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


def test_two_images() -> None:
    """Siamese towers on two images of one size."""
    net = Net()
    other = net.input("x2", ("N", 2, 8, 10))
    kernel = net.weight(net.random(3, 2, 3, 3))
    towers = [net.op("Conv", image, kernel, shape=(3, 6, 8)) for image in (net.x, other)]
    y = net.op("Sub", net.head(towers[0]), net.head(towers[1]), shape=(4,))
    assert_slides(net.model(net.op("Abs", y)))


def test_two_images_of_different_sizes_are_refused() -> None:
    net = Net()
    other = net.input("x2", ("N", 2, 5, 5))
    y = net.op("Add", net.head(net.x), net.head(other), shape=(4,), name="join")
    assert_refused(net.model(y), "misaligned", "Add join")
