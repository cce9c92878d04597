"""Random small networks, by family: what tools/false_alarms.py and tools/mutations.py are run on.

`FAMILIES` maps a name to a function from a source of random numbers to a model. The same seed makes
the same model. A family draws its parts from `tests/properties`, where it can; what it adds to them
stands here.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # networks are built as the tests build theirs

from tests import quantized_nets as quantized  # noqa: E402
from tests.nets import Array, Net, Tensor, i64  # noqa: E402
from tests.properties import ends, flattens, layers, trunks  # noqa: E402
from tests.properties.spellings import (  # noqa: E402
    batch_norm,
    concat,
    over,
    pad,
    reshape,
    same,
    scalar,
    slice_,
    split,
    squeeze,
    unsqueeze,
)

Rng = random.Random
Family = Callable[[Rng], onnx.ModelProto]

OPSETS = (9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21)
IMAGES = {1: (2, 13), 2: (2, 8, 9), 3: (1, 6, 5, 6)}
ACTIVATIONS = ("Relu", "Relu", "LeakyRelu", "Tanh", "Sigmoid", "Elu", "HardSigmoid", "Softplus")
END = 2**63 - 1
"""What exporters write for *to the end*."""


def make(family: str, seed: int) -> onnx.ModelProto:
    """The network of a family with this seed."""
    return FAMILIES[family](random.Random(f"{family}/{seed}"))


def _net(
    rng: Rng,
    image: tuple[int, ...] | None = None,
    *,
    opsets: Sequence[int] = OPSETS,
    batches: Sequence[int | str] = ("N", "N", "batch", 1, 2),
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> Net:
    if image is None:
        image = (rng.randint(1, 3), rng.randint(8, 12), rng.randint(8, 12))
    return Net(
        opset=rng.choice(list(opsets)),
        image=image,
        batch=rng.choice(list(batches)),
        seed=rng.randrange(2**31),
        dtype=dtype,
    )


def _any(rng: Rng, parts: dict[str, Any]) -> Any:
    return parts[rng.choice(sorted(parts))]


def _activated(rng: Rng, net: Net, y: Tensor) -> Tensor:
    return same(net, rng.choice(ACTIVATIONS), y)


def _end(rng: Rng, net: Net, y: Tensor) -> onnx.ModelProto:
    """The model that ends with some scores, or what is made of them."""
    usual = {k: end for k, end in ends.ENDS.items() if k != "without_batch"}
    end = _any(rng, usual)(net, y)
    return net.model(*end.tensors, dtype=end.dtype)


def _layers(rng: Rng, net: Net, y: Tensor, most: int = 2) -> Tensor:
    """One or more fully connected layers, with something between them."""
    for _ in range(rng.randint(1, most)):
        y = _any(rng, layers.LAYERS)(net, y, rng.randint(1, 5))
        if rng.random() < 0.6:
            y = _any(rng, layers.BETWEEN)(net, y)
    return y


def _head(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """A Flatten in one of its spellings, perhaps joined or scaled, and layers."""
    flat = _any(rng, flattens.FLATTENS)(net, y)
    if rng.random() < 0.3:
        flat = _any(rng, {k: v for k, v in flattens.JOINS.items() if k != "side_vector"})(
            net, y, flat
        )
    if rng.random() < 0.3:
        flat = _any(rng, flattens.SCALES)(net, flat)
    return _layers(rng, net, flat)


def _plain(rng: Rng, net: Net, *, channels: int = 3) -> Tensor:
    return net.trunk(relu=rng.random() < 0.7, pool=rng.random() < 0.7, channels=channels)


# Trunks


def slid(
    length: int, kernel: int, stride: int, begin: int, end: int, dilation: int, *, ceil: bool
) -> int:
    """Cells of a sliding operator, as onnxruntime counts them: none starts behind the image."""
    span = length + begin + end - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= length + begin:
        count -= 1
    return count


def _sliding(rng: Rng, y: Tensor, *, pooling: bool) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Attributes of a random Conv or pooling, and the extent that it gives."""
    rank = len(y.shape) - 1
    kernel = [rng.randint(1 + pooling, min(3, n)) if n > 1 else 1 for n in y.shape[1:]]
    strides = [rng.choice((1, 1, 2)) if n > 3 else 1 for n in y.shape[1:]]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    how = rng.random()
    if how < 0.15:
        found["auto_pad"] = rng.choice(("SAME_UPPER", "SAME_LOWER"))
        return found, tuple(-(-n // s) for n, s in zip(y.shape[1:], strides, strict=True))
    begin = [rng.randint(0, k - 1) if how < 0.5 else 0 for k in kernel]
    end = [b if rng.random() < 0.7 else rng.randint(0, k - 1) if how < 0.5 else 0
           for b, k in zip(begin, kernel, strict=True)]  # fmt: skip
    if how < 0.5:
        found["pads"] = begin + end
    dilations = [1] * rank
    if not pooling and rng.random() < 0.2:
        dilations = [2 if n > 2 * (k - 1) + 1 else 1
                     for n, k in zip(y.shape[1:], kernel, strict=True)]  # fmt: skip
        found["dilations"] = dilations
    ceil = pooling and rng.random() < 0.25
    if ceil:
        found["ceil_mode"] = 1
    columns = zip(y.shape[1:], kernel, strides, begin, end, dilations, strict=True)
    return found, tuple(slid(*column, ceil=ceil) for column in columns)


def random_conv(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """A Conv: dense, grouped or depthwise; any pads, strides, dilations; perhaps without bias."""
    attributes, extent = _sliding(rng, y, pooling=False)
    group = rng.choice((1, 1, y.shape[0]))
    channels = group * rng.randint(1, 2) if group > 1 else rng.randint(2, 4)
    kernel = net.random(channels, y.shape[0] // group, *attributes["kernel_shape"])
    bias = (net.random(channels),) if rng.random() < 0.7 else ()
    made = net.op("Conv", y, kernel, *bias, group=group, **attributes)
    return Tensor(made.value, (channels, *extent))


def random_pool(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """A MaxPool or AveragePool with any pads, strides and rounding."""
    op_type = rng.choice(("MaxPool", "AveragePool"))
    attributes, extent = _sliding(rng, y, pooling=True)
    if "ceil_mode" in attributes and net.opset < (10 if op_type == "MaxPool" else 19):
        del attributes["ceil_mode"]
        pads = attributes.get("pads", [0] * 2 * (len(y.shape) - 1))
        rank = len(extent)
        extent = tuple(
            slid(n, k, s, b, e, 1, ceil=False)
            for n, k, s, b, e in zip(
                y.shape[1:], attributes["kernel_shape"], attributes["strides"],
                pads[:rank], pads[rank:], strict=True,
            )
        )  # fmt: skip
    if op_type == "AveragePool" and rng.random() < 0.3:
        attributes["count_include_pad"] = 1
    return Tensor(net.op(op_type, y, **attributes).value, (y.shape[0], *extent))


def random_residual(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """A bottleneck beside its own input."""
    rank, wide = len(y.shape) - 1, y.shape[0] + 1
    inner = net.op("Conv", y, net.random(wide, y.shape[0], *[1] * rank), shape=(wide,))
    inner = same(net, "Relu", inner)
    outer = net.op("Conv", inner, net.random(y.shape[0], wide, *[3] * rank), pads=[1] * 2 * rank)
    return same(net, "Add", Tensor(outer.value, y.shape), y)


def random_trunk(rng: Rng, net: Net, y: Tensor, depth: int) -> Tensor:
    """Some layers after each other."""
    for _ in range(depth):
        if min(y.shape[1:]) < 3:
            break
        layer = rng.choice((random_conv, random_conv, random_pool, random_residual))
        y = layer(rng, net, y)
        if rng.random() < 0.2:
            y = batch_norm(net, y)
        if rng.random() < 0.6:
            y = _activated(rng, net, y)
    return y


def sliding_trunks(rng: Rng) -> onnx.ModelProto:
    """Trunks of one to four random layers: SAME, ceil_mode, depthwise, dilated, residual."""
    net = _net(rng)
    y = random_trunk(rng, net, net.x, rng.randint(1, 4))
    return net.model(_layers(rng, net, net.flat(y), 1))


# Movement between the trunk and the layer


def moved(
    net: Net, y: Tensor, by: Callable[[Array], Array], op_type: str, *operands: Array, **rest: Any
) -> Tensor:
    """An operator whose shape NumPy knows: ``by`` does the same to an array [1, *shape]."""
    shape = by(np.empty((1, *y.shape), np.int8)).shape[1:]
    return net.op(op_type, y, *operands, shape=shape, **rest)


def stepped(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """Slice-10 with a step, forwards or backwards, of one or more axes, in any spelling of them."""
    if net.opset < 10:
        return slice_(net, y, 0, max(1, y.shape[0] - 1))
    axes = sorted(rng.sample(range(1, len(y.shape) + 1), rng.randint(1, len(y.shape))))
    index: list[slice] = [slice(None)] * (len(y.shape) + 1)
    rows: list[tuple[int, int, int, int]] = []
    for axis in axes:
        n = y.shape[axis - 1]
        step = rng.choice((1, 2, 3, -1, -2)) if n > 1 else 1
        if step > 0:
            start = rng.choice((0, 0, 1, -n)) if n > 2 else 0
            stop = rng.choice((n, END, 2**31 - 1))
            index[axis] = slice(start, min(stop, n), step)
        else:
            start = rng.choice((n - 1, -1, END))
            stop = rng.choice((-END, -n - 1, -(2**31)))
            index[axis] = slice(None, None, step)
        named = axis if rng.random() < 0.7 else axis - len(y.shape) - 1
        rows.append((start, stop, named, step))
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    return moved(net, y, lambda a: a[tuple(index)], "Slice", *columns)


def space_to_depth(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """SpaceToDepth, of the even part of a map."""
    channels, *extent = y.shape
    if len(extent) != 2 or min(extent) < 2:
        return y
    for axis, length in enumerate(extent, 2):
        if length % 2:
            y = slice_(net, y, 0, length - 1, axis=axis)
    shape = (4 * channels, *(n // 2 for n in y.shape[1:]))
    return net.op("SpaceToDepth", y, blocksize=2, shape=shape)


def depth_to_space(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """DepthToSpace in either mode."""
    channels, *extent = y.shape
    if len(extent) != 2 or channels % 4:
        return y
    mode = {"mode": rng.choice(("DCR", "CRD"))} if net.opset >= 11 else {}
    shape = (channels // 4, *(2 * n for n in extent))
    return net.op("DepthToSpace", y, blocksize=2, shape=shape, **mode)


def channel_shuffle(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """Reshape, Transpose, Reshape: the channels of two groups in turns."""
    channels, *extent = y.shape
    if channels % 2:
        return y
    wide = reshape(net, y, 2, channels // 2, *extent)
    perm = [0, 2, 1, *range(3, 3 + len(extent))]
    turned = net.op("Transpose", wide, perm=perm)
    return reshape(net, turned, *y.shape)


def turned(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """Any Transpose that leaves the batch where it is."""
    perm = [0, *rng.sample(range(1, len(y.shape) + 1), len(y.shape))]
    return moved(net, y, lambda a: a.transpose(perm), "Transpose", perm=perm)


def enlarged(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """A margin of a constant around the map."""
    amounts = [rng.randint(0, 1) for _ in range(2 * len(y.shape))]
    return pad(net, y, amounts, value=rng.choice((0.0, 0.5)))


def picked(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """Gather along some axis: an order, with some left out or twice."""
    axis = rng.randint(1, len(y.shape))
    n = y.shape[axis - 1]
    index = np.array([rng.randrange(n) for _ in range(rng.randint(1, n + 1))], np.int64)
    return moved(net, y, lambda a: a.take(index, axis), "Gather", index, axis=axis)


def doubled(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """The features and what an activation makes of them, along some axis."""
    axis = rng.randint(1, len(y.shape))
    other = _activated(rng, net, y)
    shape = tuple(2 * n if a + 1 == axis else n for a, n in enumerate(y.shape))
    return net.op("Concat", y, other, axis=axis, shape=shape)


def exchanged_parts(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """Split along the channels and join the other way round."""
    if y.shape[0] < 2:
        return y
    cut = rng.randint(1, y.shape[0] - 1)
    one, two = split(net, y, [cut, y.shape[0] - cut])
    return concat(net, two, one)


def rows_in_the_batch(rng: Rng, net: Net, y: Tensor) -> Tensor:
    """Reshape that merges the rows with the batch, a layer on each row, and back."""
    if len(y.shape) != 3:
        return y
    channels, height, width = y.shape
    rows = net.op("Transpose", y, perm=[0, 2, 1, 3])
    rows = net.op("Reshape", rows, i64(-1, channels * width))
    made = net.op("MatMul", rows, net.random(channels * width, 3))
    return net.op("Reshape", made, i64(-1, height * 3), shape=(height * 3,))


MOVEMENTS = (
    *(stepped, stepped, space_to_depth, depth_to_space, channel_shuffle, turned, enlarged),
    *(picked, doubled, exchanged_parts),
)


def movement(rng: Rng) -> onnx.ModelProto:
    """One to three random movements between the trunk and a layer."""
    net = _net(rng, rng.choice([None, None, None, IMAGES[1], IMAGES[3]]))
    y = _plain(rng, net, channels=rng.choice((2, 3, 4)))
    for _ in range(rng.randint(1, 3)):
        y = rng.choice(MOVEMENTS)(rng, net, y)
    y = rows_in_the_batch(rng, net, y) if rng.random() < 0.2 else y
    flat = y if len(y.shape) == 1 else net.flat(y)
    return net.model(_layers(rng, net, flat, 1))


# Heads


def heads(rng: Rng) -> onnx.ModelProto:
    """Any trunk of tests/properties, any spelling of Flatten, layers and ends."""
    net = _net(rng, IMAGES[2])
    y = _any(rng, {**trunks.EXACT, **trunks.OTHER})(net, net.x)
    return _end(rng, net, _head(rng, net, y))


def sounds(rng: Rng) -> onnx.ModelProto:
    """As `heads`, of signals [C, L]."""
    net = _net(rng, IMAGES[1])
    y = _any(rng, {**trunks.EXACT, **trunks.OTHER})(net, net.x)
    return _end(rng, net, _head(rng, net, y))


def volumes(rng: Rng) -> onnx.ModelProto:
    """As `heads`, of volumes [C, D, H, W]."""
    net = _net(rng, IMAGES[3])
    y = _any(rng, trunks.EXACT)(net, net.x)
    return _end(rng, net, _head(rng, net, y))


def channels_last(rng: Rng) -> onnx.ModelProto:
    """Images [H, W, C], with a bias, LayerNormalization or Dense layer on the last axis."""
    net = _net(rng, (rng.randint(8, 11), rng.randint(8, 11), 2), opsets=(13, 17, 18, 21))
    part = _any(rng, {k: v for k, v in trunks.EXACT.items() if k != "nothing"})
    y = trunks.channels_last(net, part)
    channels = y.shape[-1]
    match rng.randrange(4):
        case 0:
            y = same(net, "Relu", same(net, "Add", y, net.random(channels)))
        case 1 if net.opset >= 17:
            scales = net.random(channels), net.random(channels)
            y = same(net, "LayerNormalization", y, *scales, axis=-1, epsilon=0.01)
        case 2:
            dense = net.op("MatMul", y, net.random(channels, 3))
            y = same(net, "Relu", Tensor(dense.value, (*y.shape[:-1], 3)))
        case _:
            pass
    if rng.random() < 0.5:
        back = net.op("Transpose", y, perm=[0, len(y.shape), *range(1, len(y.shape))])
        y = Tensor(back.value, (y.shape[-1], *y.shape[:-1]))
    return net.model(_layers(rng, net, net.flat(y), 1))


def side_inputs(rng: Rng) -> onnx.ModelProto:
    """A vector beside the features, behind nothing, Relu, Slice or a layer of its own."""
    net = _net(rng)
    flat = _any(rng, flattens.FLATTENS)(net, _plain(rng, net))
    side = Tensor(net.input("side", (net.batch, 4)).value, (4,))
    match rng.randrange(4):
        case 0:
            side = same(net, "Relu", side)
        case 1:
            side = slice_(net, side, 1, 3)
        case 2:
            side = same(net, "Tanh", net.fc(side, 3))
        case _:
            pass
    both = concat(net, *rng.choice(((flat, side), (side, flat))))
    return net.model(_layers(rng, net, both))


def image_pairs(rng: Rng) -> onnx.ModelProto:
    """Two images, joined before or behind their trunks."""
    net = _net(rng, IMAGES[2])
    return _end(rng, net, _head(rng, net, _any(rng, trunks.PAIRS)(net, net.x)))


def several_maps(rng: Rng) -> onnx.ModelProto:
    """Heads on maps of several strides, summed, joined or apart."""
    net = _net(rng, (2, 12, 12))
    first = random_trunk(rng, net, net.trunk(), 1)
    second = random_pool(rng, net, first) if min(first.shape[1:]) > 2 else first
    one, two = (net.fc(net.flat(y), 4) for y in (first, second))
    match rng.randrange(3):
        case 0:
            return net.model(same(net, "Add", one, two))
        case 1:
            return net.model(net.fc(same(net, "Relu", concat(net, one, two)), 3))
        case _:
            return net.model(one, two)


def several_outputs(rng: Rng) -> onnx.ModelProto:
    """Scores and boxes; a map, an embedding or an enlarged map beside them."""
    net = _net(rng)
    y = _plain(rng, net)
    hidden = same(net, "Relu", net.fc(net.flat(y), 6))
    scores = same(net, "Softmax", net.fc(hidden, 3), axis=1)
    found = [scores, net.fc(hidden, 4)]
    match rng.randrange(4):
        case 0:
            found.append(hidden)
        case 1:
            found.append(same(net, "Sigmoid", y))
        case 2 if net.opset >= 11:
            sizes = np.array([1, 1, 2, 2], np.float32)
            found.append(net.op("Resize", y, np.zeros(0, np.float32), sizes, mode="nearest"))
        case _:
            pass
    rng.shuffle(found)
    return net.model(*found)


def gates(rng: Rng) -> onnx.ModelProto:
    """Squeeze-and-excite or ECA in the trunk."""
    net = _net(rng, IMAGES[2], opsets=(11, 13, 17, 18, 21))
    y = trunks.gated(net, net.x)
    if rng.random() < 0.4:
        pooled = net.op("GlobalAveragePool", y)
        row = net.op("Reshape", pooled, i64(0, 1, y.shape[0]))
        row = net.op("Conv", row, net.random(1, 1, 3), pads=[1, 1])
        gate = net.op("Sigmoid", net.op("Reshape", row, i64(0, y.shape[0], 1, 1)))
        y = same(net, "Mul", y, gate)
    return net.model(_layers(rng, net, net.flat(y), 1))


def pooled(rng: Rng) -> onnx.ModelProto:
    """Global pooling, of maps of any trunk, and layers."""
    net = _net(rng, rng.choice((IMAGES[1], IMAGES[2], IMAGES[2])))
    y = _any(rng, trunks.EXACT if rng.random() < 0.6 else trunks.OTHER)(net, net.x)
    return _end(rng, net, _layers(rng, net, _any(rng, flattens.POOLS)(net, y)))


def pooled_and_flat(rng: Rng) -> onnx.ModelProto:
    """The flattened map beside its own mean, or a pyramid of poolings."""
    net = _net(rng, IMAGES[2])
    y = _plain(rng, net)
    other = _any(rng, flattens.POOLS)(net, y)
    return net.model(_layers(rng, net, concat(net, net.flat(y), other), 1))


def poolings_side_by_side(rng: Rng) -> onnx.ModelProto:
    """Both global poolings along an axis that is not the channels', then a layer."""
    net = _net(rng, rng.choice((IMAGES[1], IMAGES[2])))
    y = _plain(rng, net)
    both = [net.op(op_type, y) for op_type in ("GlobalMaxPool", "GlobalAveragePool")]
    shape = (y.shape[0], 2, *[1] * (len(y.shape) - 2))
    joined = net.op("Concat", *both, axis=2, shape=shape)
    return net.model(_layers(rng, net, net.flat(joined), 1))


def names_in_use(rng: Rng) -> onnx.ModelProto:
    """Tensors that have the names which a conversion would give to its own."""
    model = heads(rng)
    endings = ("_conv", "_map", "_kernel", "_bias", "_1", "_H", "_frozen", "_window")
    names = [name for node in model.graph.node for name in node.output]
    outputs = {output.name for output in model.graph.output}
    new: dict[str, str] = {}
    for name in names:
        if name not in outputs:
            new[name] = f"{rng.choice(sorted(outputs))}{rng.choice(endings)}"
            while list(new.values()).count(new[name]) > 1:
                new[name] += rng.choice(endings)
    return _renamed(model, new)


def _renamed(model: onnx.ModelProto, new: dict[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    del model.graph.value_info[:]
    return model


def shared_numbers(rng: Rng) -> onnx.ModelProto:
    """Weights of few values, so that many of them are the same number."""
    net = _net(rng)
    values = rng.choice(([-1, 0, 1], [0.5], [0, 1], [0.25, -0.25]))

    def few(*shape: int) -> Array:
        return net.rng.choice(np.array(values, np.float32), shape)

    conv = net.op("Conv", net.x, few(3, net.image[0], 3, 3), few(3))
    y = Tensor(conv.value, (3, *(n - 2 for n in net.image[1:])))
    y = same(net, "Relu", net.op("Gemm", net.flat(y), few(y.size, 4), few(4), shape=(4,)))
    return net.model(net.op("Gemm", y, few(4, 3), few(3), shape=(3,)))


def ties(rng: Rng) -> onnx.ModelProto:
    """ArgMax, ArgMin or TopK among classes some of which have the same weights."""
    net = _net(rng, opsets=(10, 11, 13, 17))
    flat = net.flat(_plain(rng, net))
    distinct = rng.randint(1, 4)
    order = [rng.randrange(distinct) for _ in range(rng.choice((3, 5, 17)))]
    weight, bias = net.random(flat.size, distinct)[:, order], net.random(distinct)[order]
    y = net.op("Gemm", flat, weight, bias, shape=(len(order),))
    if rng.random() < 0.3:
        best = net.ops("TopK", y, i64(2), outputs=2, axis=1, shape=(2,))
        return (
            net.model(best[0])
            if rng.random() < 0.5
            else net.model(best[1], dtype=ir.DataType.INT64)
        )
    op_type, keep = rng.choice(("ArgMax", "ArgMin")), rng.randint(0, 1)
    return net.model(net.op(op_type, y, axis=1, keepdims=keep), dtype=ir.DataType.INT64)


def ill_conditioned(rng: Rng) -> onnx.ModelProto:
    """Ends that turn a rounding into anything: Cos of large logits, log(1 - p), (z + c) - c."""
    net = _net(rng, opsets=(11, 13, 17))
    flat = net.flat(_plain(rng, net))
    size = 10.0 ** rng.randint(0, 3)
    weight = net.random(4, flat.size) * np.float32(size)
    z = net.op("Gemm", flat, weight, net.random(4), transB=1, shape=(4,))
    one, far = scalar(net, 1), scalar(net, 1e5)
    match rng.randrange(8):
        case 0:
            y = same(net, rng.choice(("Cos", "Sin")), z)
        case 1:
            y = same(net, "Log", same(net, "Sub", one, same(net, "Sigmoid", z)))
        case 2:
            y = same(net, "Sub", same(net, "Add", z, far), far)
        case 3:
            near = same(net, "Add", same(net, "Mul", z, scalar(net, 1e-3)), scalar(net, 100))
            y = _hand_made_norm(net, near)
        case 4:
            y = same(net, "Softmax", same(net, "Mul", z, scalar(net, 30)), axis=1)
        case 5:
            y = same(net, "Exp", same(net, "Neg", same(net, "Abs", z)))
        case 6:
            y = same(net, "Reciprocal", same(net, "Sub", z, same(net, "Tanh", z)))
        case _:
            y = same(net, rng.choice(("Round", "Floor", "Sign")), z)
    return net.model(y)


def _hand_made_norm(net: Net, y: Tensor) -> Tensor:
    """(y - mean) / deviation, of values that are nearly the same."""
    mean = over(net, "ReduceMean", y, [1], (1,), 1)
    rest = same(net, "Sub", y, mean)
    variance = over(net, "ReduceMean", same(net, "Mul", rest, rest), [1], (1,), 1)
    deviation = same(net, "Sqrt", same(net, "Add", variance, scalar(net, 1e-12)))
    return same(net, "Div", rest, deviation)


def half_precision(rng: Rng) -> onnx.ModelProto:
    """Models in float16."""
    net = _net(rng, IMAGES[2], opsets=(13, 17, 21), dtype=ir.DataType.FLOAT16)
    y = _plain(rng, net)
    hidden = same(net, "Relu", net.fc(net.flat(y), 5))
    y = net.fc(hidden, 4)
    return net.model(same(net, "Softmax", y, axis=1) if rng.random() < 0.5 else y)


def integer_images(rng: Rng) -> onnx.ModelProto:
    """Images of integers, cast in the model and perhaps scaled."""
    dtype = rng.choice(("UINT8", "INT8", "UINT16", "INT16", "INT32"))
    net = _net(rng, opsets=(13, 17, 21))
    net.inputs[0].type = ir.TensorType(ir.DataType[dtype])
    net.x = same(net, "Cast", net.x, to=1)
    if rng.random() < 0.6:
        net.x = same(net, "Div", net.x, scalar(net, 255))
    if rng.random() < 0.4:
        shape = (net.image[0], *[1] * (len(net.image) - 1))
        net.x = same(net, "Sub", net.x, net.random(*shape))
    return net.model(_layers(rng, net, net.flat(_plain(rng, net)), 1))


# Quantized


def qdq(rng: Rng) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around Conv and Gemm; a Shape may read the latter."""
    net = _net(rng, (2, 8, 10), opsets=(13, 17, 19))
    dtype = rng.choice((np.uint8, np.int8))
    y = quantized.qdq_trunk(net, dtype)
    flat = rng.choice((flattens.flatten, flattens.shape_arithmetic, flattens.view_size))(net, y)
    for outputs in (5, 4)[rng.randint(0, 1) :]:
        weight = quantized.integers(net, outputs, flat.size, axis=rng.choice((0, None)))
        bias = quantized.bias(net, weight, quantized.STEP, outputs)
        operands = (flat, quantized.dq(net, weight), quantized.dq(net, bias))
        flat = quantized.qdq(net, net.op("Gemm", *operands, transB=1, shape=(outputs,)), dtype)
    return net.model(flat)


def integer_operators(rng: Rng) -> onnx.ModelProto:
    """QLinearConv, and QGemm, QLinearMatMul or MatMulInteger."""
    net = _net(rng, (2, 8, 10), opsets=(13, 17))
    zero = quantized.zero_point(np.uint8)
    flat = net.flat(quantized.quantized_trunk(net))
    match rng.randrange(3):
        case 0:
            weight = quantized.integers(net, 4, flat.size, axis=0)
            bias = quantized.bias(net, weight, quantized.STEP, 4).array
            inputs = (flat, quantized.STEP, zero, weight.array, *weight.parameters, bias)
            y = net.op("QGemm", *inputs, quantized.STEP, zero, domain="com.microsoft", transB=1)
            y = net.op("DequantizeLinear", y, quantized.STEP, zero, shape=(4,))
        case 1:
            weight = quantized.integers(net, flat.size, 4)
            inputs = (flat, quantized.STEP, zero, weight.array, *weight.parameters)
            y = net.op("QLinearMatMul", *inputs, quantized.STEP, zero)
            y = net.op("DequantizeLinear", y, quantized.STEP, zero, shape=(4,))
        case _:
            weight = quantized.integers(net, flat.size, 4)
            sums = net.op("MatMulInteger", flat, weight.array, zero)
            y = net.op("Mul", net.op("Cast", sums, to=1), quantized.STEP, shape=(4,))
    return net.model(y)


def dynamically_quantized(rng: Rng) -> onnx.ModelProto:
    """DynamicQuantizeLinear, MatMulInteger, and the scales behind them."""
    net = _net(rng, (2, 8, 10), opsets=(13, 17))
    flat = net.flat(_plain(rng, net))
    weight = quantized.integers(net, flat.size, 4)
    image, scale, zero = net.ops("DynamicQuantizeLinear", flat, outputs=3)
    sums = net.op("MatMulInteger", image, weight.array, zero)
    y = net.op("Mul", net.op("Cast", sums, to=1), net.op("Mul", scale, weight.scale), shape=(4,))
    return net.model(same(net, "Add", y, net.random(4)))


# What is left


def normed_maps(rng: Rng) -> onnx.ModelProto:
    """Norms of the map or of the features: of an instance, groups, a layer, a length."""
    net = _net(rng, IMAGES[2], opsets=(13, 17, 18))
    norm = rng.choice((trunks.instance_norm, trunks.group_norm, trunks.plain))
    y = net.flat(norm(net, net.x))
    y = rng.choice((layers.layer_norm, layers.length_one, layers.centred))(net, net.fc(y, 6))
    return net.model(net.fc(y, 3))


def axes_of_one(rng: Rng) -> onnx.ModelProto:
    """Squeeze and Unsqueeze, images a pixel high, maps of one cell."""
    net = _net(rng, rng.choice(((2, 1, 11), (1, 9, 1), (3, 4, 4), (1, 3, 3))))
    rank = len(net.image) - 1
    kernel = [min(3, n) for n in net.image[1:]]
    y = net.op("Conv", net.x, net.random(3, net.image[0], *kernel), net.random(3))
    y = Tensor(y.value, (3, *(n - k + 1 for n, k in zip(net.image[1:], kernel, strict=True))))
    ones = [axis for axis in range(2, 2 + rank) if y.shape[axis - 1] == 1]
    if ones and rng.random() < 0.7:
        y = squeeze(net, y, ones, tuple(n for a, n in enumerate(y.shape, 1) if a not in ones))
    if rng.random() < 0.3:
        y = unsqueeze(net, y, [1], (1, *y.shape))
    flat = y if len(y.shape) == 1 else net.flat(y)
    return net.model(_layers(rng, net, flat))


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        *(sliding_trunks, movement, heads, sounds, volumes, channels_last, side_inputs),
        *(image_pairs, several_maps, several_outputs, gates, pooled, pooled_and_flat),
        *(poolings_side_by_side, names_in_use, shared_numbers, ties, ill_conditioned),
        *(half_precision, integer_images, qdq, integer_operators, dynamically_quantized),
        *(normed_maps, axes_of_one),
    )
}
