"""Normalization over the whole image: of channels, and of groups of channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Array, Net, Tensor, conv, i64, session
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


def written_out(
    net: Net, y: Tensor, groups: int, squared: str = "Mul", *, last: bool = False
) -> Tensor:
    """GroupNorm as a mean, a difference, and so on; with channels last as TensorFlow has it."""
    channels, *extent = y.shape
    spread = channels // groups
    if last:
        turned = net.op("Transpose", y, perm=[0, 2, 3, 1])
        rows, axes = net.op("Reshape", turned, i64(-1, *extent, groups, spread)), [1, 2, 4]
    else:
        rows, axes = net.op("Reshape", y, i64(0, groups, -1)), [2]
    rest = net.op("Sub", rows, net.op("ReduceMean", rows, axes=axes, name="mean"))
    again = (rest, rest) if squared == "Mul" else (rest, np.array(2, np.float32))
    variance = net.op("ReduceMean", net.op(squared, *again), axes=axes)
    deviation = net.op("Sqrt", net.op("Add", variance, np.array(0.1, np.float32)))
    normal = net.op("Div", rest, deviation)
    if last:
        normal = net.op("Reshape", normal, i64(-1, *extent, channels))
        normal = net.op("Transpose", normal, perm=[0, 3, 1, 2])
    else:
        normal = net.op("Reshape", normal, i64(-1, *y.shape))
    ranks = [1] * len(extent)
    scaled = net.op("Mul", normal, net.random(channels, *ranks))
    return net.op("Add", scaled, net.random(channels, *ranks), shape=y.shape)


@pytest.mark.parametrize("trunk", [False, True])
@pytest.mark.parametrize(
    ("squared", "last"), [("Mul", False), ("Pow", False), ("Pow", True)], ids=str
)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization_written_out(
    groups: int, squared: str, last: bool, trunk: bool
) -> None:
    """Before a layer of the trunk or of the head: it sees the whole image, and is proven."""
    net = Net()
    y = written_out(net, conv(net, net.x, (H, W), channels=C), groups, squared, last=last)
    if trunk:
        y = conv(net, net.op("Relu", y, shape=y.shape), (4, 6))
    model = net.model(net.head(y))
    conversion = assert_slides(model, exact=False, gone=("Gemm", "MatMul", "Flatten"))
    assert "ReduceMean mean and 1 more see the whole image" in conversion.geometry["y"].why
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


@pytest.mark.parametrize("image", [(2, 12), (2, 8, 10), (2, 5, 6, 5)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("opset", [13, 18])
def test_written_out_it_normalizes_over_the_larger_image(
    image: tuple[int, ...], opset: int
) -> None:
    """What is written out gives the same as the operator, at any size."""
    maps: list[Array] = []
    for number in range(2):
        net = Net(opset=opset, image=image)
        y = conv(net, net.x, tuple(length - 2 for length in image[1:]), channels=C)
        if number:
            y = exported(net, y, 2)
        elif opset < 18:
            y = written_out(net, y, 2)
        else:
            rows = net.op("Reshape", y, i64(0, 2, -1))
            rest = net.op("Sub", rows, net.op("ReduceMean", rows, i64(2)))
            variance = net.op("ReduceMean", net.op("Mul", rest, rest), i64(-1), keepdims=0)
            variance = net.op("Unsqueeze", variance, i64(2))
            deviation = net.op("Sqrt", net.op("Add", variance, np.array(0.1, np.float32)))
            normal = net.op("Reshape", net.op("Div", rest, deviation), i64(-1, *y.shape))
            ranks = [1] * (len(image) - 1)
            scaled = net.op("Mul", normal, net.random(C, *ranks))
            y = net.op("Add", scaled, net.random(C, *ranks), shape=y.shape)
        model = net.model(net.head(y), y)
        larger = (length + 3 + n for n, length in enumerate(image[1:]))
        x = np.random.default_rng(1).normal(size=(2, 2, *larger)).astype(np.float32)
        maps.append(session(converted_model(convert(model)))({"x": x})["y2"])
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5)


@pytest.mark.parametrize("fault", ["groups", "epsilon"])
def test_a_fault_in_what_is_written_out_is_found(fault: str) -> None:
    net = Net()
    y = written_out(net, conv(net, net.x, (H, W), channels=C), 2)
    model = net.model(net.head(y))
    converted = converted_model(convert(model))
    assert check(model, converted)
    node = next(n for n in converted.graph if n.op_type == {"groups": "Gather"}.get(fault, "Add"))
    stored = node.inputs[1]
    assert stored is not None
    assert stored.const_value is not None
    array = stored.const_value.numpy()
    wrong = array[::-1].copy() if fault == "groups" else (array * 2).astype(array.dtype)
    stored.const_value = ir.tensor(wrong)
    assert not check(model, converted)


def test_the_mean_of_several_channels_is_no_pooling_of_windows() -> None:
    net = Net()
    rows = net.op("Reshape", net.trunk(channels=6), i64(0, 2, -1))
    means = net.op("ReduceMean", rows, axes=[2], keepdims=0, name="mean", shape=(2,))
    model = net.model(net.fc(means))
    assert convert(model).geometry["y"].stride == (0, 0)
    assert_refused(model, "window-pooling", "ReduceMean mean", pool="window")


def test_a_norm_as_the_function_of_the_operator_has_it() -> None:
    """GroupNormalization-21: casts to the type that there is, scale and shift of rows."""
    net = Net(opset=18)
    y = conv(net, net.x, (H, W), channels=C)
    rows = net.op("Reshape", net.op("Cast", y, to=1), i64(0, 2, -1))
    mean = net.op("ReduceMean", rows, i64(2))
    squares = net.op("ReduceMean", net.op("Mul", rows, rows), i64(2))
    variance = net.op("Sub", squares, net.op("Mul", mean, mean))
    deviation = net.op("Sqrt", net.op("Add", variance, np.array(0.1, np.float32)))
    normal = net.op("Div", net.op("Sub", rows, mean), deviation)
    channels = net.op("Cast", net.op("Reshape", normal, i64(0, C, -1)), to=1)
    scaled = net.op("Add", net.op("Mul", net.random(1, C, 1), channels), net.random(1, C, 1))
    model = net.model(net.head(net.op("Reshape", scaled, i64(-1, *y.shape), shape=y.shape)))
    report = check(model, converted_model(convert(model)))
    assert report, report.to_markdown()


def test_in_static_mode_nodes_may_stay_beside_what_they_become() -> None:
    """A convolution reads the rows brought back, a layer the map: each name is one node's."""
    net = Net()
    y = written_out(net, conv(net, net.x, (H, W), channels=C), 2)
    one, two = net.flat(y), net.flat(conv(net, y, (4, 6)))
    both = net.op("Concat", one, two, axis=1, shape=(one.size + two.size,))
    model = net.model(net.fc(net.op("Div", both, net.random(both.size), shape=both.shape), 4))
    static = converted_model(convert(model, static=True))
    names = [node.name for node in static.graph if node.name]
    assert len(set(names)) == len(names)
    assert check(model, static)


def test_a_norm_stays_one_of_the_image_where_windows_are_pooled() -> None:
    net = Net()
    y = written_out(net, conv(net, net.x, (H, W), channels=C), 2)
    pooled = Tensor(net.op("GlobalAveragePool", y).value, (C, 1, 1))
    model = net.model(net.head(pooled))
    conversion = convert(model, pool="window")
    assert [pooling.op_type for pooling in conversion.poolings] == ["GlobalAveragePool"]
    assert check(model, converted_model(conversion))


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
