"""The pass ReduceOutputs, and ``--reduce``: one vector of scores an image again."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert, inspect
from onnx_fc2conv.equivalence import check
from onnx_fc2conv.errors import ArgumentError, RefusedError
from onnx_fc2conv.passes import FcToConv, FreeInputSize, ReduceOutputs
from tests.nets import Array, Net, Tensor, conv, op_types, session
from tests.oracle import assert_refused, converted_model

OVER = {"mean": np.mean, "max": np.max}


def image_of(*size: int, batch: int = 2) -> Array:
    return np.random.default_rng(3).normal(size=(batch, *size)).astype(np.float32)


def scores_of_windows(model: onnx.ModelProto, image: Array, stride: int, size: Any) -> Array:
    """The original on every crop: [crops, batch, …]."""
    run = session(model)
    corners = product(
        *(range(0, n - s + 1, stride) for n, s in zip(image.shape[2:], size, strict=True))
    )
    return np.stack(
        [run({"x": image[:, :, a : a + size[0], b : b + size[1]]})["y"] for a, b in corners]
    )


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_the_scores_of_all_windows(reduce: str, opset: int) -> None:
    net = Net(opset=opset)
    model = net.model(net.op("Softmax", net.head(net.trunk()), axis=1))
    conversion = convert(model, reduce=reduce)  # type: ignore[arg-type]
    assert conversion.after is not None
    assert conversion.after.outputs == {"y": ("N", 4)}
    run = session(converted_model(conversion))
    for size in ((8, 10), (12, 16), (13, 11)):
        image = image_of(2, *size)
        windows = scores_of_windows(model, image, 2, (8, 10))
        expected = OVER[reduce](windows, axis=0)
        np.testing.assert_allclose(run({"x": image})["y"], expected, rtol=1e-5)


def test_the_geometry_names_the_reduction() -> None:
    net = Net()
    model = net.model(net.head(net.trunk()))
    geometry = convert(model, reduce="mean").geometry["y"]
    assert geometry.stride == (0, 0)
    assert not geometry.windows_exact
    assert geometry.reduction == "mean"
    assert "the mean over all 8×10 windows at stride 2×2 (--reduce mean)" in geometry.why
    assert geometry.as_dict()["reduction"] == "mean"
    assert "reduction" not in inspect(model).geometry["y"].as_dict()


@pytest.mark.parametrize("pool", ["keep", "window"])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_a_global_pooling_head(reduce: str, pool: str) -> None:
    net = Net()
    pooled = net.op("GlobalAveragePool", net.trunk(), shape=(3, 1, 1))
    model = net.model(net.head(pooled))
    options: Any = {"reduce": reduce, "pool": pool}
    conversion = convert(model, **options)
    assert conversion.after is not None
    assert conversion.after.outputs == {"y": ("N", 4)}
    assert conversion.geometry["y"].reduction == (reduce if pool == "window" else None)
    assert session(converted_model(conversion))({"x": image_of(2, 15, 13)})["y"].shape == (2, 4)
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_the_check_compares_the_reduction_of_the_windows(reduce: str, padded: bool) -> None:
    net = Net()
    y = conv(net, net.x, (8, 10), pads=[1] * 4) if padded else net.trunk()
    model = net.model(net.op("Softmax", net.head(y)))
    conversion = convert(model, reduce=reduce)  # type: ignore[arg-type]
    report = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert report, report.to_markdown()
    (windows,) = [r for r in report.results if r.tier == "feature windows"]
    assert windows.status == "passed"
    assert f"the {reduce} over" in windows.detail


def test_the_check_finds_another_reduction() -> None:
    net = Net()
    model = net.model(net.head(net.trunk()))
    wrong = converted_model(convert(model, reduce="max"))
    assert not check(model, wrong, geometry=convert(model, reduce="mean").geometry)


def test_several_outputs() -> None:
    net = Net()
    hidden = net.fc(net.flat(net.trunk()), 5)
    model = net.model(net.fc(net.op("Relu", hidden, shape=(5,))), hidden)
    after = convert(model, reduce="mean").after
    assert after is not None
    assert after.outputs == {"y": ("N", 4), "y2": ("N", 5)}


def test_a_map_of_the_original_stays() -> None:
    net = Net()
    trunk = net.trunk()
    after = convert(net.model(net.head(trunk), trunk), reduce="mean").after
    assert after is not None
    assert after.outputs == {"y": ("N", 4), "y2": ("N", 3, "y2_H", "y2_W")}


@pytest.mark.parametrize("image", [(2, 12), (2, 6, 5, 7)], ids=["1-D", "3-D"])
def test_other_ranks(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    after = convert(net.model(net.head(net.trunk())), reduce="max").after
    assert after is not None
    assert after.outputs == {"y": ("N", 4)}


def test_channels_last() -> None:
    """A map [N, H, W, K]."""
    net = Net(batch=1)
    y = net.op("Conv", net.trunk(), net.random(4, 3, 3, 4))
    model = net.ir_model(net.op("Transpose", y, perm=[0, 2, 3, 1]))
    assert ReduceOutputs()(model).modified
    assert session(model)({"x": image_of(2, 8, 10, batch=1)})["y"].shape == (1, 4)


def test_the_number_of_a_class_is_refused() -> None:
    net = Net()
    y = net.op("ArgMax", net.head(net.trunk()), axis=1)
    model = net.model(y, dtype=ir.DataType.INT64)
    assert_refused(model, "reduced-integers", "ArgMax", "holds INT64", reduce="mean")


@pytest.mark.parametrize("opset", [13, 18])
def test_running_twice_changes_nothing_more(opset: int) -> None:
    net = Net(batch=1, opset=opset)
    model = net.ir_model(net.head(net.trunk()))
    FcToConv()(model)
    reduction = ReduceOutputs("mean")
    assert reduction(model).modified
    before = ir.to_onnx_text(model)
    assert not reduction(model).modified
    assert ir.to_onnx_text(model) == before
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("first", ["free", "reduce"])
def test_before_or_after_the_size_is_freed(first: str) -> None:
    net = Net(batch=1)
    model = net.ir_model(net.head(net.trunk()))
    FcToConv()(model)
    if first == "free":
        FreeInputSize()(model)
        ReduceOutputs("max", {"x": (1, 2, 8, 10)})(model)
    else:
        ReduceOutputs("max")(model)
        FreeInputSize()(model)
    (output,) = model.graph.outputs
    assert output.shape is not None
    assert [dim if isinstance(dim, int) else dim.value for dim in output.shape] == ["N", 4]
    assert session(model)({"x": image_of(2, 15, 13)})["y"].shape == (2, 4)
    assert op_types(model)[-1] == "ReduceMax"


def test_none_does_nothing() -> None:
    net = Net()
    assert not ReduceOutputs("none")(net.ir_model(net.head(net.trunk()))).modified


def test_a_model_with_a_flattened_map_is_left_alone() -> None:
    net = Net(batch=1)
    y = net.op("Conv", net.trunk(), net.random(4, 3, 3, 4))
    model = net.ir_model(net.op("Flatten", y))
    assert not ReduceOutputs()(model).modified
    with pytest.raises(RefusedError, match="run FcToConv first"):
        FreeInputSize()(model)


def test_wrong_words() -> None:
    with pytest.raises(ArgumentError, match="there is no reduce 'sum'"):
        ReduceOutputs("sum")  # type: ignore[arg-type]
    net = Net()
    model = net.model(net.head(Tensor(net.trunk().value, (3, 3, 4))))
    with pytest.raises(ArgumentError, match="leave out --reduce"):
        convert(model, static=True, reduce="mean")
