"""The reference with other roundings is near it and never the same, but for whole numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence.running.roundings import moved_inputs, rounding_otherwise
from onnx_fc2conv.files.reading import as_model
from onnx_fc2conv.runtime.session import Session
from tests.nets import Net

IMAGE = (2, 8, 8)


@pytest.mark.parametrize(
    ("dtype", "eps"), [(ir.DataType.FLOAT, 2.0**-23), (ir.DataType.FLOAT16, 2.0**-10)]
)
@pytest.mark.parametrize("opset", [8, 13])
def test_results_move_by_roundings(dtype: ir.DataType, eps: float, opset: int) -> None:
    net = Net(image=IMAGE, dtype=dtype, opset=opset)
    model = as_model(net.model(net.op("Sigmoid", net.head(net.trunk()))))
    moving = Session(rounding_otherwise(model))
    feeds = {"x": np.random.default_rng(0).normal(size=(1, *IMAGE)).astype(dtype.numpy())}
    exact = Session(model).run(feeds)["y"]
    draws = [moving.run(feeds)["y"] for _ in range(3)]
    differences = [float(np.abs(draw.astype(float) - exact).max()) for draw in draws]
    assert all(0 < difference < 100 * eps for difference in differences)
    assert not np.array_equal(draws[0], draws[1])


def test_tensors_keep_their_names_and_types() -> None:
    net = Net(image=IMAGE)
    model = as_model(net.model(net.head(net.trunk())))
    copy = rounding_otherwise(model)
    assert [v.name for v in copy.graph.outputs] == [v.name for v in model.graph.outputs]
    made = {v.name for node in copy.graph for v in node.outputs}
    assert made >= {v.name for node in model.graph for v in node.outputs}
    assert not any(v.name.endswith(".exact") for n in model.graph for v in n.outputs if v.name)


def test_what_counts_or_selects_stays() -> None:
    """Shapes, rounded numbers and indices: one less would be another number."""
    net = Net(image=IMAGE)
    scores = net.head(net.trunk())
    best = net.op("Cast", net.op("ArgMax", scores, axis=1), to=ir.DataType.FLOAT)
    whole = net.op("Round", net.op("Mul", best, np.full(1, 3, np.float32)))
    model = as_model(
        net.model(net.op("Cast", whole, to=ir.DataType.INT64), dtype=ir.DataType.INT64)
    )
    feeds = {"x": np.random.default_rng(0).normal(size=(64, *IMAGE)).astype("f4")}
    moved = Session(rounding_otherwise(model)).run(feeds)["y"]
    assert np.array_equal(moved, Session(model).run(feeds)["y"])


@pytest.mark.parametrize("value", [1.0, 1e6, 3e38, np.nan, np.inf])
def test_inputs_move_by_roundings(value: float) -> None:
    image = np.array([[0, 1e-9, 1, value]], np.float32)
    moved = moved_inputs({"x": image}, np.random.default_rng(0))["x"]
    np.testing.assert_allclose(moved, image, rtol=17 * 2.0**-23)
    assert (moved != image)[0, 1:3].all()
    assert moved[0, 0] == 0


def test_whole_inputs_do_not_move() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    assert moved_inputs({"x": image}, np.random.default_rng(0))["x"] is image
