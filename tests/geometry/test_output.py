"""Geometry: from cells to pixels and back, against the list of all windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fc2conv import Geometry, convert
from onnx_fc2conv.geometry import CleanCells, ReceptiveField, SizeRule
from tests.nets import Net, Tensor, conv

SPAN = st.tuples(st.integers(-9, 40), st.integers(0, 30))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    rank = draw(st.integers(1, 3))
    per_axis = [
        (draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(0, 3)))
        for _ in range(rank)
    ]
    window, stride, offset = (tuple(numbers) for numbers in zip(*per_axis, strict=True))
    return Geometry(
        input="x",
        window=window,
        stride=stride,
        offset=offset,
        verdict="windows exact",
        why="",
        receptive_field=ReceptiveField(offset, window),
        cells=(1,) * rank,
        remainder=(0,) * rank,
        sizes=(SizeRule(),) * rank,
    )


@given(geometries(), st.data(), st.booleans())
def test_cells_of_a_box_are_those_whose_windows_lie_there(
    geometry: Geometry, data: st.DataObject, partly: bool
) -> None:
    spans = [data.draw(SPAN) for _ in geometry.window]
    box = tuple(slice(start, start + length) for start, length in spans)
    found = geometry.window_to_cells(box, partly=partly)
    for axis, (side, cells) in enumerate(zip(box, found, strict=True)):
        for i in range(60):
            first = geometry.offset[axis] + i * geometry.stride[axis]
            end = first + geometry.window[axis]
            inside = side.start <= first and end <= side.stop
            touches = side.start < side.stop and side.start < end and first < side.stop
            assert (cells.start <= i < cells.stop) == (touches if partly else inside)


@given(geometries(), st.data())
def test_the_window_of_a_cell_holds_that_cell_only(geometry: Geometry, data: st.DataObject) -> None:
    cell = tuple(data.draw(st.integers(0, 20)) for _ in geometry.window)
    window = geometry.cell_to_window(cell)
    assert tuple(side.stop - side.start for side in window) == geometry.window
    assert geometry.window_to_cells(window) == tuple(slice(i, i + 1) for i in cell)


def strided() -> Geometry:
    net = Net(image=(2, 9, 10))
    return convert(net.model(net.head(net.trunk()))).geometry["y"]


def test_cells_that_the_image_does_not_have_are_left_out() -> None:
    geometry = strided()
    everything = (slice(-5, 99), slice(None, 99))
    assert geometry.window_to_cells(everything, input_size=(11, 15)) == (slice(0, 2), slice(0, 3))
    assert geometry.output_size((11, 15)) == (2, 3)
    nothing = (slice(0, 8), slice(0, 9))
    assert geometry.window_to_cells(nothing) == (slice(0, 0), slice(0, 0))


def test_what_cannot_be_is_a_value_error() -> None:
    geometry = strided()
    with pytest.raises(ValueError, match=r"an image of 8×10 pixels is smaller than 9×10"):
        geometry.output_size((8, 10))
    with pytest.raises(ValueError, match="does not have 2 axes"):
        geometry.output_size((9, 10, 1))
    with pytest.raises(ValueError, match="negative"):
        geometry.cell_to_window((0, -1))
    with pytest.raises(ValueError, match="from a first pixel to a last one"):
        geometry.window_to_cells((slice(0, 9), slice(0, None)))
    whole = replace(geometry, stride=(0, 0), verdict="whole image")
    for call in (lambda: whole.cell_to_window((0, 0)), lambda: whole.window_to_cells(())):
        with pytest.raises(ValueError, match="no cell for each window"):
            call()
    assert whole.output_size((30, 30)) == (1, 1)


def pooled(net: Net) -> Tensor:
    return Tensor(net.op("GlobalAveragePool", net.trunk()).value, (3, 1, 1))


def u_net(net: Net) -> Tensor:
    """What is halved and doubled again is joined with what is not: even lengths only."""
    wide = conv(net, net.x, (8, 8), 3)
    half = net.op("MaxPool", wide, kernel_shape=[2, 2], strides=[2, 2])
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    scales = np.array([1, 1, 2, 2], np.float32)
    up = net.op("Resize", half, None, scales, nearest_mode="floor", **how)
    both = net.op("Concat", wide, up, axis=1)
    made = net.op("MaxPool", both, kernel_shape=[2, 2], strides=[2, 2])
    return Tensor(made.value, (6, 4, 4))


def trunk(net: Net) -> Tensor:
    return net.trunk()


@pytest.mark.parametrize(
    ("make", "verdict", "clean", "why"),
    [
        pytest.param(trunk, "windows exact", (16, 16), "no layer pads", id="unpadded"),
        pytest.param(
            lambda net: conv(net, net.x, (10, 10), pads=[1, 1, 1, 1]),
            "border effect",
            (64, 100),
            "Conv node_Conv_0 pads: a crop has padding where a larger image has neighboring "
            "pixels; 64 of 100 cells of the feature map inside each window do not see the border",
            id="padded",
        ),
        pytest.param(
            lambda net: conv(net, net.x, (5, 5), 2, strides=[2, 2], pads=[0, 0, 1, 1]),
            "border effect",
            (25, 25),
            "Conv node_Conv_0 pads: a last window that reaches out of the image sees it",
            id="padding that no window sees but a last one",
        ),
        pytest.param(
            lambda net: Tensor(
                net.op(
                    "Pad",
                    conv(net, net.x, (10, 10), pads=[1, 1, 1, 1]),
                    np.array([0, 0, -1, -1, 0, 0, -1, -1]),
                ).value,
                (3, 8, 8),
            ),
            "windows exact",
            (64, 64),
            "pads, but no cell sees it",
            id="padding that is cropped again",
        ),
        pytest.param(pooled, "whole image", None, "sees the whole image", id="pooled"),
        pytest.param(u_net, "windows exact", (16, 16), "no layer pads", id="u-net"),
    ],
)
def test_verdicts(
    make: Callable[[Net], Tensor], verdict: str, clean: tuple[int, int] | None, why: str
) -> None:
    net = Net(image=(2, 10, 10))
    model: onnx.ModelProto = net.model(net.head(make(net)))
    geometry = convert(model).geometry["y"]
    assert geometry.verdict == verdict
    assert geometry.windows_exact == (verdict == "windows exact")
    assert geometry.clean_cells == (None if clean is None else CleanCells(*clean))
    assert why in geometry.why


def test_sizes_at_which_branches_do_not_fit_are_told() -> None:
    net = Net(image=(2, 10, 10))
    geometry = convert(net.model(net.head(u_net(net)))).geometry["y"]
    assert geometry.sizes == (SizeRule(2, (0,)),) * 2
    assert geometry.output_size((12, 18)) == (2, 5)
    with pytest.raises(ValueError, match="must leave 0 when divided by 2"):
        geometry.output_size((12, 17))


def test_a_reduced_map_is_one_cell() -> None:
    reduced = strided().reduced("max")
    assert reduced.output_size((9, 10)) == reduced.output_size((31, 40)) == (1, 1)
    assert (reduced.verdict, reduced.reduction) == ("whole image", "max")
    assert "maximum over all 9×10 windows at stride 2×2" in reduced.why
