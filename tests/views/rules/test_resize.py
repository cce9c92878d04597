"""Maps on another grid: resized, cropped, split, their channels turned into cells."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import check
from onnx_fc2conv.passes import FcToConv, FreeInputSize
from onnx_fc2conv.pipeline import convert
from onnx_fc2conv.views import output_geometry
from tests.nets import Array, Net, Tensor, conv, i64, session
from tests.oracle import assert_close, assert_refused, assert_slides, converted_model


def scales(*factors: float) -> Array:
    return np.array([1, 1, *factors], np.float32)


def resized(net: Net, y: Tensor, factor: float, **attributes: Any) -> Tensor:
    extent = tuple(int(length * factor) for length in y.shape[1:])
    roi = np.zeros(0, np.float32) if net.opset < 13 else None
    inputs = (roi, scales(*[factor] * len(extent)))
    made = net.op("Resize", y, *inputs, name="resize", **attributes)
    return Tensor(made.value, (y.shape[0], *extent))


def strided(net: Net, stride: int = 2) -> Tensor:
    extent = tuple((n - 2) // stride + 1 for n in net.image[1:])
    return conv(net, net.x, extent, kernel=2, strides=[stride] * 2)


def assert_every_other_cell(
    model: onnx.ModelProto,
    step: int,
    native: tuple[int, int] = (8, 10),
    stride: tuple[int, int] = (1, 1),
) -> None:
    """Each ``step``-th cell of the map is the original on its crop; the others have no crop."""
    assert_refused(model, "subdivided-cells", "output y", f"only one in {step} cells")
    converted = ir.from_proto(model)
    fc_to_conv = FcToConv()
    plan = fc_to_conv.plan(converted)
    geometry = output_geometry(plan.outputs[0], plan.inputs)
    assert not geometry.windows_exact
    assert geometry.stride == stride
    fc_to_conv.apply(plan, converted)
    FreeInputSize()(converted)
    dense, original = session(converted), session(model)
    image = np.random.default_rng(5).normal(size=(1, 2, 14, 17)).astype(np.float32)
    got = dense({"x": image})["y"]
    for p, q in product(*(range(0, n, step) for n in got.shape[2:])):
        a, b = p * stride[0], q * stride[1]
        crop = image[:, :, a : a + native[0], b : b + native[1]]
        if crop.shape[2:] == native:
            assert_close(got[:, :, p, q], original({"x": crop})["y"], 1e-5, f"cell {p}, {q}")


def assert_whole_strides(model: onnx.ModelProto, stride: int) -> None:
    """The layer moves on by as many cells as each became, so that all its cells have a crop."""
    conversion = assert_slides(model)
    assert conversion.geometry["y"].stride == (stride, stride)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()


IN_PLACE = [
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"mode": "nearest"},
    {"mode": "nearest", "coordinate_transformation_mode": "pytorch_half_pixel"},
    {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
    {
        "mode": "nearest",
        "coordinate_transformation_mode": "tf_half_pixel_for_nn",
        "nearest_mode": "floor",
    },
]


@pytest.mark.parametrize("attributes", IN_PLACE, ids=lambda a: "-".join(map(str, a.values())))
@pytest.mark.parametrize("factor", [2, 3])
def test_copies_of_each_cell(factor: int, attributes: dict[str, Any]) -> None:
    net = Net()
    y = resized(net, strided(net, factor), factor, **attributes)
    assert_whole_strides(net.model(net.head(y)), factor)


@pytest.mark.parametrize("factor", [2, 3])
def test_copies_that_a_convolution_reads_as_a_whole_are_refused(factor: int) -> None:
    """Only a fully connected layer may move on by several cells: a Conv stays as it is."""
    net = Net()
    y = resized(net, strided(net, factor), factor)
    whole = net.op("Conv", y, net.random(4, *y.shape), shape=(4, 1, 1))
    assert_every_other_cell(net.model(net.flat(whole), net.head(net.x)), factor)


@pytest.mark.parametrize("factor", [2, 3])
def test_copies_before_a_convolution_of_the_whole_and_a_layer(factor: int) -> None:
    net = Net()
    y = resized(net, strided(net, factor), factor)
    whole = net.op("Relu", net.op("Conv", y, net.random(4, *y.shape)), shape=(4, 1, 1))
    assert_whole_strides(net.model(net.head(whole)), factor)


def test_copies_of_each_position_read_by_a_layer_each() -> None:
    """Tokens: the first layer keeps all positions, the second one takes whole strides."""
    net = Net()
    y = resized(net, strided(net), 2)
    rows = net.op("Transpose", net.op("Reshape", y, i64(0, 3, -1)), perm=[0, 2, 1])
    rows = net.op("MatMul", rows, net.random(3, 4), shape=(80, 4))
    conversion = assert_slides(net.model(net.head(rows)), gone=("Gemm", "Flatten"))
    assert conversion.geometry["y"].stride == (2, 2)


@pytest.mark.parametrize("attributes", IN_PLACE[:2], ids=["asymmetric", "half_pixel"])
def test_copies_that_a_stride_takes_together_again(attributes: dict[str, Any]) -> None:
    net = Net()
    y = resized(net, strided(net), 2, **attributes)
    y = net.op("Conv", y, net.random(3, 3, 3, 3), strides=[2, 2], shape=(3, 3, 4))
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.geometry["y"].stride == (2, 2)


@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "cubic"},
        {"mode": "nearest", "nearest_mode": "ceil"},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
    ],
    ids=lambda a: "-".join(map(str, a.values())),
)
def test_neighbors_are_a_border_effect(attributes: dict[str, Any]) -> None:
    net = Net()
    y = resized(net, strided(net), 2, **attributes)
    y = net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2], shape=(3, 4, 5))
    conversion = assert_slides(net.model(net.head(y)), exact=False)
    assert "Resize resize pads" in conversion.geometry["y"].why


@pytest.mark.parametrize("opset", [11, 13, 19])
@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "nearest"},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    ],
    ids=lambda a: "-".join(map(str, a.values())),
)
@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_fewer_cells(factor: float, attributes: dict[str, Any], opset: int) -> None:
    net = Net(opset=opset, image=(2, 9, 11))
    y = resized(net, net.x, factor, **attributes)
    conversion = assert_slides(net.model(net.head(y)))
    assert conversion.geometry["y"].stride == (int(1 / factor),) * 2


@pytest.mark.parametrize(("opset", "op_type"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize")])
def test_earlier_versions(op_type: str, opset: int) -> None:
    net = Net(opset=opset)
    y = strided(net)
    if opset < 9:
        up = net.op(op_type, y, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    else:
        up = net.op(op_type, y, scales(2, 2), mode="nearest")
    assert_whole_strides(net.model(net.head(Tensor(up.value, (3, 8, 10)))), 2)


def test_a_factor_of_1() -> None:
    net = Net()
    y = resized(net, net.trunk(), 1, mode="linear")
    assert_slides(net.model(net.head(y)))


def test_a_feature_pyramid() -> None:
    """A coarse map brought back to the size of a finer one (Lin et al. 2017)."""
    net = Net(image=(2, 8, 12))
    fine = conv(net, net.x, (4, 6), kernel=2, strides=[2, 2])
    coarse = conv(net, fine, (2, 3), kernel=2, strides=[2, 2])
    y = net.op("Add", fine, resized(net, coarse, 2), shape=(3, 4, 6))
    y = conv(net, y, (2, 3), kernel=2, strides=[2, 2])
    geometry = convert(net.model(net.head(y))).geometry["y"]
    assert geometry.stride == (4, 4)
    assert geometry.windows_exact


@pytest.mark.parametrize(
    ("factor", "attributes", "code", "reason"),
    [
        (1.5, {}, "misaligned", "resizes by 1.5"),
        (2, {"coordinate_transformation_mode": "align_corners"}, "misaligned", "align_corners"),
        (3, {}, "misaligned", "fractions of pixels"),
    ],
)
def test_grids_that_do_not_stay(
    factor: float, attributes: dict[str, Any], code: str, reason: str
) -> None:
    net = Net()
    y = resized(net, strided(net), factor, **attributes)
    assert_refused(net.model(net.head(y)), code, "Resize resize", reason)


def test_a_size_computed_from_another_map_is_refused() -> None:
    net = Net()
    y = strided(net)
    both = net.op("Concat", net.op("Shape", y), i64(), axis=0)
    up = net.op("Resize", y, None, None, both, mode="nearest", shape=y.shape, name="up")
    assert_refused(net.model(net.head(up)), "baked-size", "Resize up", "not by a factor")


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_channels_become_cells(mode: str) -> None:
    net = Net()
    y = conv(net, net.x, (4, 5), kernel=2, strides=[2, 2], channels=8)
    y = net.op("DepthToSpace", y, blocksize=2, mode=mode, shape=(2, 8, 10), name="shuffle")
    again = net.op("PRelu", y, net.random(2, 1, 1), shape=y.shape)
    assert_whole_strides(net.model(net.head(again)), 2)


SLICES: dict[str, tuple[list[int], list[int], list[int], list[int] | None, tuple[int, ...]]] = {
    "rows": ([1], [-1], [2], None, (3, 4, 8)),
    "rest": ([1, 2], [2**31 - 1, 2**63 - 1], [2, 3], None, (3, 5, 6)),
    "negative axes": ([0, 2], [-2, -1], [-2, -1], [1, 1], (3, 4, 5)),
    "steps": ([1, 0], [2**63 - 1, 2**63 - 1], [2, 3], [2, 3], (3, 3, 3)),
    "channels": ([1], [3], [1], None, (2, 6, 8)),
    "channels and rows": ([0, 1], [2, 2**63 - 1], [1, 2], None, (2, 5, 8)),
}


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("case", SLICES)
def test_slices_of_a_map(case: str, opset: int) -> None:
    starts, ends, axes, steps, shape = SLICES[case]
    net = Net(opset=opset)
    y = conv(net, net.x, (6, 8))
    if opset < 10:
        if steps is not None and set(steps) != {1}:
            pytest.skip("no steps")
        y = net.op("Slice", y, starts=starts, ends=ends, axes=axes)
    else:
        given = () if steps is None else (i64(*steps),)
        y = net.op("Slice", y, i64(*starts), i64(*ends), i64(*axes), *given)
    y = net.op("Conv", y, net.random(2, shape[0], 2, 2), strides=[1, 2])
    after = (2, shape[1] - 1, (shape[2] - 2) // 2 + 1)
    assert_slides(net.model(net.head(Tensor(y.value, after))))


@pytest.mark.parametrize(("start", "end"), [(1, 5), (-4, 2**63 - 1), (0, 6)])
def test_a_slice_of_the_native_size_is_refused(start: int, end: int) -> None:
    net = Net()
    y = conv(net, net.x, (6, 8))
    y = net.op("Slice", y, i64(start), i64(end), i64(2))
    y = net.op("Conv", y, net.random(2, 3, 2, 2), name="late")
    height = len(range(6)[start:end]) - 1
    model = net.model(net.head(Tensor(y.value, (2, height, 7))))
    if (start, end) == (0, 6):
        assert_slides(model)  # all of it: nothing is cut
    else:
        assert_refused(model, "baked-size", "Conv late")


def test_normalized_halves() -> None:
    """Split channels, each with a normalization of its own."""
    net = Net()
    halves = net.ops("Split", conv(net, net.x, (6, 8), channels=4), i64(1, 3), outputs=2, axis=1)
    made = [
        net.op("BatchNormalization", half, *[np.abs(net.random(n)) for _ in range(4)])
        for half, n in zip(halves, (1, 3), strict=True)
    ]
    y = net.op("Concat", *reversed(made), axis=1, shape=(4, 6, 8))
    assert_slides(net.model(net.head(conv(net, y, (4, 6)))))


def test_gathered_channels() -> None:
    net = Net()
    y = net.op("Gather", conv(net, net.x, (6, 8)), i64(2, 0, -1, 2), axis=1, shape=(4, 6, 8))
    assert_slides(net.model(net.head(conv(net, y, (4, 6)))))


@pytest.mark.parametrize(
    ("pads", "axes", "exact"),
    [
        ([1, 0, 0, 2], (2, 3), False),
        ([1, 1], (-1,), False),
        ([-1, 0, -1, -2], (2, 3), True),
        ([0, -1, 0, 1], (2, 3), False),
    ],
)
def test_pads_of_some_axes(pads: list[int], axes: tuple[int, ...], exact: bool) -> None:
    net = Net(opset=18)
    extent = [6, 8]
    for position, axis in enumerate(axes):
        extent[axis % 4 - 2] += pads[position] + pads[len(axes) + position]
    y = net.op("Pad", conv(net, net.x, (6, 8)), i64(*pads), None, i64(*axes))
    y = conv(net, Tensor(y.value, (3, *extent)), (extent[0] - 2, extent[1] - 2))
    assert_slides(net.model(net.head(y)), exact=exact)


def test_a_crop_to_nothing_is_refused() -> None:
    net = Net()
    y = net.op("Pad", net.x, i64(0, 0, -4, 0, 0, 0, -4, 0), shape=(2, 1, 10), name="crop")
    assert_refused(net.model(net.head(y)), "shape-mismatch", "Pad crop")


def test_another_operator_is_refused_by_name() -> None:
    net = Net(opset=16)
    grid = net.weight(np.zeros((1, 3, 4, 2), np.float32))
    y = net.op("GridSample", net.trunk(), grid, shape=(3, 3, 4), name="n")
    assert_refused(net.model(net.head(y)), "data-dependent", "GridSample n")
