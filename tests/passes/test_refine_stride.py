"""--stride: the cells of the ordinary conversion are every f-th of the denser map, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.passes import RefineStride
from onnx_fc2conv.pipeline import Conversion, convert, inspect
from tests.nets import Array, Net, Tensor, conv, i64, session
from tests.oracle import assert_refused, converted_model

Stride = int | tuple[int, ...]


@dataclass
class IntegerNet(Net):
    """Weights of -1, 0 and 1: every sum of a small net is exact, whatever its order."""

    def random(self, *shape: int) -> Array:
        return self.rng.integers(-1, 2, shape).astype(self.dtype.numpy())


def pixels(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(5).integers(-2, 3, shape).astype(np.float32)


def pool(net: Net, y: Tensor, extent: tuple[int, ...], op_type: str, **attributes: Any) -> Tensor:
    made = net.op(op_type, y, **{"kernel_shape": [2] * len(extent), **attributes})
    return Tensor(made.value, (y.shape[0], *extent))


def assert_refined(
    model: onnx.ModelProto, stride: Stride, *, exact: bool = True, pool: Any = "keep"
) -> Conversion:
    """Hold a denser map to the ordinary conversion, and where windows are exact to the crops."""
    coarse = convert(model, pool=pool)
    fine = convert(model, stride=stride, pool=pool)
    onnx.checker.check_model(ir.to_proto(converted_model(fine)), full_check=True)
    one, two, own = (session(m) for m in (converted_model(coarse), converted_model(fine), model))
    where = fine.geometry["y"]
    window, rank = where.window, len(where.window)
    assert where.stride == (stride if isinstance(stride, tuple) else (stride,) * rank)
    factors = [a // b for a, b in zip(coarse.geometry["y"].stride, where.stride, strict=True)]
    every = tuple(slice(None, None, f) for f in factors)
    channels = coarse.before.inputs["x"][1]
    assert isinstance(channels, int)
    compare = np.testing.assert_array_equal if exact else assert_near
    for grown in ((0,) * rank, (7, 4, 5)[:rank], (3, 10, 6)[:rank]):
        sizes = [a + b for a, b in zip(window, grown, strict=True)]
        image = pixels((2, channels, *sizes))
        expected, dense = one({"x": image})["y"], two({"x": image})["y"]
        compare(dense[:, :, *every], expected)
        if not where.windows_exact:
            continue
        counts = [(s - w) // n + 1 for s, w, n in zip(sizes, window, where.stride, strict=True)]
        for cell in np.ndindex(*counts):
            starts = [i * n for i, n in zip(cell, where.stride, strict=True)]
            box = (slice(a, a + w) for a, w in zip(starts, window, strict=True))
            crop = image[:, :, *box]
            compare(dense[:, :, *cell], own({"x": crop})["y"].reshape(2, -1))
    return fine


def assert_near(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def strided_convs(net: Net) -> Tensor:
    y = conv(net, net.x, (8, 9), 3, strides=[2, 2])
    return conv(net, net.op("Relu", y, shape=y.shape), (3, 4), 3, strides=[2, 2])


def split_stride(net: Net) -> Tensor:
    y = conv(net, net.x, (4, 5), 3, strides=[4, 4])
    return pool(net, y, (3, 4), "MaxPool")


def padded(net: Net) -> Tensor:
    y = conv(net, net.x, (9, 10), 3, strides=[2, 2], pads=[1, 0, 2, 2])
    y = pool(net, y, (5, 5), "MaxPool", strides=[2, 2], pads=[1, 0, 0, 1])
    return conv(net, y, (5, 5), 3, pads=[1, 1, 1, 1])


def dilated(net: Net) -> Tensor:
    y = conv(net, net.x, (7, 8), 3, strides=[2, 2], dilations=[2, 2])
    return conv(net, y, (2, 2), 2, strides=[2, 3], dilations=[3, 2])


def residual(net: Net) -> Tensor:
    y = conv(net, net.x, (9, 10), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    main = conv(net, y, (5, 5), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    short = conv(net, y, (5, 5), 1, strides=[2, 2])
    y = net.op("Add", main, short, shape=main.shape)
    return conv(net, net.op("Relu", y, shape=y.shape), (5, 5), 3, pads=[1, 1, 1, 1])


def inception(net: Net) -> Tensor:
    one = conv(net, net.x, (8, 9), 3, strides=[2, 2])
    two = pool(net, net.x, (8, 9), "MaxPool", kernel_shape=[3, 3], strides=[2, 2])
    y = net.op("Concat", one, two, axis=1, shape=(5, 8, 9))
    return conv(net, y, (3, 4), 3, strides=[2, 2])


def anisotropic(net: Net) -> Tensor:
    y = conv(net, net.x, (8, 17), (3, 3), strides=[2, 1])
    return conv(net, y, (4, 4), (2, 4), strides=[2, 4])


def gated(net: Net) -> Tensor:
    y = strided_convs(net)
    gate = net.op("GlobalMaxPool", y)
    return net.op("Mul", y, net.op("Relu", gate), shape=y.shape)


def zero_padded(net: Net) -> Tensor:
    y = conv(net, net.x, (8, 9), 3, strides=[2, 2])
    y = Tensor(net.op("Pad", y, i64(0, 0, 1, 2, 0, 0, 1, -1)).value, (3, 10, 10))
    return conv(net, y, (4, 4), 3, strides=[2, 2])


def same(net: Net) -> Tensor:
    y = conv(net, net.x, (9, 10), 3, strides=[2, 2], auto_pad="SAME_UPPER")
    return pool(net, y, (5, 5), "MaxPool", strides=[2, 2], ceil_mode=1)


NETS: dict[str, tuple[Callable[[Net], Tensor], tuple[Stride, ...]]] = {
    "strided convs": (strided_convs, (1, 2, (4, 1), (1, 2), 4)),
    "a stride loses a part": (split_stride, (1, 2)),
    "padded": (padded, (1, 2)),
    "dilated already": (dilated, (1, 2, (2, 3))),
    "residual": (residual, (1, 2, (4, 2))),
    "concatenated branches": (inception, (1, 2)),
    "anisotropic": (anisotropic, (1, 2, (4, 1), (1, 4))),
    "gate": (gated, (1, 2)),
    "Pad": (zero_padded, (1, 2)),
    "SAME and ceil_mode": (same, (1, 2)),
}


@pytest.mark.parametrize(
    ("name", "stride"), [(name, stride) for name, (_, all_) in NETS.items() for stride in all_]
)
def test_every_fth_cell_is_the_ordinary_one(name: str, stride: Stride) -> None:
    net = IntegerNet(image=(2, 18, 20), seed=3)
    y = NETS[name][0](net)
    assert_refined(net.model(net.head(net.op("Relu", y, shape=y.shape))), stride)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    net = IntegerNet(image=(2, *(14, 12, 13)[:rank]))
    y = conv(net, net.x, (6, 5, 6)[:rank], 3, strides=[2] * rank)
    y = pool(net, y, (3, 2, 3)[:rank], "MaxPool", strides=[2] * rank)
    assert_refined(net.model(net.head(y)), 1)


@pytest.mark.parametrize("op_type", ["AveragePool", "LpPool"])
@pytest.mark.parametrize("opset", [13, 19, 22])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 0]])
@pytest.mark.parametrize("counts", [0, 1])
def test_other_poolings(op_type: str, opset: int, pads: list[int], counts: int) -> None:
    if op_type == "LpPool" and counts:
        pytest.skip("it has no such attribute")
    net = Net(image=(2, 18, 20), opset=opset)
    extra = {"count_include_pad": counts} if op_type == "AveragePool" else {}
    y = conv(net, net.x, (8, 9), 3, strides=[2, 2])
    y = pool(net, y, (4 + pads[0], 4), op_type, strides=[2, 2], pads=pads, **extra)
    height = y.shape[1] - 1
    y = pool(net, y, (height, 3), op_type, pads=pads, **extra)
    y = Tensor(y.value, (3, height + 2 * pads[0], 3))
    model = net.model(net.head(y))
    if op_type == "LpPool" and opset < 18:
        assert_refused(model, "no-dilation", op_type, "the model is of opset 13", stride=1)
        return
    if op_type == "AveragePool" and any(pads) and not counts:
        assert_refused(model, "no-dilation", op_type, "leaves its padding uncounted", stride=1)
        return
    assert_refined(model, 1, exact=False)


def test_the_last_layers_lose_their_stride() -> None:
    """Where maps are smallest, dilation costs least: the first Conv keeps its stride."""
    net = Net(image=(2, 18, 20))
    fine = converted_model(convert(net.model(net.head(strided_convs(net))), stride=2))
    strides = [n.attributes.get_ints("strides", [1, 1]) for n in fine.graph if n.op_type == "Conv"]
    dilations = [
        n.attributes.get_ints("dilations", [1, 1]) for n in fine.graph if n.op_type == "Conv"
    ]
    assert [list(s) for s in strides] == [[2, 2], [1, 1], [1, 1]]
    assert [list(d) for d in dilations] == [[1, 1], [1, 1], [2, 2]]


def test_the_pool_of_windows_comes_closer_too() -> None:
    net = IntegerNet(image=(2, 18, 20), opset=19)
    y = net.op("GlobalMaxPool", strided_convs(net), shape=(3,))
    model = net.model(net.fc(net.op("Flatten", y, shape=(3,))))
    assert_refined(model, 1, pool="window")
    with pytest.raises(ArgumentError, match="--pool window"):
        convert(model, stride=1)


def test_pixels_that_the_strides_leave_over_give_further_cells() -> None:
    """At the native size too: their windows reach out of the image by pixels that nobody reads."""
    net = IntegerNet(image=(2, 17, 17))
    y = conv(net, net.x, (7, 7), 4, strides=[2, 2])  # one pixel left over
    fine = assert_refined(net.model(net.head(y)), 1)
    shape = session(converted_model(fine))({"x": pixels((1, 2, 17, 17))})["y"].shape
    assert shape == (1, 4, 2, 2)


def refused_nets() -> dict[str, tuple[onnx.ModelProto, str, str]]:
    """What cannot be dilated: model, node, reason."""
    found: dict[str, tuple[onnx.ModelProto, str, str]] = {}
    net = Net(image=(2, 18, 20), opset=9)
    y = pool(net, split_stride(net), (2, 3), "MaxPool")
    found["MaxPool"] = net.model(net.head(y)), "MaxPool", "since opset 10"
    net = Net(image=(2, 18, 20))
    y = Tensor(net.op("Slice", strided_convs(net), i64(1), i64(2**31), i64(2)).value, (3, 2, 4))
    found["Slice"] = net.model(net.head(y)), "Slice", "no dilations"
    net = Net(image=(2, 18, 20))
    y = strided_convs(net)
    y = Tensor(net.op("InstanceNormalization", y, net.random(3), net.random(3)).value, y.shape)
    found["InstanceNormalization"] = net.model(net.head(y)), "InstanceNormalization", "no dilations"
    net = Net(image=(2, 18, 20))
    y = Tensor(
        net.op("Pad", strided_convs(net), i64(0, 0, 1, 0, 0, 0, 0, 0), mode="edge").value, (3, 4, 4)
    )
    found["Pad"] = net.model(net.head(y)), "Pad", "end of the map"
    return found


@pytest.mark.parametrize("name", ["MaxPool", "Slice", "InstanceNormalization", "Pad"])
def test_what_cannot_be_dilated_is_refused_by_name(name: str) -> None:
    model, node, reason = refused_nets()[name]
    converted_model(convert(model))
    assert_refused(model, "no-dilation", node, reason, stride=1)
    assert inspect(model, stride=1).refusals[0].code == "no-dilation"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 3}, "one of 1, 2, 4"),
        ({"stride": 8}, "one of 1, 2, 4"),
        ({"stride": 0}, "at least one pixel"),
        ({"stride": (2, 2, 2)}, "for 3 axes, but the images have 2"),
        ({"stride": 2, "static": True}, "leave out --stride"),
        ({"stride": 2, "reduce": "mean"}, "--reduce"),
    ],
)
def test_strides_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    net = Net(image=(2, 18, 20))
    model = net.model(net.head(strided_convs(net)))
    with pytest.raises(ArgumentError, match=message):
        convert(model, **options)


def test_twice_is_once_and_the_stride_that_is_there_changes_nothing() -> None:
    net = Net(image=(2, 18, 20))
    model = converted_model(convert(net.model(net.head(strided_convs(net)))))
    native = {"x": (1, 2, 18, 20)}
    assert not RefineStride(4, native)(model).modified
    assert RefineStride(2, native)(model).modified
    text = ir.to_proto(model).SerializeToString()
    assert not RefineStride(2, native)(model).modified
    assert ir.to_proto(model).SerializeToString() == text


@st.composite
def sliding_nets(draw: st.DrawFn) -> tuple[onnx.ModelProto, Stride]:
    """Up to four sliding layers of any hyperparameters, and a divisor of their stride."""
    net = IntegerNet(image=(2, 15, 16), seed=draw(st.integers(0, 9)))
    y, extent, total = net.x, (15, 16), [1, 1]
    y = Tensor(y.value, (2, *extent))
    for _ in range(draw(st.integers(1, 4))):
        kernel, dilation, stride = (
            [draw(st.integers(1, most)) for _ in range(2)] for most in (3, 2, 3)
        )
        pads = [draw(st.integers(0, min(kernel[a % 2] - 1, 1))) for a in range(4)]
        grown = tuple(
            (extent[a] + pads[a] + pads[2 + a] - (kernel[a] - 1) * dilation[a] - 1) // stride[a] + 1
            for a in range(2)
        )
        if min(grown) < 1:
            break
        given = {"strides": stride, "pads": pads, "dilations": dilation}
        if draw(st.booleans()):
            y = conv(net, y, grown, (kernel[0], kernel[1]), channels=2, **given)
        else:
            y = pool(net, y, grown, "MaxPool", kernel_shape=kernel, **given)
        extent, total = grown, [t * s for t, s in zip(total, stride, strict=True)]
    wanted = tuple(draw(st.sampled_from([n for n in range(1, t + 1) if t % n == 0])) for t in total)
    return net.model(net.head(y)), wanted


@settings(max_examples=60, deadline=None)
@given(sliding_nets())
def test_any_sliding_net(made: tuple[onnx.ModelProto, Stride]) -> None:
    model, stride = made
    assert_refined(model, stride)
