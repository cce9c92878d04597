"""Reference models that are small enough to be checked hundreds of times, and their conversions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence import EquivalenceReport
from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.geometry import Geometry
from tests.nets import Net, Tensor, i64

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
SHARED = ROOT.parent / "shared" / "models"

SQUARE = (2, 8, 8)
"""Its feature map is [3, 3, 3]: every wrong order of its elements has a right shape."""


def _layers(net: Net, y: Tensor) -> Tensor:
    return net.fc(net.op("Relu", net.fc(net.flat(y), 6), shape=(6,)), 4)


def plain() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    return net.model(_layers(net, net.trunk()))


def softmax() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    return net.model(net.op("Softmax", _layers(net, net.trunk()), axis=1))


def softmax_11() -> onnx.ModelProto:
    net = Net(image=SQUARE, opset=11)
    return net.model(net.op("Softmax", _layers(net, net.trunk()), axis=1))


def saturated() -> onnx.ModelProto:
    """The softmax of logits so large that it gives zeros and ones only."""
    net = Net(image=SQUARE, seed=1)
    logits = net.fc(net.flat(net.trunk()), 4)
    large = net.op("Mul", logits, net.weight(net.random(4) * 0 + 1e6))
    return net.model(net.op("Softmax", large, axis=1))


def sigmoids() -> onnx.ModelProto:
    """As `saturated`, one class at a time, and shaped after the saturating operator."""
    net = Net(image=SQUARE, seed=1)
    logits = net.fc(net.flat(net.trunk()), 4)
    large = net.op("Mul", logits, net.weight(net.random(4) * 0 + 1e6))
    return net.model(net.op("Identity", net.op("Sigmoid", large)))


def two_heads() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    flat = net.flat(net.trunk())
    return net.model(net.fc(flat, 4), net.fc(flat, 4))


def alpha() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    flat = net.flat(net.trunk())
    weight, bias = net.random(4, flat.size), net.random(4)
    return net.model(net.op("Gemm", flat, weight, bias, transB=1, alpha=0.3))


def batch_norm() -> onnx.ModelProto:
    """A normalization of the flattened features, folded into the layer after it."""
    net = Net(image=SQUARE, seed=1)
    flat = net.flat(net.trunk())
    scale, bias, mean = (net.random(flat.size) for _ in range(3))
    variance = net.random(flat.size) ** 2 + 1
    normal = net.op("BatchNormalization", flat, scale, bias, mean, variance, shape=flat.shape)
    return net.model(net.fc(normal, 4))


def pixel() -> onnx.ModelProto:
    """A feature map of one cell: [-1, C] fits any number of them."""
    net = Net(image=(2, 4, 4))
    return net.model(net.head(net.trunk()))


def same_padding() -> onnx.ModelProto:
    """A padded layer of stride 2 whose pads follow the size of the image."""
    net = Net(image=SQUARE, seed=1)
    conv = net.op("Conv", net.x, net.random(3, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    return net.model(_layers(net, Tensor(conv.value, (3, 4, 4))))


def padded() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    conv = net.op("Conv", net.x, net.random(3, 2, 3, 3), net.random(3), pads=[1, 1, 1, 1])
    pool = net.op("MaxPool", conv, kernel_shape=[2, 2], strides=[2, 2])
    return net.model(_layers(net, Tensor(pool.value, (3, 4, 4))))


def fixed_batch() -> onnx.ModelProto:
    net = Net(image=SQUARE, batch=4)
    return net.model(_layers(net, net.trunk()))


def half() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1, dtype=ir.DataType.FLOAT16)
    return net.model(net.op("Softmax", _layers(net, net.trunk()), axis=1))


def no_trunk() -> onnx.ModelProto:
    """The layers stand right behind the image: windows move by one pixel."""
    net = Net(image=(2, 3, 4))
    return net.model(_layers(net, Tensor(net.x.value, (2, 3, 4))))


def one_dimension() -> onnx.ModelProto:
    net = Net(image=(2, 9))
    return net.model(net.head(net.trunk()))


def three_dimensions() -> onnx.ModelProto:
    net = Net(image=(2, 5, 6, 7))
    return net.model(net.head(net.trunk()))


def globally_pooled() -> onnx.ModelProto:
    """One cell for the whole image, whatever its size."""
    net = Net(image=SQUARE)
    pooled = net.op("GlobalAveragePool", net.trunk())
    return net.model(net.head(Tensor(pooled.value, (3, 1, 1))))


def flattened_mean() -> onnx.ModelProto:
    """As `globally_pooled`, over positions that the export wrote as one axis."""
    net = Net(image=SQUARE)
    rows = net.op("Reshape", net.trunk(), net.constant(np.array([0, 3, -1])))
    pooled = net.op("ReduceMean", rows, axes=[2], keepdims=0)
    return net.model(net.fc(Tensor(pooled.value, (3,)), 4))


def flattened_mean_of_9() -> onnx.ModelProto:
    """The same with the number of positions written into the head."""
    net = Net(image=SQUARE)
    rows = net.op("Reshape", net.trunk(), net.constant(np.array([-1, 3, 9])))
    pooled = net.op("ReduceMean", rows, axes=[2], keepdims=0)
    return net.model(net.fc(Tensor(pooled.value, (3,)), 4))


def exponential() -> onnx.ModelProto:
    """Overflows on numbers that no image holds."""
    net = Net(image=SQUARE, seed=1)
    return net.model(net.fc(net.op("Exp", net.flat(net.trunk()), shape=(27,)), 4))


def clipped() -> onnx.ModelProto:
    """Large terms cancel into numbers between -1 and 1."""
    net = Net(image=SQUARE, seed=1)
    bounds = (np.array(-1, np.float32), np.array(1, np.float32))
    return net.model(net.op("Clip", net.head(net.trunk(), 40), *bounds))


def remainder() -> onnx.ModelProto:
    """A stride that leaves a pixel of the window over: a map may have a cell more than crops."""
    net = Net(image=(2, 8, 8))
    conv = net.op("Conv", net.x, net.random(3, 2, 3, 3), strides=[2, 2])
    return net.model(net.head(Tensor(conv.value, (3, 3, 3))))


def as_double() -> onnx.ModelProto:
    """The output has more digits than the arithmetic."""
    net = Net(image=SQUARE)
    return net.model(net.op("Cast", net.head(net.trunk()), to=11), dtype=ir.DataType.DOUBLE)


def two_images() -> onnx.ModelProto:
    net = Net(image=SQUARE)
    other = net.input("z", ("N", *SQUARE))
    difference = net.op("Sub", net.x, other)
    return net.model(net.head(Tensor(net.op("Relu", difference).value, SQUARE)))


def two_embeddings() -> onnx.ModelProto:
    """The cosine of two images' embeddings; how many there are is read off the first image."""
    net = Net(image=SQUARE, seed=1)
    batch = net.op("Slice", net.op("Shape", net.x), i64(0), i64(1))

    def shaped(y: Tensor, length: int, by: str = "Reshape") -> Tensor:
        return net.op(by, y, net.op("Concat", batch, i64(length), axis=0))

    def embedding(image: Tensor) -> Tensor:
        maps = net.op("Conv", image, net.random(3, 2, 4, 4), strides=[2, 2])
        made = net.op("Gemm", shaped(maps, 27), net.random(6, 27), net.random(6), transB=1)
        norm = net.op("Clip", net.op("ReduceL2", made, axes=[1]), np.array(1e-12, np.float32))
        return net.op("Div", made, shaped(norm, 6, "Expand"))

    one, two = embedding(net.x), embedding(net.input("z", ("N", *SQUARE)))
    return net.model(net.op("ReduceSum", net.op("Mul", one, two), i64(1), keepdims=0))


def dead() -> onnx.ModelProto:
    """No feature gets through the Relu between the layers, whatever the image."""
    net = Net(image=SQUARE, seed=1)
    flat = net.flat(net.trunk())
    weight, bias = net.random(6, flat.size), net.random(6) - np.float32(1e6)
    hidden = net.op("Gemm", flat, weight, bias, transB=1)
    return net.model(net.fc(net.op("Relu", hidden, shape=(6,)), 4))


def beta() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    flat = net.flat(net.trunk())
    return net.model(
        net.op("Gemm", flat, net.random(4, flat.size), net.random(4), transB=1, beta=0.5)
    )


def normalized_trunk() -> onnx.ModelProto:
    net = Net(image=SQUARE, seed=1)
    y = net.trunk()
    scale, bias, mean = (net.random(3) for _ in range(3))
    normal = net.op("BatchNormalization", y, scale, bias, mean, net.random(3) ** 2, epsilon=0.1)
    return net.model(_layers(net, Tensor(normal.value, y.shape)))


def averaged() -> onnx.ModelProto:
    """Averages of four, and a Relu that lets some through."""
    net = Net(image=SQUARE, seed=1)
    y = net.op("LeakyRelu", net.trunk(relu=False, pool=False), alpha=0.25)
    pool = net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    return net.model(_layers(net, Tensor(pool.value, (3, 3, 3))))


def rounded_up() -> onnx.ModelProto:
    """A pooling whose last cell hangs over the edge."""
    net = Net(image=(2, 7, 7), seed=1)
    y = net.trunk(pool=False)
    pool = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    return net.model(_layers(net, Tensor(pool.value, (3, 3, 3))))


def grouped() -> onnx.ModelProto:
    """A softmax over each of two groups of classes, of logits that leave nothing in doubt."""
    net = Net(image=SQUARE, seed=1)
    logits = net.fc(net.flat(net.trunk()), 6)
    large = net.op("Mul", logits, net.weight(net.random(6) * 0 + 1e6))
    groups = net.op("Reshape", large, net.constant(np.array([-1, 2, 3])), shape=(2, 3))
    return net.model(net.op("Softmax", groups, axis=2, shape=(2, 3)))


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    make.__name__: make
    for make in (
        *(plain, softmax, softmax_11, saturated, sigmoids, two_heads, alpha, batch_norm, pixel),
        *(same_padding, padded, fixed_batch, half, no_trunk),
        *(one_dimension, three_dimensions, globally_pooled, flattened_mean),
        *(flattened_mean_of_9, exponential),
        *(clipped, remainder, as_double, two_images, two_embeddings),
        *(dead, beta, normalized_trunk, averaged, rounded_up, grouped),
    )
}


@dataclass(frozen=True, eq=False)
class Case:
    """A reference, and a right conversion that a test may spoil."""

    reference: onnx.ModelProto
    converted: ir.Model
    geometry: Mapping[str, Geometry]

    def check(self) -> EquivalenceReport:
        return check(self.reference, self.converted, geometry=self.geometry)


@cache
def _reference(name: str) -> onnx.ModelProto:
    return NETS[name]()


@pytest.fixture
def case_of() -> Callable[[str], Case]:
    """Makes a fresh case of a net by its name."""

    def make(name: str) -> Case:
        reference = _reference(name)
        conversion = convert(reference)
        assert conversion.model is not None
        return Case(reference, conversion.model, conversion.geometry)

    return make


def failed_tiers(report: EquivalenceReport) -> set[str]:
    return {result.tier for result in report.failures}
