"""From the image to a feature map: trunks whose windows are exact, and others."""

from __future__ import annotations

from tests.nets import Net, Tensor, conv
from tests.properties.spellings import (
    Part,
    batch_norm,
    concat,
    over,
    pad,
    reshape,
    same,
    scalar,
    slice_,
    split,
)


def _slid(y: Tensor, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, ...]:
    return tuple((n - dilation * (kernel - 1) - 1) // stride + 1 for n in y.shape[1:])


def plain(net: Net, image: Tensor) -> Tensor:
    y = conv(net, image, _slid(image, 3))
    y = same(net, "Relu", y)
    return pooled(net, y)


def pooled(net: Net, y: Tensor, op_type: str = "MaxPool") -> Tensor:
    rank = len(y.shape) - 1
    made = net.op(op_type, y, kernel_shape=[2] * rank, strides=[2] * rank)
    return Tensor(made.value, (y.shape[0], *_slid(y, 2, 2)))


def averaged(net: Net, image: Tensor) -> Tensor:
    return pooled(net, conv(net, image, _slid(image, 2), 2), "AveragePool")


def nothing(net: Net, image: Tensor) -> Tensor:
    return image


def branches(net: Net, image: Tensor) -> Tensor:
    y = concat(net, plain(net, image), plain(net, image))
    return batch_norm(net, y)


def residual(net: Net, image: Tensor) -> Tensor:
    y = conv(net, image, _slid(image, 3))
    return same(net, "Add", same(net, "Relu", conv(net, y, y.shape[1:], 1)), y)


def dilated(net: Net, image: Tensor) -> Tensor:
    rank = len(image.shape) - 1
    y = conv(net, image, _slid(image, 2, 2, 3), 2, dilations=[3] * rank, strides=[2] * rank)
    return batch_norm(net, y)


def shuffled(net: Net, image: Tensor) -> Tensor:
    """Channels split, convolved and joined in another order."""
    y = conv(net, image, _slid(image, 3), channels=4)
    one, two = split(net, y, [2, 2])
    return concat(net, two, same(net, "Tanh", conv(net, one, y.shape[1:], 1, channels=2)))


def cropped(net: Net, image: Tensor) -> Tensor:
    """A margin is cut off, as beside a convolution without padding."""
    margin = conv(net, image, _slid(image, 3))
    y = image
    for axis in range(2, len(image.shape) + 1):
        y = slice_(net, y, 1, -1, axis=axis)
    return concat(net, margin, Tensor(y.value, (image.shape[0], *margin.shape[1:])))


def transposed(net: Net, image: Tensor) -> Tensor:
    """A block of cells made of each, and taken together again."""
    rank = len(image.shape) - 1
    y = conv(net, image, _slid(image, 2, 2), 2, strides=[2] * rank)
    return pooled(net, _transposed(net, y, 2, [0] * rank), "AveragePool")


def _transposed(net: Net, y: Tensor, kernel: int, pads: list[int]) -> Tensor:
    """Twice as many cells."""
    rank = len(pads)
    weight = net.random(y.shape[0], 3, *[kernel] * rank)
    more = [2 * pad + 2 - kernel for pad in pads]
    rest = {"strides": [2] * rank, "pads": pads * 2, "output_padding": more}
    return net.op(
        "ConvTranspose", y, weight, net.random(3), shape=(3, *(2 * n for n in y.shape[1:])), **rest
    )


EXACT: dict[str, Part] = {
    part.__name__: part
    for part in (
        plain,
        averaged,
        nothing,
        branches,
        residual,
        dilated,
        shuffled,
        cropped,
        transposed,
    )
}


def padded(net: Net, image: Tensor) -> Tensor:
    rank = len(image.shape) - 1
    y = conv(net, image, _slid(image, 1), 3, pads=[1] * (2 * rank))
    return pooled(net, same(net, "Relu", y))


def same_size(net: Net, image: Tensor) -> Tensor:
    rank = len(image.shape) - 1
    extent = tuple(-(-n // 2) for n in image.shape[1:])
    return conv(net, image, extent, 3, auto_pad="SAME_UPPER", strides=[2] * rank)


def same_lower(net: Net, image: Tensor) -> Tensor:
    y = conv(net, image, image.shape[1:], 2, auto_pad="SAME_LOWER")
    return pooled(net, y)


def ceiled(net: Net, image: Tensor) -> Tensor:
    """MaxPool-10 with ceil_mode; the older one with the padding that this makes."""
    y = conv(net, image, _slid(image, 2), 2)
    rank = len(y.shape) - 1
    extent = tuple(-(-(n - 2) // 2) + 1 for n in y.shape[1:])
    window = {"kernel_shape": [2] * rank, "strides": [2] * rank}
    if net.opset < 10:
        ends = [2 * (m - 1) + 2 - n for m, n in zip(extent, y.shape[1:], strict=True)]
        made = net.op("MaxPool", y, pads=[0] * rank + ends, **window)
    else:
        made = net.op("MaxPool", y, ceil_mode=1, **window)
    return Tensor(made.value, (y.shape[0], *extent))


def pad_operator(net: Net, image: Tensor) -> Tensor:
    rank = len(image.shape) - 1
    y = pad(net, image, [0, *[1] * rank, 0, *[2] * rank], value=0.5)
    return conv(net, y, _slid(y, 3))


def gated(net: Net, image: Tensor) -> Tensor:
    """Squeeze and excite: the whole image scales each channel."""
    y = plain(net, image)
    axes = list(range(2, len(y.shape) + 1))
    cell = over(net, "ReduceMean", y, axes, (y.shape[0], *[1] * len(axes)), 1)
    hidden = conv(net, cell, cell.shape[1:], 1, channels=2)
    gate = same(net, "Sigmoid", conv(net, same(net, "Relu", hidden), cell.shape[1:], 1))
    return same(net, "Mul", y, gate)


def instance_norm(net: Net, image: Tensor) -> Tensor:
    y = plain(net, image)
    return same(net, "InstanceNormalization", y, net.random(3), net.random(3))


def group_norm(net: Net, image: Tensor) -> Tensor:
    """Two groups of channels, written out as means and differences."""
    y = pooled(net, conv(net, image, _slid(image, 2), 2, channels=4))
    rows = reshape(net, y, 2, y.size // 2)
    rest = same(net, "Sub", rows, over(net, "ReduceMean", rows, [2], (2, 1), 1))
    variance = over(net, "ReduceMean", same(net, "Mul", rest, rest), [2], (2, 1), 1)
    deviation = same(net, "Sqrt", same(net, "Add", variance, scalar(net, 0.1)))
    normal = reshape(net, same(net, "Div", rest, deviation), *y.shape)
    scale, shift = (net.random(4, *[1] * (len(y.shape) - 1)) for _ in range(2))
    return same(net, "Add", same(net, "Mul", normal, scale), shift)


def overlapping(net: Net, image: Tensor) -> Tensor:
    """As a U-Net goes up: at the border there is less to add up."""
    rank = len(image.shape) - 1
    y = conv(net, image, _slid(image, 2, 2), 2, strides=[2] * rank)
    return pooled(net, same(net, "Relu", _transposed(net, y, 3, [1] * rank)))


OTHER: dict[str, Part] = {
    part.__name__: part
    for part in (
        *(padded, same_size, same_lower, ceiled, pad_operator, overlapping, gated),
        *(instance_norm, group_norm),
    )
}


def channels_last(net: Net, part: Part) -> Tensor:
    """The trunk of an image [N, *spatial, C], its map turned back to that."""
    *extent, channels = net.x.shape
    rank = len(extent)
    turned = net.op("Transpose", net.x, perm=[0, rank + 1, *range(1, rank + 1)])
    y = part(net, Tensor(turned.value, (channels, *extent)))
    back = net.op("Transpose", y, perm=[0, *range(2, rank + 2), 1])
    return Tensor(back.value, (*y.shape[1:], y.shape[0]))


def _second(net: Net) -> Tensor:
    other = net.input("x2", (net.batch, *net.image))
    return Tensor(other.value, net.image)


def two_trunks(net: Net, image: Tensor) -> Tensor:
    """The maps of two images, joined."""
    return concat(net, plain(net, image), plain(net, _second(net)))


def distance(net: Net, image: Tensor) -> Tensor:
    """How far the maps of two images are apart."""
    return same(net, "Abs", same(net, "Sub", plain(net, image), plain(net, _second(net))))


def stacked_images(net: Net, image: Tensor) -> Tensor:
    return plain(net, concat(net, image, _second(net)))


PAIRS: dict[str, Part] = {part.__name__: part for part in (two_trunks, distance, stacked_images)}
