"""The pass FreeInputSize: symbolic dims in, symbolic dims out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.errors import ArgumentError, RefusedError
from onnx_fc2conv.passes import FcToConv, FreeInputSize
from onnx_fc2conv.pipeline import convert
from tests.nets import Net, Tensor, i64, session


def convolutional(batch: int | str = 1, image: tuple[int | str, ...] = (2, 8, 10)) -> ir.Model:
    net = Net(batch=batch, image=image)  # type: ignore[arg-type]
    y = net.op("Conv", net.x, net.random(3, 2, 3, 3))
    return net.ir_model(net.op("Conv", y, net.random(4, 3, 6, 8)))


def dims(value: ir.Value) -> tuple[int | str | None, ...]:
    assert value.shape is not None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def test_batch_and_spatial_dims_become_symbolic() -> None:
    model = convolutional()
    assert FreeInputSize()(model).modified
    assert dims(model.graph.inputs[0]) == ("N", 2, "H", "W")
    assert dims(model.graph.outputs[0])[:2] == ("N", 4)
    run = session(model)
    assert run({"x": np.zeros((3, 2, 11, 13), np.float32)})["y"].shape == (3, 4, 4, 4)


def test_running_twice_changes_nothing_more() -> None:
    model = convolutional()
    FreeInputSize()(model)
    shapes = {"x": (1, 2, 8, 10)}
    before = ir.to_onnx_text(model)
    assert not FreeInputSize(shapes)(model).modified
    assert ir.to_onnx_text(model) == before


def test_symbolic_names_are_kept() -> None:
    model = convolutional("batch", (2, "rows", "columns"))
    FreeInputSize({"x": (1, 2, 8, 10)})(model)
    assert dims(model.graph.inputs[0]) == ("batch", 2, "rows", "columns")
    assert dims(model.graph.outputs[0])[0] == "batch"


def test_new_names_do_not_collide() -> None:
    model = convolutional("H", (2, 8, 10))
    FreeInputSize()(model)
    batch, _, height, width = dims(model.graph.inputs[0])
    assert batch == "H"
    assert len({batch, height, width}) == 3


def test_stale_shapes_are_dropped() -> None:
    """Recorded shapes of the native size would win over the new dims."""
    model = convolutional()
    inner = model.graph.node(0).outputs[0]
    assert inner.shape == ir.Shape([1, 3, 6, 8])
    FreeInputSize()(model)
    assert inner.shape is not None
    assert all(not isinstance(dim, int) for axis, dim in enumerate(inner.shape) if axis != 1)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((2, 8), ("N", 4, "y_L")),
        ((2, 8, 10), ("N", 4, "y_H", "y_W")),
        ((2, 5, 6, 7), ("N", 4, "y_D", "y_H", "y_W")),
    ],
    ids=["1-D", "2-D", "3-D"],
)
def test_declared_outputs(image: tuple[int, ...], expected: tuple[int | str, ...]) -> None:
    net = Net(image=image)
    after = convert(net.model(net.head(net.trunk(pool=False)))).after
    assert after is not None
    assert after.outputs["y"] == expected


def test_a_global_pool_is_declared_as_one_cell() -> None:
    net = Net()
    pooled = net.op("GlobalAveragePool", net.trunk(), shape=(3, 1, 1))
    after = convert(net.model(net.head(pooled))).after
    assert after is not None
    assert after.outputs["y"] == ("N", 4, 1, 1)


def test_a_baked_size_is_refused_and_the_model_left_unchanged() -> None:
    net = Net(batch=1)
    trunk = net.trunk()
    turned = net.op("Reshape", trunk, np.array([1, 3, 4, 3]))
    model = net.ir_model(net.op("Conv", turned, net.random(2, 3, 2, 2), name="late"))
    before = ir.to_onnx_text(model)
    with pytest.raises(RefusedError, match=r"Conv late.*\[baked-size\]"):
        FreeInputSize()(model)
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 2, 8, 10)}, "names 'z', but the model's inputs are: x"),
        ({"x": (1, 3, 8, 10)}, "does not fit the model"),
        ({"x": (1, 2, 8)}, "does not fit the model"),
        ({"x": (1, 2, 0, 10)}, "does not fit the model"),
    ],
    ids=["name", "channels", "rank", "zero"],
)
def test_native_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    model = convolutional("N", (2, "H", "W"))
    with pytest.raises(ArgumentError, match=message):
        FreeInputSize(shapes)(model)


def test_a_side_input_keeps_its_shape() -> None:
    net = Net(batch=1)
    table = net.input("table", (1, 6))
    model = net.model(net.head(net.trunk()), net.op("Relu", Tensor(table.value, (6,))))
    after = convert(model).after
    assert after is not None
    assert after.inputs == {"x": ("N", 2, "H", "W"), "table": (1, 6)}


def beside(batch: int, pre: Callable[[Net, Tensor], Tensor]) -> onnx.ModelProto:
    """A vector [batch, 6], and what is done with it, beside the features of as many images."""
    net = Net(batch=batch)
    flat = net.flat(net.trunk())
    side = pre(net, Tensor(net.input("side", (batch, 6)).value, (6,)))
    size = flat.size + side.size
    return net.model(net.fc(net.op("Concat", flat, side, axis=1, shape=(size,))))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layers", ["none", "Relu", "Gemm"])
def test_a_side_input_has_as_many_samples_as_the_image(batch: int, layers: str) -> None:
    def pre(net: Net, side: Tensor) -> Tensor:
        match layers:
            case "Relu":
                return net.op("Relu", side, shape=(6,))
            case "Gemm":
                return net.fc(side, 3)
        return side

    conversion = convert(beside(batch, pre))
    assert conversion.after is not None
    assert conversion.after.inputs == {"x": ("N", 2, "H", "W"), "side": ("N", 6)}


def test_the_batch_stays_where_that_of_a_side_input_is_written_in() -> None:
    def pre(net: Net, side: Tensor) -> Tensor:
        return net.op("Reshape", side, i64(2, 6), shape=(6,))

    model = beside(2, pre)
    conversion = convert(model)
    assert conversion.model is not None
    assert conversion.after is not None
    assert conversion.after.inputs == {"x": (2, 2, "H", "W"), "side": (2, 6)}
    assert check(model, conversion.model)


def test_a_native_size_that_is_missing() -> None:
    with pytest.raises(ArgumentError, match=r"'x' has symbolic dims .*--input-shape x:1,…,…,…"):
        FreeInputSize()(convolutional("N", (2, "H", 10)))


def test_a_free_model_is_left_alone() -> None:
    model = convolutional("N", (2, "H", "W"))
    before = ir.to_onnx_text(model)
    assert not FreeInputSize()(model).modified
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("image", [(2, 12), (2, 8, 10), (2, 6, 5, 7), (1, 5, 4, 4, 5)])
def test_a_fixed_batch_in_any_rank(image: tuple[int, ...]) -> None:
    net = Net(image=image, batch=1)
    y = net.fc(net.flat(net.op("Relu", net.x, shape=image)))
    model = ir.from_proto(net.model(y))
    ir.passes.Sequential(FcToConv(), FreeInputSize())(model)
    (shape,) = (value.shape for value in model.graph.inputs)
    assert shape is not None
    assert [isinstance(dim, int) for dim in shape] == [False, True, *[False] * (len(image) - 1)]
