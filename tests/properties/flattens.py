"""From a feature map to its features [N, D], in many spellings, and what joins them on the way."""

from __future__ import annotations

import numpy as np

from tests.nets import Net, Tensor, conv, i64
from tests.properties.spellings import (
    Part,
    concat,
    over,
    pad,
    reshape,
    same,
    slice_,
    split,
    squeeze,
    unsqueeze,
)


def flatten(net: Net, y: Tensor) -> Tensor:
    return net.flat(y)


def reshape_from_the_batch(net: Net, y: Tensor) -> Tensor:
    return net.op("Reshape", y, i64(0, -1), shape=(y.size,))


def reshape_to_the_features(net: Net, y: Tensor) -> Tensor:
    return reshape(net, y, y.size)


def shape_arithmetic(net: Net, y: Tensor) -> Tensor:
    batch = net.op("Gather", net.op("Shape", y), i64(0), axis=0)
    shape = net.op("Concat", batch, i64(-1), axis=0)
    return net.op("Reshape", y, shape, shape=(y.size,))


def view_size(net: Net, y: Tensor) -> Tensor:
    """As PyTorch writes ``x.view(x.size(0), -1)``: a scalar, unsqueezed."""
    batch = net.op("Gather", net.op("Shape", y), np.array(0), axis=0)
    shape = net.op("Concat", unsqueeze(net, batch, [0], ()), i64(-1), axis=0)
    return net.op("Reshape", y, shape, shape=(y.size,))


def channels_last(net: Net, y: Tensor) -> Tensor:
    rank = len(y.shape) + 1
    return net.op("Flatten", net.op("Transpose", y, perm=[0, *range(2, rank), 1]), shape=(y.size,))


def rows(net: Net, y: Tensor) -> Tensor:
    wide = net.op("Reshape", y, i64(0, y.shape[0], -1))
    return net.op("Flatten", net.op("Transpose", wide, perm=[0, 2, 1]), shape=(y.size,))


def squeezed(net: Net, y: Tensor) -> Tensor:
    return squeeze(net, reshape(net, y, 1, y.size), [1], (y.size,))


def halves(net: Net, y: Tensor) -> Tensor:
    flat, half = net.flat(y), y.size // 2
    return concat(net, slice_(net, flat, half, y.size), slice_(net, flat, 0, half))


def by_channel(net: Net, y: Tensor) -> Tensor:
    """Each channel flattened for itself."""
    parts = split(net, y, [1] * y.shape[0]) if y.shape[0] > 1 else [y]
    return concat(net, *(net.flat(part) for part in reversed(parts)))


def gathered(net: Net, y: Tensor) -> Tensor:
    """Some features in an order of their own."""
    chosen = net.rng.permutation(y.size)[: max(1, y.size * 2 // 3)]
    return net.op("Gather", net.flat(y), chosen, axis=1, shape=(len(chosen),))


FLATTENS: dict[str, Part] = {
    part.__name__: part
    for part in (
        *(flatten, reshape_from_the_batch, reshape_to_the_features, shape_arithmetic, view_size),
        *(channels_last, rows, squeezed, halves, by_channel, gathered),
    )
}


def tokens(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    """A layer on the channels of each position, before the positions are flattened."""
    wide = net.op("Reshape", y, i64(0, y.shape[0], -1))
    turned = net.op("Transpose", wide, perm=[0, 2, 1])
    made = net.op("MatMul", turned, net.random(y.shape[0], 3))
    made = net.op("Relu", net.op("Add", made, net.random(3)))
    return net.op("Flatten", made, shape=(y.size // y.shape[0] * 3,))


def mixer(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    """A layer on the positions of each channel."""
    positions = y.size // y.shape[0]
    wide = net.op("Reshape", y, i64(0, y.shape[0], -1))
    made = net.op("MatMul", wide, net.random(positions, 2))
    return net.op("Flatten", made, shape=(y.shape[0] * 2,))


def two_maps(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    window = tuple(min(2, n) for n in y.shape[1:])
    extent = tuple(n - k + 1 for n, k in zip(y.shape[1:], window, strict=True))
    other = conv(net, y, extent, window, channels=2)
    return concat(net, flat, net.flat(other))


def side_vector(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    side = net.input("side", (net.batch, 3))
    return concat(net, Tensor(side.value, (3,)), flat)


def twice(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    return concat(net, flat, flat)


def zero_features(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    return pad(net, flat, [1, 2])


def part_of_them(net: Net, y: Tensor, flat: Tensor) -> Tensor:
    return same(net, "Tanh", slice_(net, flat, 0, max(1, flat.size * 2 // 3)))


JOINS = {
    part.__name__: part
    for part in (tokens, mixer, two_maps, side_vector, twice, zero_features, part_of_them)
}


def position_norm(net: Net, y: Tensor) -> Tensor:
    size = y.shape[0]
    variance = np.abs(net.random(size)) + net.dtype.numpy().type(0.5)
    scales = (net.random(size), net.random(size), net.random(size), variance)
    return same(net, "BatchNormalization", y, *scales)


def factor(net: Net, y: Tensor) -> Tensor:
    return same(net, "Mul", net.random(y.size), y)


def subtracted(net: Net, y: Tensor) -> Tensor:
    return same(net, "Sub", net.random(y.size), y)


def divided(net: Net, y: Tensor) -> Tensor:
    return same(net, "Div", y, np.abs(net.random(1, y.size)) + net.dtype.numpy().type(1))


SCALES: dict[str, Part] = {
    part.__name__: part for part in (position_norm, factor, subtracted, divided)
}
"""What differs from position to position, and must fold into the first layer."""


def global_pool(net: Net, y: Tensor) -> Tensor:
    return net.op("Flatten", net.op("GlobalAveragePool", y), shape=(y.shape[0],))


def global_max(net: Net, y: Tensor) -> Tensor:
    pooled = net.op("GlobalMaxPool", y)
    return net.op("Reshape", pooled, i64(-1, y.shape[0]), shape=(y.shape[0],))


def mean_of_positions(net: Net, y: Tensor) -> Tensor:
    axes = range(2, len(y.shape) + 1)
    return over(net, "ReduceMean", y, list(axes), (y.shape[0],), keepdims=0)


def mean_of_rows(net: Net, y: Tensor) -> Tensor:
    wide = net.op("Reshape", y, i64(0, y.shape[0], -1))
    return over(net, "ReduceMean", wide, [2], (y.shape[0],), keepdims=0)


def mean_and_largest(net: Net, y: Tensor) -> Tensor:
    return concat(net, global_pool(net, y), global_max(net, y))


POOLS: dict[str, Part] = {
    part.__name__: part
    for part in (global_pool, global_max, mean_of_positions, mean_of_rows, mean_and_largest)
}
