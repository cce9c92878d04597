"""The models of the golden texts: each path of the conversion once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tests.golden import quantized
from tests.golden.nets import GoldenNet, put_together
from tests.nets import Net, Tensor, conv, i64
from tests.properties import ends, flattens, layers, trunks
from tests.properties.spellings import (
    Part,
    batch_norm,
    concat,
    over,
    pad,
    reshape,
    same,
    squeeze,
    unsqueeze,
)


@dataclass(frozen=True)
class Case:
    """A model and how it is converted; ``form`` is that of `convert_to_fc`."""

    model: Callable[[], onnx.ModelProto | Path]
    options: Mapping[str, Any] = field(default_factory=dict)
    form: str | None = None


def two_layers(**options: Any) -> onnx.ModelProto:
    net = GoldenNet(**options)
    y = same(net, "Relu", net.fc(net.flat(net.trunk()), 6, name="hidden"))
    return net.model(net.op("Softmax", net.fc(y, name="scores"), axis=-1))


def joined(join: Callable[[Net, Tensor, Tensor], Tensor]) -> Part:
    return lambda net, y: join(net, y, net.flat(y))


def gate_of_3(net: Net, y: Tensor) -> Tensor:
    return layers.halved_gate(net, y, 3)


def layer(outputs: int = 4) -> Part:
    return lambda net, y: net.fc(y, outputs)


def transformer() -> onnx.ModelProto:
    """An MLP of tokens of any number, with a product that is no layer."""
    net = GoldenNet(image=("T", 8), batch="N")
    y = net.op("Add", net.op("MatMul", net.x, net.random(8, 6)), net.random(6))
    y = net.op("MatMul", net.op("Relu", y), net.random(6, 8))
    scores = net.op("MatMul", y, net.op("Transpose", y, perm=[0, 2, 1]), name="attention")
    return net.model(net.op("Softmax", scores, axis=-1))


def gemms_in_place() -> onnx.ModelProto:
    net = GoldenNet(image=(5,), batch=4)
    y = net.op("Gemm", net.x, net.random(5, 3), net.random(4, 3), beta=0.5, name="layer")
    return net.model(net.op("Gemm", y, net.random(2, 3), net.random(2), transB=1, alpha=2.0))


def reshape_that_stays() -> onnx.ModelProto:
    """The cells of a map turned, a sum along an axis that no rule slides, and two layers."""
    net = GoldenNet()
    y = conv(net, net.x, (8, 10), auto_pad="SAME_UPPER")
    y = net.op("Reshape", y, i64(-1, 3, 10, 8), shape=(3, 10, 8))
    y = same(net, "Relu", net.head(conv(net, y, (8, 6)), 6))
    y = net.op("CumSum", net.op("Reshape", y, i64(-1, 2, 3)), np.array(2), exclusive=1)
    return net.model(net.fc(net.op("Flatten", y, shape=(6,))))


def refused_here_and_there() -> onnx.ModelProto:
    """A layer, attention among its scores, and a layer of tokens with other elements each."""
    net = GoldenNet(batch=1)
    y = net.trunk()
    rows = net.op("Reshape", y, i64(1, 6, 6), shape=(6, 6))
    rows = net.op("MatMul", rows, net.random(6, 2), name="tokens")
    again = net.op("MatMul", rows, net.op("Transpose", rows, perm=[0, 2, 1]), name="attention")
    scores = net.head(y)
    return net.model(scores, net.op("Flatten", again))


def channels_last() -> onnx.ModelProto:
    net = GoldenNet(image=(8, 10, 2))
    y = trunks.channels_last(net, trunks.plain)
    y = same(net, "Relu", net.op("Add", y, net.random(3), shape=y.shape))
    y = net.op("Concat", y, same(net, "Sigmoid", y), axis=3, shape=(*y.shape[:2], 6))
    return net.model(net.head(y))


def shuffled() -> onnx.ModelProto:
    """A channel shuffle, a gate that Expand spreads, and blocks of cells as channels."""
    net = GoldenNet(image=(2, 8, 12))
    y = conv(net, net.x, (8, 12), 1, channels=6)
    y = net.op("Reshape", y, i64(-1, 3, 2, 8, 12))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), i64(-1, 6, 8, 12))
    y = net.op("Mul", Tensor(y.value, (6, 8, 12)), net.random(6, 1, 1), shape=(6, 8, 12))
    gate = net.op("GlobalAveragePool", y, shape=(6, 1, 1))
    gate = net.op("Expand", net.op("Sigmoid", gate), i64(1, 6, 8, 12), shape=y.shape)
    y = net.op("Mul", y, gate, shape=y.shape)
    split = net.op("Reshape", y, i64(-1, 6, 4, 2, 6, 2))
    y = net.op("Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    y = net.op("Reshape", y, i64(-1, 24, 4, 6), shape=(24, 4, 6))
    return net.model(net.head(conv(net, y, (3, 5), 2)))


def resampled() -> onnx.ModelProto:
    """A block of cells made of each by Resize and by DepthToSpace, and taken together again."""
    net = GoldenNet(image=(2, 16, 24))
    y = conv(net, net.x, (4, 6), 4, channels=4, strides=[4, 4])
    factors = np.array([1, 1, 2, 2], np.float32)
    up = net.op("Resize", y, None, factors, mode="nearest", shape=(4, 8, 12))
    cells = net.op("DepthToSpace", up, blocksize=2, shape=(1, 16, 24))
    y = net.op("AveragePool", cells, kernel_shape=[4, 4], strides=[4, 4], shape=(1, 4, 6))
    return net.model(net.head(y))


def group_norm_as_exported(net: Net, y: Tensor) -> Tensor:
    """Reshape → InstanceNormalization → Reshape back."""
    rows = net.op("Reshape", y, i64(0, 1, -1))
    ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
    normal = net.op("InstanceNormalization", rows, ones, zeros, epsilon=0.1, name="norm")
    return net.op("Reshape", normal, i64(-1, *y.shape), shape=y.shape)


def einsum(net: Net, y: Tensor) -> Tensor:
    weight = net.random(*y.shape, 4)
    return net.op("Einsum", y, weight, equation="nchw,chwk->nk", shape=(4,))


def rank_and_normalize(net: Net, y: Tensor) -> ends.End:
    """TopK, a sum so far, a norm, an ArgMax: what works along the features."""
    y = net.op("LayerNormalization", y, net.random(6), net.random(6), epsilon=0.1, shape=(6,))
    y = net.op("LpNormalization", y, axis=1, shape=(6,))
    best, _ = net.ops("TopK", y, i64(3), outputs=2, axis=1)
    return ends.End((best, net.op("CumSum", y, np.array(1), reverse=1)))


def pooled_in_many_ways(net: Net, y: Tensor) -> Tensor:
    """Means, maxima, minima, sums and lengths of all positions."""
    op_types = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSum")
    reduced = [over(net, op_type, y, [2, 3], y.shape[:1], keepdims=0) for op_type in op_types]
    return concat(net, *reduced, flattens.global_max(net, y))


def constants_between(net: Net, y: Tensor) -> Tensor:
    """Constants joined, padded, and numbers that are the same for all samples."""
    y = pad(net, net.fc(y, 5), [2, 1], value=0.5)
    y = same(net, "PRelu", y, net.random(y.size))
    return layers.paired_maxout(net, batch_norm(net, y), 3)


def beside_the_image() -> onnx.ModelProto:
    """A vector joined with features, one that a Gemm adds, and one that scales the map."""
    net = GoldenNet()
    age, gate = net.input("age", ("N", 3)), net.input("gate", ("N", 3))
    y = net.op("Mul", net.trunk(), unsqueeze(net, gate, [2, 3], (3, 1, 1)), shape=(3, 3, 4))
    y = net.fc(concat(net, age, net.flat(y)), 3)
    y = net.op("Gemm", y, net.random(3, 3), age, beta=2.0, shape=(3,))
    return net.model(net.fc(y))


def two_images() -> onnx.ModelProto:
    net = GoldenNet()
    y = trunks.distance(net, net.x)
    return net.model(net.op("Abs", net.head(y)), squeeze(net, net.fc(net.flat(y), 1), [1], ()))


def half_precision() -> onnx.ModelProto:
    return two_layers(dtype=ir.DataType.FLOAT16)


def patches_of_an_image(net: Net, y: Tensor) -> Tensor:
    """A patch embedding by Reshape and Transpose."""
    channels, height, width = y.shape
    rows = net.op("Reshape", y, i64(-1, channels, height // 2, 2, width // 2, 2))
    rows = net.op("Transpose", rows, perm=[0, 2, 4, 1, 3, 5])
    tokens = net.op("Reshape", rows, i64(-1, height * width // 4, channels * 4))
    made = net.op("MatMul", tokens, net.random(channels * 4, 3))
    return net.op("Flatten", made, shape=(height * width // 4 * 3,))


def in_pairs(net: Net, y: Tensor) -> Tensor:
    """A softmax of each pair of features."""
    return reshape(net, same(net, "Softmax", reshape(net, y, 3, 2), axis=2), 6)


MODELS = Path(__file__).parents[2] / "models"
BY_POSITION = (flattens.flatten, flattens.position_norm, layer())

CASES = {
    "two_layers": Case(two_layers),
    "two_layers_static": Case(two_layers, {"static": True}),
    "two_layers_1d": Case(lambda: two_layers(image=(2, 20))),
    "two_layers_3d": Case(lambda: two_layers(image=(2, 7, 6, 8))),
    "two_layers_opset_7": Case(lambda: two_layers(opset=7, ir_version=3)),
    "two_layers_half": Case(half_precision),
    "exported_by_torch": Case(lambda: MODELS / "face25.onnx"),
    "exported_by_torch_padded": Case(lambda: MODELS / "dress64x128_padded.onnx", {"static": True}),
    "all_linear_tokens": Case(transformer, {"static": True, "all_linear": True}),
    "all_linear_gemm": Case(gemms_in_place, {"static": True, "all_linear": True}),
    "stride": Case(put_together(trunks.branches, flattens.flatten, layer()), {"stride": 1}),
    "reduce": Case(two_layers, {"reduce": "mean"}),
    "split_kernels": Case(two_layers, {"max_kernel": 2, "max_depth": 8}),
    "pool_keep": Case(put_together(trunks.plain, pooled_in_many_ways, layer())),
    "pool_window": Case(
        put_together(trunks.plain, pooled_in_many_ways, layer()), {"pool": "window"}
    ),
    "gate": Case(put_together(trunks.gated, flattens.view_size, layer()), {"pool": "window"}),
    "qdq": Case(quantized.qdq_layers),
    "qlinear_matmul": Case(lambda: quantized.quantized_head(quantized.qlinear_matmul)),
    "qgemm": Case(lambda: quantized.quantized_head(quantized.qgemm)),
    "matmul_integer": Case(lambda: quantized.quantized_head(quantized.matmul_integer)),
    "dynamic": Case(quantized.dynamic, {"static": True}),
    "dynamic_refused": Case(quantized.dynamic),
    "conv2fc_im2col": Case(two_layers, form="im2col"),
    "conv2fc_dense": Case(two_layers, form="dense"),
    "channels_last": Case(channels_last),
    "tokens": Case(put_together(trunks.plain, joined(flattens.tokens), layer())),
    "tokens_static": Case(
        put_together(trunks.plain, joined(flattens.mixer), layer()), {"static": True}
    ),
    "patches": Case(put_together(trunks.nothing, patches_of_an_image, layer())),
    "einsum": Case(put_together(trunks.plain, einsum)),
    "two_maps": Case(put_together(trunks.plain, joined(flattens.two_maps), layer())),
    "beside_the_image": Case(beside_the_image),
    "two_images": Case(two_images),
    "groups": Case(put_together(trunks.plain, flattens.rows, layer(6), in_pairs, end=ends.groups)),
    "softmax_by_hand": Case(
        put_together(trunks.plain, flattens.halves, layer(), end=ends.softmax_by_hand)
    ),
    "along_features": Case(
        put_together(trunks.plain, flattens.flatten, layer(6), end=rank_and_normalize, opset=17)
    ),
    "best_class": Case(put_together(trunks.plain, flattens.squeezed, end=ends.best_class)),
    "group_norm": Case(put_together(trunks.group_norm, flattens.flatten, layer())),
    "group_norm_exported": Case(
        put_together(trunks.plain, group_norm_as_exported, flattens.flatten, layer())
    ),
    "shape_arithmetic": Case(put_together(trunks.residual, flattens.shape_arithmetic, layer())),
    "gathered": Case(put_together(trunks.shuffled, flattens.gathered, layer(6), gate_of_3)),
    "scale_by_position": Case(put_together(trunks.ceiled, *BY_POSITION)),
    "scale_by_position_static": Case(put_together(trunks.ceiled, *BY_POSITION), {"static": True}),
    "constants_between": Case(put_together(trunks.padded, flattens.flatten, constants_between)),
    "shuffled": Case(shuffled),
    "resampled": Case(resampled),
    "transposed": Case(put_together(trunks.transposed, flattens.by_channel, layer())),
    "overlapping": Case(put_together(trunks.overlapping, flattens.channels_last, layer())),
    "reshape_that_stays": Case(reshape_that_stays, {"static": True}),
    "refused": Case(refused_here_and_there),
    "refused_static": Case(refused_here_and_there, {"static": True}),
}
