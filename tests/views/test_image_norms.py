"""Normalization over the whole image: of channels, and of groups of channels."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Net, Tensor, conv, i64, session
from tests.oracle import assert_refused, assert_slides, converted_model

C, H, W = 6, 6, 8
GONE = ("Gemm", "MatMul", "Flatten", "Transpose")


def exported(net: Net, y: Tensor, groups: int, *, back: str = "constant") -> Tensor:
    """GroupNorm as PyTorch exports it; the shape of the last Reshape is computed or a constant."""
    channels, *extent = y.shape
    rows = net.op("Reshape", y, i64(0, groups, -1))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normal = net.op("InstanceNormalization", rows, ones, zeros, epsilon=0.1, name="norm")
    shape = i64(-1, *y.shape) if back == "constant" else net.op("Shape", y)
    normal = net.op("Reshape", normal, shape)
    ranks = [1] * len(extent)
    scaled = net.op("Mul", normal, net.random(channels, *ranks))
    return net.op("Add", scaled, net.random(channels, *ranks), shape=y.shape)


@pytest.mark.parametrize("back", ["constant", "computed"])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_normalization_in_pieces(groups: int, back: str) -> None:
    net = Net()
    y = exported(net, conv(net, net.x, (H, W), channels=C), groups, back=back)
    y = conv(net, net.op("Relu", y, shape=y.shape), (4, 6))
    model = net.model(net.head(y))
    conversion = assert_slides(model, exact=False, gone=GONE)
    assert "InstanceNormalization norm sees the whole image" in conversion.geometry["y"].why
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


def test_it_normalizes_over_the_larger_image() -> None:
    """Against numpy, at a size that is not the native one."""
    net = Net()
    y = exported(net, conv(net, net.x, (H, W), channels=C), 2)
    model = net.model(net.head(conv(net, y, (4, 6))), y)
    dense = session(converted_model(convert(model)))
    image = net.rng.normal(size=(2, 2, 11, 15)).astype(np.float32)
    got = dense({"x": image})["y2"]
    stored = [v.const_value.numpy() for v in net.initializers if v.const_value is not None]
    kernel, bias, scale, shift = stored[0], stored[1], stored[6], stored[7]
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (2, 3))
    features = np.einsum("nchwij,kcij->nkhw", windows, kernel) + bias[:, None, None]
    rows = features.reshape(2, 2, -1)
    mean, variance = rows.mean(2, keepdims=True), rows.var(2, keepdims=True)
    normal = ((rows - mean) / np.sqrt(variance + 0.1)).reshape(features.shape)
    np.testing.assert_allclose(got, normal * scale + shift, atol=1e-4)


@pytest.mark.parametrize("image", [(2, 12), (2, 5, 6, 5)], ids=["1-D", "3-D"])
def test_group_normalization_in_other_ranks(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    extent = tuple(length - 2 for length in image[1:])
    y = exported(net, conv(net, net.x, extent, channels=C), 2)
    y = conv(net, y, tuple(length - 2 for length in extent))
    assert_slides(net.model(net.head(y)), exact=False, gone=GONE)


@pytest.mark.parametrize("reshaped", [False, True])
def test_group_normalization(reshaped: bool) -> None:
    net = Net(opset=21, ir_version=10)
    y = conv(net, net.x, (H, W), channels=C)
    if reshaped:
        y = net.op("Reshape", net.flat(y), i64(-1, C, H, W), shape=y.shape)
    normal = net.op(
        "GroupNormalization", y, net.random(C), net.random(C), num_groups=2, shape=y.shape
    )
    conversion = assert_slides(
        net.model(net.head(conv(net, normal, (4, 6)))), exact=False, gone=GONE
    )
    assert "GroupNormalization" in conversion.geometry["y"].why


def test_instance_normalization_before_a_layer() -> None:
    net = Net()
    rows = net.op("Reshape", net.trunk(), i64(0, 3, -1))
    y = net.op("InstanceNormalization", rows, net.random(3), net.random(3), name="n")
    model = net.model(net.head(Tensor(y.value, (3, 12))))
    conversion = assert_slides(model, exact=False, gone=GONE)
    assert "InstanceNormalization n" in conversion.geometry["y"].why


def test_groups_that_are_not_channels_are_refused() -> None:
    net = Net()
    rows = net.op("Reshape", net.trunk(), i64(0, 4, -1))
    y = net.op("InstanceNormalization", rows, net.random(4), net.random(4), name="n")
    y = Tensor(y.value, (4, 9))
    assert_refused(net.model(net.head(y)), "flattened-features", "InstanceNormalization n")


def test_groups_of_the_features_of_a_layer_are_refused() -> None:
    net = Net()
    y = net.op("Reshape", net.fc(net.flat(net.trunk()), 6), i64(0, 2, 3))
    y = net.op("InstanceNormalization", y, net.random(2), net.random(2), name="n", shape=(2, 3))
    assert_refused(net.model(net.head(y)), "slides-after-fc", "InstanceNormalization n")


@pytest.mark.parametrize("axes", [None, [0, 2, 3]])
def test_a_normalization_over_the_samples_is_refused(axes: list[int] | None) -> None:
    """The default of MeanVarianceNormalization."""
    net = Net()
    given = {} if axes is None else {"axes": axes}
    y = net.op("MeanVarianceNormalization", net.trunk(), shape=(3, 3, 4), name="mvn", **given)
    assert_refused(
        net.model(net.head(y)), "batch-mixing", "MeanVarianceNormalization mvn", "samples"
    )
