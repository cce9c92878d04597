"""Operators as each opset writes them, for nets that are made at random.

A *part* takes a net and a tensor to the next tensor, and knows its per-sample shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.nets import Array, Net, Tensor, i64

Part = Callable[[Net, Tensor], Tensor]


def same(net: Net, op_type: str, *operands: Tensor | Array, **attributes: object) -> Tensor:
    """An operator whose result has the shape of its first tensor."""
    shape = next(x.shape for x in operands if isinstance(x, Tensor))
    return net.op(op_type, *operands, shape=shape, **attributes)


def scalar(net: Net, value: float) -> Array:
    return np.array(value, net.dtype.numpy())


def clip(net: Net, y: Tensor, low: float, high: float) -> Tensor:
    """Clip-6, or Clip-11 with its bounds as inputs."""
    if net.opset < 11:
        return same(net, "Clip", y, min=low, max=high)
    return same(net, "Clip", y, scalar(net, low), scalar(net, high))


def slice_(net: Net, y: Tensor, start: int, end: int, axis: int = 1) -> Tensor:
    """Slice-1, or Slice-10 with its bounds as inputs."""
    shape = list(y.shape)
    shape[axis - 1] = len(range(shape[axis - 1])[start:end])
    if net.opset < 10:
        return net.op("Slice", y, axes=[axis], starts=[start], ends=[end], shape=tuple(shape))
    return net.op("Slice", y, i64(start), i64(end), i64(axis), shape=tuple(shape))


def pad(net: Net, y: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad-2, or Pad-11 with its amounts as an input; ``pads`` without the batch axis."""
    rank = len(y.shape)
    shape = tuple(n + pads[a] + pads[rank + a] for a, n in enumerate(y.shape))
    amounts = [0, *pads[:rank], 0, *pads[rank:]]
    if net.opset < 11:
        return net.op("Pad", y, pads=amounts, value=value, shape=shape)
    return net.op("Pad", y, i64(*amounts), scalar(net, value), shape=shape)


def squeeze(net: Net, y: Tensor, axes: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Squeeze-1, or Squeeze-13 with its axes as an input."""
    if net.opset < 13:
        return net.op("Squeeze", y, axes=list(axes), shape=shape)
    return net.op("Squeeze", y, i64(*axes), shape=shape)


def unsqueeze(net: Net, y: Tensor, axes: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Unsqueeze-1, or Unsqueeze-13 with its axes as an input."""
    if net.opset < 13:
        return net.op("Unsqueeze", y, axes=list(axes), shape=shape)
    return net.op("Unsqueeze", y, i64(*axes), shape=shape)


def split(net: Net, y: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Split-2 of the first axis of a sample, or Split-13 with the lengths as an input."""
    if net.opset < 13:
        parts = net.ops("Split", y, outputs=len(lengths), axis=1, split=list(lengths))
    else:
        parts = net.ops("Split", y, i64(*lengths), outputs=len(lengths), axis=1)
    rest = y.shape[1:]
    return [Tensor(p.value, (n, *rest)) for p, n in zip(parts, lengths, strict=True)]


def over(
    net: Net, op_type: str, y: Tensor, axes: Sequence[int], shape: tuple[int, ...], keepdims: int
) -> Tensor:
    """A reduction with its axes as an attribute, or as an input from opset 18 on (sums: 13)."""
    if net.opset >= (13 if op_type == "ReduceSum" else 18):
        return net.op(op_type, y, i64(*axes), keepdims=keepdims, shape=shape)
    return net.op(op_type, y, axes=list(axes), keepdims=keepdims, shape=shape)


def over_features(net: Net, op_type: str, y: Tensor) -> Tensor:
    return over(net, op_type, y, [1], (1,), keepdims=1)


def concat(net: Net, *tensors: Tensor) -> Tensor:
    """The first axes of the samples, joined."""
    shape = (sum(y.shape[0] for y in tensors), *tensors[0].shape[1:])
    return net.op("Concat", *tensors, axis=1, shape=shape)


def reshape(net: Net, y: Tensor, *shape: int) -> Tensor:
    return net.op("Reshape", y, i64(-1, *shape), shape=shape)


def batch_norm(net: Net, y: Tensor) -> Tensor:
    size = y.shape[0]
    variance = np.abs(net.random(size)) + scalar(net, 0.5)
    return same(
        net, "BatchNormalization", y, net.random(size), net.random(size), net.random(size), variance
    )
