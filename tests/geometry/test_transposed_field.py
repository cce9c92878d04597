"""AxisField of a ConvTranspose between sliding layers, against brute force over its taps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.views import interpret
from tests.geometry.test_receptive_field import Layer
from tests.nets import Array, Net, Tensor, conv


@dataclass(frozen=True)
class Transposed:
    """One whose input cell i adds to the outputs i·s + j·d - p (ConvTranspose-11)."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    more: int

    def cells(self, count: int) -> int:
        span = (self.kernel - 1) * self.dilation + 1
        return (count - 1) * self.stride + span + self.more - self.begin - self.end

    def taps(self, cell: int) -> list[int]:
        """The input cells that an output adds up, also those that there are none of."""
        places = (cell + self.begin - j * self.dilation for j in range(self.kernel))
        return [place // self.stride for place in places if place % self.stride == 0]

    def run(self, sees: Array, padding: Array) -> tuple[Array, Array]:
        """Which pixels each output sees, and whether it would read what there is not."""
        read = [self.taps(cell) for cell in range(self.cells(len(sees)))]
        inside = [[i for i in taps if 0 <= i < len(sees)] for taps in read]
        outside = [len(one) < len(all_of) for one, all_of in zip(inside, read, strict=True)]
        seen = np.array([sees[taps].any(axis=0) for taps in inside], bool)
        padded = [out or padding[taps].any() for out, taps in zip(outside, inside, strict=True)]
        return seen.reshape(-1, sees.shape[1]), np.array(padded, bool)


@st.composite
def transposed(draw: st.DrawFn) -> Transposed:
    stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    kernel = draw(st.integers(1, 5))
    cut = st.integers(0, (kernel - 1) * dilation)
    more = draw(st.integers(0, max(stride, dilation) - 1))
    return Transposed(kernel, stride, dilation, draw(cut), draw(cut), more)


def field_of(before: Layer, layer: Transposed, after: Layer, length: int) -> AxisField:
    """What the walk over a model of these three layers says."""
    net = Net(image=(2, length), batch=1)

    def slid(y: Tensor, one: Layer) -> Tensor:
        made = len(one.run(np.eye(y.shape[1], dtype=bool)))
        assume(made)
        rest = {"strides": [one.stride], "dilations": [one.dilation]}
        return conv(net, y, (made,), one.kernel, pads=[one.pad, one.end_pad], **rest)

    y = slid(net.x, before)
    assume(layer.cells(y.shape[1]) > 0)
    made = net.op(
        "ConvTranspose",
        y,
        net.random(3, 3, layer.kernel),
        strides=[layer.stride],
        dilations=[layer.dilation],
        pads=[layer.begin, layer.end],
        output_padding=[layer.more],
    )
    y = slid(Tensor(made.value, (3, layer.cells(y.shape[1]))), after)
    (output,) = interpret(net.ir_model(y)).outputs
    (field,) = output.feature_map.field
    return field


@given(transposed(), st.integers(1, 2), st.integers(0, 1), st.integers(1, 3), st.integers(8, 30))
def test_a_transposed_layer_between_others(
    layer: Transposed, steps: int, pad: int, kernel: int, native: int
) -> None:
    before = Layer(layer.stride * steps, layer.stride * steps, 1, 0, 0)
    after = Layer(kernel, layer.stride, 1, min(pad, kernel - 1), 0)
    field = field_of(before, layer, after, native)
    for length in range(native, native + 3 * field.stride):
        sees = before.run(np.eye(length, dtype=bool))
        sees, padded = layer.run(sees, np.zeros(len(sees), bool))
        padded = np.pad(padded, (after.pad, after.end_pad), constant_values=True)
        sees = after.run(sees)
        assert field.cells(length) == len(sees)
        clean = field.clean(length)
        for cell, pixels in enumerate(sees):
            first, end = field.seen_by(cell)
            assert not pixels[: max(first, 0)].any()
            assert not pixels[max(end, 0) :].any()
            start = cell * after.stride
            reads_padding = padded[start : start + after.span].any()
            assert not (cell in clean and reads_padding)
            if layer.kernel >= layer.stride and layer.dilation == 1:
                assert (cell in clean) == (not reads_padding)
