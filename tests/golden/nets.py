"""Nets of a few nodes whose weights are the same bits with every NumPy and on every processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from tests.nets import Array, Net, Tensor
from tests.properties import ends
from tests.properties.spellings import Part


class Numbers:
    """Stands for a NumPy generator; RandomState's stream of bits is frozen (NEP 19).

    All are odd multiples of 1/128: exact in half precision, and never 0, which is what a kernel
    holds where its layer reads nothing.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.RandomState(seed)

    def normal(self, size: Any = None) -> Any:
        return (2 * np.floor(self._bits.random_sample(size) * 256) - 255) / 128

    def uniform(self, low: float, high: float, size: Any = None) -> Any:
        return low + (high - low) * np.floor(self._bits.random_sample(size) * 256) / 256

    def integers(
        self, low: int, high: int, size: Any = None, endpoint: bool = False
    ) -> np.ndarray[Any, Any]:
        count = high - low + endpoint
        found: Array = low + np.floor(self._bits.random_sample(size) * count).astype(np.int64)
        return found

    def permutation(self, count: int) -> Array:
        return self._bits.random_sample(count).argsort()


class GoldenNet(Net):
    """A net of such weights, whose nodes all have names of their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rng = Numbers(self.seed)  # type: ignore[assignment]

    def ops(self, op_type: str, *operands: Tensor | Array | None, **options: Any) -> list[Tensor]:
        options["name"] = options.get("name") or f"{op_type}_{len(self.nodes)}"
        return super().ops(op_type, *operands, **options)


def put_together(
    *parts: Part, end: Callable[[Net, Tensor], ends.End] = ends.scores, **options: Any
) -> Callable[[], onnx.ModelProto]:
    """A net of parts, one after the other."""

    def model() -> onnx.ModelProto:
        net = GoldenNet(**options)
        y = net.x
        for part in parts:
            y = part(net, y)
        finished = end(net, y)
        return net.model(*finished.tensors, dtype=finished.dtype)

    return model
