"""Images without an axis for the channels or the batch, which the model itself adds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Net, Tensor, conv, i64, session
from tests.oracle import assert_refused, assert_slides, converted_model

GONE = ("Gemm", "MatMul", "Flatten", "Reshape", "Squeeze")


def unsqueezed(net: Net, y: Tensor, *axes: int) -> Tensor:
    made = (
        net.op("Unsqueeze", y, i64(*axes))
        if net.opset >= 13
        else net.op("Unsqueeze", y, axes=list(axes))
    )
    return Tensor(made.value, (1, *net.image[-2:]))


def by_unsqueeze(net: Net) -> Tensor:
    return unsqueezed(net, net.x, 1)


def by_negative_axis(net: Net) -> Tensor:
    return unsqueezed(net, net.x, -3)


def by_reshape(net: Net) -> Tensor:
    return net.op("Reshape", net.x, i64(-1, 1, *net.image), shape=(1, *net.image))


def scaled_first(net: Net) -> Tensor:
    return unsqueezed(net, net.op("Div", net.x, np.array(2, np.float32)), 1)


def of_absolute_values(net: Net) -> Tensor:
    return unsqueezed(net, net.op("Abs", net.x), 1)


def channels_last(net: Net) -> Tensor:
    """As Keras does it: [N, H, W, 1], then transposed for the convolution."""
    y = net.op("Transpose", unsqueezed(net, net.x, -1), perm=[0, 3, 1, 2])
    return Tensor(y.value, (1, *net.image))


SPELLINGS: list[Callable[[Net], Tensor]] = [
    by_unsqueeze,
    by_negative_axis,
    by_reshape,
    scaled_first,
    of_absolute_values,
    channels_last,
]


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_images_without_channels(spelling: Callable[[Net], Tensor], opset: int) -> None:
    net = Net(opset=opset, image=(8, 10))
    y = net.op("Relu", conv(net, spelling(net), (6, 8)), shape=(3, 6, 8))
    conversion = assert_slides(net.model(net.head(y)), lacks=(1,), gone=GONE)
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", "H", "W")
    assert conversion.after.outputs["y"] == ("N", 4, "y_H", "y_W")


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_audio(batch: int | str) -> None:
    """[N, L], as PyTorch's ``x.unsqueeze(1)`` takes it."""
    net = Net(image=(20,), batch=batch)
    y = Tensor(net.op("Unsqueeze", net.x, i64(1)).value, (1, 20))
    y = conv(net, y, (8,), kernel=5, strides=[2])
    conversion = assert_slides(
        net.model(net.head(y)), lacks=(1,), gone=GONE, free_batch=batch == "N"
    )
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", "L")


@pytest.mark.parametrize("spelling", ["once", "twice", "reshape"])
def test_one_image(spelling: str) -> None:
    """[H, W]: neither a batch nor channels."""
    net = Net(image=(10,), batch=8)
    match spelling:
        case "once":
            y = net.op("Unsqueeze", net.x, i64(0, 1))
        case "twice":
            y = net.op("Unsqueeze", net.op("Unsqueeze", net.x, i64(0)), i64(0))
        case _:
            y = net.op("Reshape", net.x, i64(1, 1, 8, 10))
    y = conv(net, Tensor(y.value, (1, 8, 10)), (6, 8))
    conversion = assert_slides(net.model(net.head(y)), lacks=(0, 1), gone=GONE, free_batch=False)
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("H", "W")
    assert conversion.after.outputs["y"] == (1, 4, "y_H", "y_W")


def test_one_color_photograph() -> None:
    """[H, W, C] without a batch."""
    net = Net(image=(10, 2), batch=8)
    y = net.op("Unsqueeze", net.op("Transpose", net.x, perm=[2, 0, 1]), i64(0))
    y = conv(net, Tensor(y.value, (2, 8, 10)), (6, 8))
    model = net.model(net.head(y))
    conversion = convert(model)
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("H", "W", 2)
    original, dense = session(model), session(converted_model(conversion))
    image = net.rng.normal(size=(11, 13, 2)).astype(np.float32)
    cells = dense({"x": image})["y"]
    for i, j in np.ndindex(*cells.shape[2:]):
        want = original({"x": image[i : i + 8, j : j + 10]})["y"]
        np.testing.assert_allclose(cells[:, :, i, j], want, atol=1e-5)


@pytest.mark.parametrize("batch", ["free", "none"])
@pytest.mark.parametrize("opset", [11, 13])
def test_the_check_knows_such_an_image(opset: int, batch: str) -> None:
    net = Net(opset=opset, image=(8, 10)) if batch == "free" else Net(opset, (10,), batch=8)
    y = unsqueezed(net, net.x, *((1,) if batch == "free" else (0, 1)))
    y = conv(net, Tensor(y.value, (1, 8, 10)), (6, 8))
    model = net.model(net.head(y))
    report = check(model, converted_model(convert(model)))
    assert report, report.to_markdown()
    tiers = {result.tier for result in report.results if result.status == "passed"}
    assert "image windows" in tiers


def test_a_flat_image_is_refused() -> None:
    """[N, 80] has no axes to make free."""
    net = Net(image=(80,))
    y = Tensor(net.op("Reshape", net.x, i64(-1, 1, 8, 10)).value, (1, 8, 10))
    assert_refused(net.model(net.head(conv(net, y, (6, 8)))), "nothing-to-convert")


def test_the_scores_of_an_image_without_channels_are_reduced() -> None:
    net = Net(image=(8, 10))
    model = net.model(net.head(conv(net, by_unsqueeze(net), (6, 8))))
    conversion = convert(model, reduce="mean")
    assert conversion.after is not None
    assert conversion.after.outputs["y"] == ("N", 4)
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()
