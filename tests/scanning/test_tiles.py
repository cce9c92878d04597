"""Tiled equals untiled: bit by bit where arithmetic is exact."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from onnx_fc2conv import RefusedError, convert
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.geometry import Geometry, SizeRule, TileCells
from onnx_fc2conv.scanning.model import ScanModel, scan_model
from onnx_fc2conv.scanning.preprocessing import Preprocessing
from onnx_fc2conv.scanning.runner import Scanner
from onnx_fc2conv.scanning.score_maps import MemoryMap
from onnx_fc2conv.scanning.sources import ArraySource
from onnx_fc2conv.scanning.tiles import TilePlan, plan_tiles
from tests.geometry.random_nets import RandomNet
from tests.nets import Array, Net, i64
from tests.oracle import converted_model

INEXACT = {"AveragePool", "Sigmoid"}


@dataclass
class IntegerNet(Net):
    """Weights of which four for each output are -2 … 2, and the others 0: sums are exact."""

    def random(self, *shape: int) -> Array:
        weights = np.zeros(shape, np.float32).reshape(shape[0], -1)
        for row in weights:
            row[self.rng.integers(0, row.size, 4)] = self.rng.integers(-2, 3, 4)
        return weights.reshape(shape)


class IntegerRandomNet(RandomNet):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.net = IntegerNet(opset=self.net.opset, image=self.net.image, seed=self.seed)


def computed(model: ScanModel, image: Array, plan: TilePlan) -> Array:
    scores = MemoryMap((model.classes, *plan.map_size))
    Scanner(model, Preprocessing(scale=1.0)).run(ArraySource(image), plan, scores)
    return scores.array()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.builds(lambda n, rest: 5 * n + rest, st.integers(0, 300), st.sampled_from((1, 3))),
    extra=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    part=st.floats(0.05, 0.9),
)
def test_random_nets(seed: int, extra: tuple[int, int], part: float) -> None:
    net = IntegerRandomNet(seed)
    assert net.rank == 2
    try:
        model = scan_model(net.model(), output="y")
    except RefusedError:
        assume(False)
        raise
    size = tuple(w + e for w, e in zip(model.geometry.window, extra, strict=True))
    whole = size[0] * size[1]
    try:
        untiled = plan_tiles(model.geometry, size, whole)
        plan = plan_tiles(model.geometry, size, int(part * whole))
    except ArgumentError as error:  # no such tile, or branches do not fit together
        assert "memory" in str(error) or "branches" in str(error)
        assume(False)
        raise
    except RefusedError as refused:
        assert model.geometry.verdict == "whole image"
        assert [r.code for r in refused.refusals] == ["tiles-of-whole-image"]
        return
    assert len(untiled) == 1
    assert len(plan) > 1
    assert np.prod(plan.tile_size) <= part * whole
    image = np.random.default_rng(seed).integers(-3, 4, (*size, 2)).astype(np.float32)
    expected, found = computed(model, image, untiled), computed(model, image, plan)
    exact = not INEXACT & {node.op_type for node in model.model.graph}
    event(f"{model.geometry.verdict}, exact: {exact}")
    if exact:
        assert np.abs(expected).max() < 2**24
        assert found.tobytes() == expected.tobytes()
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def _geometry(window: int, stride: int, first: int, beyond: int, remainder: int) -> Geometry:
    return Geometry(
        input="x",
        window=(window, window),
        stride=(stride, stride),
        offset=(0, 0),
        verdict="border effect",
        why="",
        receptive_field=None,
        cells=(1, 1),
        remainder=(min(remainder, stride - 1),) * 2,
        sizes=(SizeRule(), SizeRule()),
        tile_cells=TileCells((first,) * 2, (window + beyond,) * 2),
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.builds(
        _geometry,
        window=st.integers(1, 40),
        stride=st.integers(1, 32),
        first=st.integers(0, 5),
        beyond=st.integers(0, 70),
        remainder=st.integers(0, 31),
    ),
    st.tuples(st.integers(0, 500), st.integers(0, 500)),
    st.integers(1, 60_000),
)
def test_every_cell_comes_from_one_tile_that_sees_what_it_needs(
    geometry: Geometry, extra: tuple[int, int], most: int
) -> None:
    size = (geometry.window[0] + extra[0], geometry.window[1] + extra[1])
    try:
        plan = plan_tiles(geometry, size, most)
    except ArgumentError:
        assume(False)
        raise
    assert plan.tile_size[0] * plan.tile_size[1] <= most
    times = np.zeros(plan.map_size, int)
    needed, stride = geometry.tile_cells, geometry.stride[0]
    assert needed is not None
    for tile in plan:
        times[tile.cells] += 1
        for axis, length in enumerate(size):
            pixels, cells, inner = tile.pixels[axis], tile.cells[axis], tile.inner[axis]
            assert pixels.stop - pixels.start == plan.tile_size[axis]
            assert pixels.start == (cells.start - inner.start) * stride
            assert cells.stop - cells.start == inner.stop - inner.start
            assert pixels.start == 0 or inner.start >= needed.first[axis]
            last = (inner.stop - 1) * stride + needed.reach[axis]
            assert pixels.stop == length or last <= plan.tile_size[axis]
    assert (times == 1).all()


def test_all_tiles_have_one_shape_and_are_as_few_as_can_be() -> None:
    geometry = scan_model("models/face25.onnx").geometry
    plan = plan_tiles(geometry, (1000, 3000), 300 * 300)
    assert {tuple(s.stop - s.start for s in tile.pixels) for tile in plan} == {plan.tile_size}
    assert len(plan) == 4 * 11
    assert plan.tile_size == (268, 296)
    assert plan.map_size == (488, 1488)


def test_branches_that_fit_at_certain_lengths_only_keep_their_length_modulo() -> None:
    geometry = scan_model("models/face25.onnx").geometry
    rule = SizeRule(6, (0, 4))
    plan = plan_tiles(replace(geometry, sizes=(rule, rule)), (25 + 600, 25 + 604), 200 * 200)
    assert len(plan) > 1
    assert all((n - 25) % 6 in rule.remainders for n in plan.tile_size)


def test_a_model_that_sees_the_whole_image_is_run_at_once_or_refused() -> None:
    net = Net(image=(2, 12, 12))
    y = net.trunk()
    pooled = net.op("GlobalAveragePool", y)
    model = scan_model(net.model(net.head(net.op("Mul", y, pooled, shape=y.shape))))
    assert len(plan_tiles(model.geometry, (40, 50), 2000)) == 1
    with pytest.raises(RefusedError, match=r"input x: each cell depends on .*40×50 pixels"):
        plan_tiles(model.geometry, (40, 50), 1999)


def test_one_cell_at_any_size_is_no_map() -> None:
    net = Net(image=(2, 12, 12))
    pooled = net.op("ReduceMean", net.trunk(), axes=[2, 3], keepdims=0, shape=(3,))
    with pytest.raises(RefusedError, match=r"output y: it has no cell for each window"):
        scan_model(net.model(net.fc(pooled)))


@pytest.mark.parametrize(
    ("size", "most", "reason"),
    [
        ((24, 100), 10**9, "24×100 pixels is smaller than 25×25"),
        ((100, 100), 20 * 20, "smallest tile that gives a cell has 26×26"),
    ],
)
def test_what_cannot_be_tiled(size: tuple[int, int], most: int, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        plan_tiles(scan_model("models/face25.onnx").geometry, size, most)


def test_channels_last_and_single_scores() -> None:
    net = Net(image=(12, 14, 3))
    moved = net.op("Transpose", net.x, perm=[0, 3, 1, 2], shape=(3, 12, 14))
    y = net.op("Conv", moved, net.random(3, 3, 3, 3), shape=(3, 10, 12))
    score = net.op("Squeeze", net.fc(net.flat(y), 1), i64(1))
    model = scan_model(net.model(score))
    image = np.random.default_rng(0).random((50, 41, 3), np.float32)
    plans = [plan_tiles(model.geometry, (50, 41), most) for most in (50 * 41, 20 * 20)]
    whole, tiled = (computed(model, image, plan) for plan in plans)
    assert whole.shape == (1, 39, 28)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [2, 1])
def test_a_denser_grid_that_finds_room_in_a_window(stride: int) -> None:
    """The layers leave three pixels of a window over; closer windows begin there too."""
    net = IntegerNet(image=(1, 31, 31))
    y = net.op("Conv", net.x, net.random(4, 1, 3, 3), shape=(4, 29, 29))
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[4, 4], shape=(4, 7, 7))
    y = net.op("Conv", y, net.random(4, 4, 3, 3), strides=[4, 4], shape=(4, 2, 2))
    conversion = convert(net.model(net.head(y)), stride=stride)
    model = scan_model(converted_model(conversion))
    assert model.geometry.cells == (1, 1)
    assert model.geometry.cell_to_window((1, 2)) == (
        slice(stride, stride + 31),
        slice(2 * stride, 2 * stride + 31),
    )
    image = net.rng.integers(0, 5, (80, 71, 1)).astype(np.float32)
    untiled = computed(model, image, plan_tiles(model.geometry, (80, 71), 80 * 71))
    plan = plan_tiles(model.geometry, (80, 71), 1500)
    assert len(plan) > 1
    assert plan.map_size == ((80 - 28) // stride + 1, (71 - 28) // stride + 1)
    assert np.array_equal(computed(model, image, plan), untiled)
