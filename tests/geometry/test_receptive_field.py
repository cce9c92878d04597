"""AxisField against brute force: which cells change when one pixel changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fc2conv.geometry import AxisField, Misaligned, output_length
from tests.nets import Array


@dataclass(frozen=True)
class Layer:
    kernel: int
    stride: int
    dilation: int
    pad: int
    end_pad: int

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def slide(self, field: AxisField) -> AxisField:
        return field.slide(self.kernel, self.stride, self.dilation, self.pad, self.end_pad)

    def run(self, sees: Array) -> Array:
        """Which pixels each cell sees, [cells, pixels], from the same for the layer's input."""
        nothing = np.zeros((1, sees.shape[1]), bool)
        padded = np.concatenate(
            [nothing.repeat(self.pad, 0), sees, nothing.repeat(self.end_pad, 0)]
        )
        starts = range(0, len(padded) - self.span + 1, self.stride)
        return np.array(
            [padded[i : i + self.span : self.dilation].any(axis=0) for i in starts], bool
        ).reshape(-1, sees.shape[1])


@st.composite
def layers(draw: st.DrawFn, max_pad: int = 2) -> Layer:
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    pads = st.integers(0, min(max_pad, kernel - 1))
    return Layer(kernel, stride, draw(st.integers(1, 3)), draw(pads), draw(pads))


def stack(net: list[Layer], length: int) -> tuple[AxisField, Array]:
    field = AxisField()
    sees: Array = np.eye(length, dtype=bool)
    for layer in net:
        field, sees = layer.slide(field), layer.run(sees)
    return field, sees


@given(st.lists(layers(), max_size=5), st.integers(1, 90))
def test_field_covers_exactly_what_a_cell_sees(net: list[Layer], length: int) -> None:
    field, sees = stack(net, length)
    dense = all(layer.dilation == 1 and layer.stride <= layer.kernel for layer in net)
    for cell, pixels in enumerate(sees):
        first = field.start + cell * field.stride
        image = np.arange(length)
        inside = (image >= first) & (image < first + field.size)
        assert not pixels[~inside].any()
        padding_between = any(layer.pad or layer.end_pad for layer in net[1:])
        if not padding_between and inside.any():
            whole = first >= 0 and first + field.size <= length
            assert not whole or (pixels[max(first, 0)] and pixels[first + field.size - 1])
            if dense and whole:
                assert pixels[inside].all()


@given(st.lists(layers(), max_size=5), st.integers(1, 90))
def test_span_gives_the_number_of_cells(net: list[Layer], length: int) -> None:
    """Floors of quotients compose, as long as no layer in between is without a cell."""
    field, current = AxisField(), length
    for layer in net:
        current = output_length(
            current, layer.kernel, layer.stride, layer.dilation, layer.pad + layer.end_pad
        )
        if current < 1:
            return
        field = layer.slide(field)
    assert current == (length - field.span) // field.stride + 1


@given(st.lists(layers(), min_size=1, max_size=4), st.integers(1, 60))
def test_output_length_against_numpy(net: list[Layer], length: int) -> None:
    layer = net[0]
    cells = output_length(
        length, layer.kernel, layer.stride, layer.dilation, layer.pad + layer.end_pad
    )
    assert max(cells, 0) == len(layer.run(np.eye(length, dtype=bool)))


@given(st.lists(layers(0), max_size=3), st.lists(layers(0), max_size=3), st.integers(30, 80))
def test_join_covers_both_branches(one: list[Layer], two: list[Layer], length: int) -> None:
    (a, sees_a), (b, sees_b) = stack(one, length), stack(two, length)
    if a.stride != b.stride:
        with pytest.raises(Misaligned, match=f"strides {a.stride} and {b.stride}"):
            a.join(b)
        return
    joined = a.join(b)
    assert joined == b.join(a)
    for cell in range(min(len(sees_a), len(sees_b))):
        pixels = np.flatnonzero(sees_a[cell] | sees_b[cell])
        first = joined.start + cell * joined.stride
        assert first <= pixels.min()
        assert pixels.max() < first + joined.size
    assert (length - joined.span) // joined.stride + 1 == (
        length - max(a.span, b.span)
    ) // a.stride + 1


def test_global_pooling_sees_everything_and_joins_with_any_grid() -> None:
    trunk = AxisField().slide(3, 2).slide(2, 2)
    pooled = trunk.pool_globally(5)
    assert (pooled.stride, pooled.start, pooled.size) == (0, 0, 5 + 4 * 4)
    assert {pooled.cells(length) for length in range(5, 90)} == {1}
    assert trunk.join(pooled) == pooled.join(trunk) == trunk


@pytest.mark.parametrize(
    ("layers_", "stride", "start", "size", "span"),
    [
        pytest.param([(3, 1, 1, 1)] * 2, 1, -2, 5, 1, id="two padded 3x3"),
        pytest.param([(7, 2, 1, 3), (3, 2, 1, 1)], 4, -5, 11, 1, id="ResNet stem"),
        pytest.param([(11, 4, 1, 0), (3, 2, 1, 0)], 8, 0, 19, 19, id="AlexNet stem"),
        pytest.param([(3, 1, 2, 0)], 1, 0, 5, 5, id="dilated"),
    ],
)
def test_known_nets(
    layers_: list[tuple[int, int, int, int]], stride: int, start: int, size: int, span: int
) -> None:
    field = AxisField()
    for kernel, step, dilation, pad in layers_:
        field = field.slide(kernel, step, dilation, pad, pad)
    assert (field.stride, field.start, field.size, field.span) == (stride, start, size, span)


@pytest.mark.parametrize("factor", [2, 4])
def test_cells_made_several_of_each_come_together_again(factor: int) -> None:
    field = AxisField().slide(7, 4, pad=1)
    finer = field.spread(factor)
    assert (finer.stride, finer.repeats) == (4 // factor, factor)
    for image in range(7, 60):
        assert finer.cells(image) == factor * field.cells(image)
    assert [finer.seen_by(cell) for cell in range(2 * factor)] == [
        field.seen_by(cell // factor) for cell in range(2 * factor)
    ]
    assert finer.slide(factor, factor) == field
    assert finer.slide(3, 3).repeats == factor
    assert finer.join(AxisField().slide(7, 4 // factor, pad=1)).repeats == factor


@given(st.lists(layers(), max_size=5), st.integers(1, 90))
def test_clean_cells_see_no_padding(net: list[Layer], length: int) -> None:
    field, padding = AxisField(), np.zeros(length, bool)
    for layer in net:
        padded = np.pad(padding, (layer.pad, layer.end_pad), constant_values=True)
        starts = range(0, len(padded) - layer.span + 1, layer.stride)
        padding = np.array([padded[i : i + layer.span : layer.dilation].any() for i in starts])
        field = layer.slide(field)
        if not padding.size:
            return
    assert [*field.clean(length)] == np.flatnonzero(~padding.astype(bool)).tolist()
    assert field.padded or not padding.any()
