"""Sound [N, C, L] that passes layers of images: the model itself adds an axis of height 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Net, Tensor, conv, i64
from tests.oracle import assert_refused, assert_slides, converted_model

GONE = ("Gemm", "MatMul", "Flatten", "Reshape")


def stood_up(net: Net, y: Tensor, axis: int) -> Tensor:
    """[N, C, L] as [N, C, 1, L] or [N, C, L, 1]."""
    shape = list(y.shape)
    shape.insert(axis - 1, 1)
    if net.opset < 13:
        return net.op("Unsqueeze", y, axes=[axis], shape=tuple(shape))
    return net.op("Unsqueeze", y, i64(axis), shape=tuple(shape))


def laid_down(net: Net, y: Tensor, axis: int) -> Tensor:
    shape = list(y.shape)
    del shape[axis - 1]
    if net.opset < 13:
        return net.op("Squeeze", y, axes=[axis], shape=tuple(shape))
    return net.op("Squeeze", y, i64(axis), shape=tuple(shape))


def slid(net: Net, y: Tensor, axis: int, kernel: int, stride: int = 1) -> Tensor:
    """A Conv along the other spatial axis than this one, of length 1."""
    window, strides, extent = [kernel, kernel], [stride, stride], list(y.shape[1:])
    along = 3 - axis
    window[1 - along] = strides[1 - along] = 1
    extent[along] = (extent[along] - kernel) // stride + 1
    weight = net.random(3, y.shape[0], *window)
    return net.op("Conv", y, weight, net.random(3), strides=strides, shape=(3, *extent))


def once(net: Net, axis: int) -> Tensor:
    y = slid(net, stood_up(net, net.x, axis), axis, 5)
    return slid(net, net.op("Relu", y, shape=y.shape), axis, 3, 2)


def around_each_layer(net: Net, axis: int) -> Tensor:
    """As TensorFlow does it: what is not a Conv sees [N, C, L]."""
    y = laid_down(net, slid(net, stood_up(net, net.x, axis), axis, 5), axis)
    y = net.op("Relu", y, shape=y.shape)
    y = net.op("Add", y, net.random(3, 1), shape=y.shape)
    y = laid_down(net, slid(net, stood_up(net, y, axis), axis, 3, 2), axis)
    return net.op("Tanh", y, shape=y.shape)


def by_reshape(net: Net, axis: int) -> Tensor:
    shape = list(net.x.shape)
    shape.insert(axis - 1, 1)
    y = net.op("Reshape", net.x, i64(-1, *shape), shape=tuple(shape))
    return slid(net, y, axis, 5)


def pooled(net: Net, axis: int) -> Tensor:
    y = slid(net, stood_up(net, net.x, axis), axis, 3)
    window = [2, 1] if axis == 3 else [1, 2]
    extent = tuple(n // k for n, k in zip(y.shape[1:], window, strict=True))
    return net.op("MaxPool", y, kernel_shape=window, strides=window, shape=(3, *extent))


SPELLINGS: list[Callable[[Net, int], Tensor]] = [once, around_each_layer, by_reshape, pooled]


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_sound_through_layers_of_images(
    spelling: Callable[[Net, int], Tensor], axis: int, opset: int
) -> None:
    net = Net(opset=opset, image=(2, 20))
    model = net.model(net.head(spelling(net, axis)))
    conversion = assert_slides(model, gone=GONE)
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", 2, "L")
    assert conversion.after.outputs["y"] == ("N", 4, "y_L")
    assert conversion.geometry["y"].window == (20,)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()
    passed = {result.tier for result in report.results if result.status == "passed"}
    assert {"geometry", "feature windows", "image windows"} <= passed


def test_sound_with_the_channels_last() -> None:
    """As Keras stores it: [N, L, C]."""
    net = Net(image=(20, 2))
    y = net.op("Unsqueeze", net.x, i64(1))
    y = Tensor(net.op("Transpose", y, perm=[0, 3, 1, 2]).value, (2, 1, 20))
    y = slid(net, y, 2, 5)
    conversion = assert_slides(net.model(net.head(y)), gone=GONE, channels_last=True)
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", "L", 2)


def test_padding_along_the_axis_that_the_sound_lacks_is_seen_in_crops_too() -> None:
    net = Net(image=(2, 20))
    y = stood_up(net, net.x, 2)
    weight = net.random(3, 2, 3, 3)
    y = net.op("Conv", y, weight, pads=[1, 0, 1, 0], shape=(3, 1, 18), name="pads")
    conversion = assert_slides(net.model(net.head(y)), gone=GONE)
    clean = conversion.geometry["y"].clean_cells
    assert clean is not None
    assert clean.clean == clean.total == 18


def test_a_map_of_padding_above_the_sound() -> None:
    net = Net(image=(2, 20))
    y = stood_up(net, net.x, 2)
    y = net.op("Conv", y, net.random(3, 2, 2, 3), pads=[1, 0, 1, 0], shape=(3, 2, 18))
    assert_slides(net.model(net.head(y)), gone=GONE)


def test_features_of_two_axes() -> None:
    net = Net(image=(2, 20))
    y = net.head(slid(net, stood_up(net, net.x, 2), 2, 5), 6)
    model = net.model(net.op("Reshape", y, i64(-1, 2, 3), shape=(2, 3)))
    conversion = assert_slides(model, gone=("Gemm", "MatMul", "Flatten"))
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == ("N", 2, 3, "y_L")


@pytest.mark.parametrize("options", [{"pool": "keep"}, {"pool": "window"}, {"reduce": "mean"}])
def test_pooled_sound(options: dict[str, str]) -> None:
    net = Net(image=(2, 20))
    y = slid(net, stood_up(net, net.x, 2), 2, 5)
    if "pool" in options:
        y = net.op("GlobalAveragePool", y, shape=(3, 1, 1))
    model = net.model(net.head(y))
    conversion = convert(model, **options)  # type: ignore[arg-type]
    assert conversion.after is not None
    last = {"keep": (1,), "window": ("y_L",)}.get(options.get("pool", ""), ())
    assert conversion.after.outputs["y"] == ("N", 4, *last)
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()


def test_the_model_is_converted_once() -> None:
    """A second conversion finds nothing to do."""
    net = Net(image=(2, 20))
    model = net.model(net.head(slid(net, stood_up(net, net.x, 2), 2, 5)))
    assert_refused(converted_model(convert(model)), "nothing-to-convert")


def test_layers_of_sound_and_of_images_in_one_trunk_are_refused() -> None:
    net = Net(image=(2, 20))
    y = conv(net, net.x, (18,), kernel=3)
    y = slid(net, stood_up(net, y, 2), 2, 5)
    assert_refused(net.model(net.head(y)), "baked-size", "Conv", "[1, 3, 1, 18]")


def test_static_mode_keeps_its_size() -> None:
    net = Net(image=(2, 20), batch=1)
    model = net.model(net.head(slid(net, stood_up(net, net.x, 2), 2, 5)))
    conversion = convert(model, static=True)
    assert len(conversion.heads) == 1
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == (1, 4)
    assert check(model, converted_model(conversion))
    np.testing.assert_equal(conversion.after.inputs["x"], (1, 2, 20))
