"""Quantized pieces for `Net`: parameters, weights of integers, and activations between Q and DQ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.nets import Array, Net, Tensor


@dataclass(frozen=True)
class Integers:
    """An array of integers with its parameters.

    ``axis`` is that of the parameters if they are per channel.
    """

    array: Array
    scale: Array
    zero: Array
    axis: int | None = None

    @property
    def parameters(self) -> tuple[Array, Array]:
        return self.scale, self.zero

    def moved(self, *perm: int) -> Integers:
        axis = None if self.axis is None else perm.index(self.axis)
        return Integers(
            np.ascontiguousarray(self.array.transpose(perm)), self.scale, self.zero, axis
        )


def integers(net: Net, *shape: int, dtype: Any = np.int8, axis: int | None = None) -> Integers:
    """Random weights, with zero points other than 0 where the type is unsigned."""
    bounds = np.iinfo(dtype)
    array = net.rng.integers(bounds.min, bounds.max, shape, endpoint=True).astype(dtype)
    count = () if axis is None else (shape[axis],)
    fan_in = np.prod(shape[1:] if len(shape) > 2 else shape) / (1 if len(shape) > 2 else min(shape))
    scale = (net.rng.uniform(0.5, 1.5, count) / (64 * np.sqrt(fan_in))).astype(np.float32)
    middle = 128 if bounds.min == 0 else 0
    return Integers(array, scale, np.full(count, middle, dtype), axis)


def dq(net: Net, of: Integers) -> Tensor:
    """The integers behind a DequantizeLinear."""
    attributes = {} if of.axis is None else {"axis": of.axis}
    return net.op("DequantizeLinear", of.array, of.scale, of.zero, **attributes)


def bias(net: Net, weight: Integers, image_scale: Array, outputs: int) -> Integers:
    """An int32 bias on the scale of the products, as onnxruntime's quantizer writes it."""
    scale = (image_scale * weight.scale).astype(np.float32)
    values = net.rng.normal(size=outputs) * 0.3 / scale
    zero = np.zeros(scale.shape, np.int32)
    return Integers(values.astype(np.int32), scale, zero, 0 if scale.ndim else None)


STEP = np.array(1 / 32, np.float32)
"""Scale of the activations here."""


def zero_point(dtype: Any, value: int = 3) -> Array:
    return np.array(value + (120 if dtype == np.uint8 else 0), dtype)


def qdq(net: Net, y: Tensor, dtype: Any = np.uint8, scale: Array = STEP) -> Tensor:
    """QuantizeLinear → DequantizeLinear."""
    zero = zero_point(dtype)
    quantized = net.op("QuantizeLinear", y, scale, zero)
    return net.op("DequantizeLinear", quantized, scale, zero, shape=y.shape)


def quantized_trunk(net: Net, dtype: Any = np.uint8, weight: Any = np.int8) -> Tensor:
    """As `qdq_trunk`, of operators on integers: QLinearConv and MaxPool; it ends in integers."""
    zero = zero_point(dtype)
    kernel = integers(net, 3, net.image[0], 3, 3, dtype=weight, axis=0)
    offset = bias(net, kernel, STEP, 3).array
    y = net.op("QuantizeLinear", net.x, STEP, zero)
    y = net.op("QLinearConv", y, STEP, zero, kernel.array, *kernel.parameters, STEP, zero, offset)
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    return Tensor(y.value, (3, 3, 4))


def qdq_trunk(net: Net, dtype: Any = np.uint8, weight: Any = np.int8) -> Tensor:
    """A quantized convolution and a pooling: [2, 8, 10] to [3, 3, 4], ending in DQ."""
    kernel = integers(net, 3, net.image[0], 3, 3, dtype=weight, axis=0)
    y = net.op("Conv", qdq(net, net.x, dtype), dq(net, kernel), dq(net, bias(net, kernel, STEP, 3)))
    y = net.op("MaxPool", qdq(net, y, dtype), kernel_shape=[2, 2], strides=[2, 2])
    return qdq(net, Tensor(y.value, (3, 3, 4)), dtype)
