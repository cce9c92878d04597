"""Random classifiers: a graph of sliding layers, and a fully connected head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx

from tests.nets import Net, Tensor

CHANNELS = 3


@dataclass(frozen=True)
class Window:
    """A sliding layer along one axis."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    def cells(self, length: int, *, ceil: bool = False) -> int:
        rest = length + self.begin + self.end - (self.kernel - 1) * self.dilation - 1
        return (-(-rest // self.stride) if ceil else rest // self.stride) + 1

    def starts_in_padding(self, length: int) -> bool:
        return (self.cells(length, ceil=True) - 1) * self.stride >= length + self.begin


@dataclass
class RandomNet:
    """Draws layer after layer; what does not fit the extent so far is left out.

    Attributes:
        seed: Everything follows from it.
        layers: What has been drawn.
        pool: How to convert it: with ``window`` the head pools all positions first.
    """

    seed: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        rank = (1, 2, 1, 2, 3)[self.seed % 5]
        size = tuple(int(n) for n in self.rng.integers(9, (34, 24, 13)[rank - 1], rank))
        self.net = Net(opset=int(self.rng.choice([13, 18])), image=(2, *size), seed=self.seed)
        self.rank = rank
        self.stride = [1] * rank
        self.layers: list[str] = []
        self.pool: Literal["keep", "window"] = "window" if self.rng.random() < 0.2 else "keep"

    def model(self) -> onnx.ModelProto:
        """The model; its outputs are the scores, and the feature map that the head reads."""
        y = self.net.x
        for _ in range(self.rng.integers(1, 6)):
            y = self._layer(y)
        feature_map = self.net.op("Identity", y, shape=y.shape)
        read = feature_map
        if self.pool == "window":
            pooled = self.net.op("GlobalAveragePool", feature_map)
            read = Tensor(pooled.value, (y.shape[0], *[1] * self.rank))
        return self.net.model(self.net.head(read, 3), feature_map)

    def _layer(self, y: Tensor) -> Tensor:
        kinds: list[tuple[float, Callable[[Tensor], Tensor | None]]] = [
            (5, self._conv),
            (3, self._pool),
            (2, self._branches),
            (1.5, self._residual),
            (1, self._crop),
            (1, self._there_and_back),
            (1, self._transposed),
            (0.5, self._gate),
        ]
        weights = np.array([weight for weight, _ in kinds])
        _, make = kinds[int(self.rng.choice(len(kinds), p=weights / weights.sum()))]
        before = len(self.net.nodes), list(self.stride)
        made = make(y)
        if made is None or min(made.shape[1:]) < 1:
            del self.net.nodes[before[0] :]
            self.stride = before[1]
            return y
        self.layers.append(make.__name__.strip("_"))
        return made

    def _window(self, *, pooling: bool = False) -> list[Window]:
        padded = self.rng.random() < 0.5
        found: list[Window] = []
        for _ in range(self.rank):
            kernel, stride = int(self.rng.integers(1, 5)), int(self.rng.choice([1, 1, 2, 2, 3]))
            dilation = 1 if pooling or self.rng.random() < 0.7 else 2
            most = kernel if pooling else kernel * dilation
            begin, end = (int(n) for n in self.rng.integers(0, most, 2)) if padded else (0, 0)
            found.append(Window(kernel, stride, dilation, begin, end))
        return found

    def _attributes(self, windows: list[Window]) -> dict[str, Any]:
        return {
            "kernel_shape": [w.kernel for w in windows],
            "strides": [w.stride for w in windows],
            "pads": [w.begin for w in windows] + [w.end for w in windows],
        }

    def _convolution(self, y: Tensor, windows: list[Window]) -> Tensor:
        weight = self.net.random(CHANNELS, y.shape[0], *[w.kernel for w in windows])
        attributes = self._attributes(windows) | {"dilations": [w.dilation for w in windows]}
        bias = self.net.random(CHANNELS)
        extent = tuple(w.cells(n) for w, n in zip(windows, y.shape[1:], strict=True))
        return self.net.op("Conv", y, weight, bias, shape=(CHANNELS, *extent), **attributes)

    def _strided(self, windows: list[Window]) -> None:
        self.stride = [s * w.stride for s, w in zip(self.stride, windows, strict=True)]

    def _conv(self, y: Tensor) -> Tensor:
        windows = self._window()
        self._strided(windows)
        return self._convolution(y, windows)

    def _pool(self, y: Tensor) -> Tensor:
        windows = self._window(pooling=True)
        self._strided(windows)
        attributes = self._attributes(windows)
        average, ceil = bool(self.rng.random() < 0.5), bool(self.rng.random() < 0.3)
        # Whether a window that starts in the padding counts is told differently by ONNX's shape
        # inference and by its operators.
        ceil = ceil and not any(map(Window.starts_in_padding, windows, y.shape[1:]))
        if average and not ceil:
            attributes["count_include_pad"] = int(self.rng.integers(0, 2))
        extent = tuple(w.cells(n, ceil=ceil) for w, n in zip(windows, y.shape[1:], strict=True))
        name = "AveragePool" if average else "MaxPool"
        shape = (y.shape[0], *extent)
        return self.net.op(name, y, ceil_mode=int(ceil), shape=shape, **attributes)

    def _branches(self, y: Tensor) -> Tensor | None:
        """Two convolutions with as many cells, here or at every size; joined."""
        one = self._window()
        self._strided(one)
        other = [self._like(w, n) for w, n in zip(one, y.shape[1:], strict=True)]
        a, b = self._convolution(y, one), self._convolution(y, other)
        if a.shape != b.shape:
            return None
        if self.rng.random() < 0.5:
            return self.net.op("Add", a, b, shape=a.shape)
        return self.net.op("Concat", a, b, axis=1, shape=(2 * CHANNELS, *a.shape[1:]))

    def _like(self, window: Window, length: int) -> Window:
        if self.rng.random() < 0.1:  # another stride, where that happens to give as many cells
            stride = int(self.rng.integers(1, 5))
            one = Window(window.kernel, stride, window.dilation, window.begin, window.end)
            if one.cells(length) == window.cells(length):
                return one
        kernel, dilation = int(self.rng.integers(1, 5)), int(self.rng.integers(1, 3))
        wider = (kernel - 1) * dilation - (window.kernel - 1) * window.dilation
        pads = max(0, window.begin + window.end + wider)
        if self.rng.random() < 0.3:
            pads += int(self.rng.integers(0, window.stride))
        begin = int(self.rng.integers(0, pads + 1))
        made = Window(kernel, window.stride, dilation, begin, pads - begin)
        return made if made.cells(length) == window.cells(length) else window

    def _residual(self, y: Tensor) -> Tensor | None:
        """The layer's input added to what one or two convolutions of as many cells make of it."""
        made = y
        for _ in range(self.rng.integers(1, 3)):
            windows = [self._keeping() for _ in range(self.rank)]
            made = self._convolution(made, windows)
        if y.shape[0] != CHANNELS:
            y = self._convolution(y, [Window(1, 1, 1, 0, 0)] * self.rank)
        return self.net.op("Add", made, y, shape=made.shape)

    def _keeping(self) -> Window:
        """A padded window that gives as many cells as there are."""
        kernel, dilation = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3))
        pads = (kernel - 1) * dilation
        begin = int(self.rng.integers(0, pads + 1))
        return Window(kernel, 1, dilation, begin, pads - begin)

    def _crop(self, y: Tensor) -> Tensor:
        begins, ends = self.rng.integers(0, 3, self.rank), self.rng.integers(0, 3, self.rank)
        stops = np.where(ends == 0, np.iinfo(np.int64).max, -ends)
        axes = np.arange(2, 2 + self.rank)
        extent = tuple(int(n - b - e) for n, b, e in zip(y.shape[1:], begins, ends, strict=True))
        return self.net.op("Slice", y, begins, stops, axes, shape=(y.shape[0], *extent))

    def _there_and_back(self, y: Tensor) -> Tensor | None:
        """Resize by a factor, perhaps a layer on that grid, and a stride that takes it back."""
        factor = int(self.rng.integers(2, 4))
        if any(stride % factor for stride in self.stride):
            return None
        scales = np.array([1, 1, *[factor] * self.rank], np.float32)
        shape = (y.shape[0], *(factor * n for n in y.shape[1:]))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
        up = self.net.op("Resize", y, None, scales, nearest_mode="floor", shape=shape, **how)
        if self.rng.random() < 0.5:
            kernel = int(self.rng.integers(1, 4))
            pads = [int(n) for n in self.rng.integers(0, kernel, 2)]
            up = self._convolution(up, [Window(kernel, 1, 1, *pads)] * self.rank)
        kernel = int(self.rng.integers(1, 5))
        begin, end = (int(n) for n in self.rng.integers(0, kernel, 2))
        return self._convolution(up, [Window(kernel, factor, 1, begin, end)] * self.rank)

    def _transposed(self, y: Tensor) -> Tensor | None:
        """A strided layer, a ConvTranspose with overlaps or cut off, and a layer of its blocks."""
        factor = int(self.rng.integers(2, 4))
        blocks = [Window(factor, factor, 1, 0, 0)] * self.rank
        self._strided(blocks)
        y = self._convolution(y, blocks)
        kernel, more = (
            int(self.rng.integers(factor, 2 * factor + 2)),
            int(self.rng.integers(factor)),
        )
        begin, end = (int(n) for n in self.rng.integers(0, kernel, 2))
        extent = tuple((n - 1) * factor + kernel + more - begin - end for n in y.shape[1:])
        if min(extent) < factor:
            return None
        up = self.net.op(
            "ConvTranspose",
            y,
            self.net.random(y.shape[0], CHANNELS, *[kernel] * self.rank),
            shape=(CHANNELS, *extent),
            strides=[factor] * self.rank,
            pads=[begin] * self.rank + [end] * self.rank,
            output_padding=[more] * self.rank,
        )
        return self._convolution(up, blocks)

    def _gate(self, y: Tensor) -> Tensor:
        """Squeeze and excite: every channel scaled by what the whole image holds."""
        pooled = self.net.op("GlobalAveragePool", y)
        weight = self.net.random(y.shape[0], y.shape[0], *[1] * self.rank)
        gate = self.net.op("Sigmoid", self.net.op("Conv", pooled, weight))
        return self.net.op("Mul", y, gate, shape=y.shape)
