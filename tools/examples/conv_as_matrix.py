"""Two analyses of a convolution that its FC form makes one line each, against the hard way.

    python tools/examples/conv_as_matrix.py models/digits8.onnx

Lipschitz bound: how much a layer can stretch a change of its input is the largest singular value of
its matrix. On the convolution itself it takes a power iteration with the convolution and its
transpose; on the matrix it is ``numpy.linalg.svd``, and all other singular values come with it.

Uncertainty: Monte-Carlo dropout (Gal & Ghahramani, arXiv 1506.02142) drops inputs of a layer at
random and looks at how the outputs spread. On the FC form a mask is a vector and all samples are
one matrix product; on the convolution they are maps and one run of it a sample. With the same
masks, mean and deviation must agree.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.matrices import ConvLayer, conv_coordinates

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Analysis:
    """What both ways say about one layer.

    Attributes:
        name: The Conv node.
        lipschitz: Largest singular value by the matrix, by power iteration.
        singular_values: All of the matrix, in descending order.
        mean, deviation: Monte-Carlo dropout [K, *spatial] by the matrix, by the convolution.
    """

    name: str
    lipschitz: tuple[float, float]
    singular_values: Array
    mean: tuple[Array, Array]
    deviation: tuple[Array, Array]


def runner(op_type: str, node: ir.Node, shape: tuple[int, ...], **more: Any) -> Any:
    """The Conv or its transpose, without bias, as a function from array to array."""
    tensor = ir.tensor(_kernel(node).astype(np.float32), name="kernel")
    kernel = ir.val("kernel", dtype=tensor.dtype, const_value=tensor)
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=shape)
    attributes = [a for a in node.attributes.values() if a.name != "auto_pad"]
    made = ir.node(op_type, [x, kernel], {a.name: a.value for a in attributes} | more)
    made.outputs[0].name, made.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], made.outputs, nodes=[made], initializers=[kernel], opset_imports={"": 17}, name="layer"
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=8))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda array: session.run(None, {"x": array.astype(np.float32)})[0].astype(np.float64)


def _kernel(node: ir.Node) -> Array:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return weight.const_value.numpy()


def power_iteration(node: ir.Node, layer: ConvLayer, rounds: int = 300) -> float:
    """The largest singular value without the matrix: x ← normalized Cᵀ(C(x))."""
    window = layer.window
    pads = [*window.begins, *window.ends]
    x = np.random.default_rng(0).normal(size=(1, layer.channels, *window.extent))
    forward = runner("Conv", node, x.shape, pads=pads)
    y = forward(x)
    covered = [
        (cells - 1) * stride + (kernel - 1) * dilation + 1 - begin - end
        for cells, stride, kernel, dilation, begin, end in zip(
            window.output_extent, window.strides, window.kernel, window.dilations,
            window.begins, window.ends, strict=True,
        )
    ]  # fmt: skip
    rest = [extent - length for extent, length in zip(window.extent, covered, strict=True)]
    backward = runner("ConvTranspose", node, y.shape, pads=pads, output_padding=rest)
    for _ in range(rounds):
        x = backward(forward(x))
        x /= np.linalg.norm(x)
    return float(np.linalg.norm(forward(x)))


def dropout_masks(layer: ConvLayer, samples: int, rate: float) -> Array:
    """[samples, features]: 0 where an input is dropped, 1/(1-rate) elsewhere."""
    features = layer.channels * layer.positions
    kept = np.random.default_rng(1).random((samples, features)) >= rate
    return kept / (1 - rate)


def analyse(
    node: ir.Node, shape: tuple[int, ...], samples: int = 200, rate: float = 0.25
) -> Analysis:
    """Both analyses of a Conv node that reads [N, C, *spatial], both ways."""
    layer = ConvLayer.of(node, shape)
    found = conv_coordinates(layer)
    matrix = found.dense().astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)

    image = np.random.default_rng(2).random(layer.channels * layer.positions)
    masks = dropout_masks(layer, samples, rate)
    by_matrix = (masks * image) @ matrix.T

    maps = (1, layer.channels, *layer.window.extent)
    pads = [*layer.window.begins, *layer.window.ends]
    convolve = runner("Conv", node, maps, pads=pads)
    by_conv = np.concatenate([convolve((image * mask).reshape(maps)) for mask in masks])
    by_matrix = by_matrix.reshape(by_conv.shape)
    return Analysis(
        node.name or "Conv",
        (float(values[0]), power_iteration(node, layer)),
        values,
        (by_matrix.mean(0), by_conv.mean(0)),
        (by_matrix.std(0), by_conv.std(0)),
    )


def layers(path: str, largest: int) -> list[tuple[ir.Node, tuple[int, ...]]]:
    """The Conv nodes of a model whose matrix has at most this many entries, and their inputs."""
    model = ir.load(path)
    ShapeInferencePass()(model)
    found = []
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Conv" else None
        if value is None or value.shape is None:
            continue
        shape = (1, *(d if isinstance(d, int) else 0 for d in value.shape[1:]))
        layer = ConvLayer.of(node, shape) if all(shape) else None
        if layer is not None:
            entries = prod(shape) * layer.outputs * layer.cells
            if entries <= largest:
                found.append((node, shape))
    return found


def table(found: list[Analysis]) -> str:
    """A line a layer."""
    header = (
        f"{'layer':<16}{'σ₁ matrix':>12}{'σ₁ power':>12}{'rank':>7}{'features':>10}"
        f"{'mean dev.':>11}{'|Δ mean|':>11}{'|Δ dev.|':>11}"
    )
    lines = [header]
    for a in found:
        rank = int((a.singular_values > a.singular_values[0] * 1e-10).sum())
        mean, deviation = (np.abs(p - q).max() for p, q in (a.mean, a.deviation))
        lines.append(
            f"{a.name:<16}{a.lipschitz[0]:>12.6f}{a.lipschitz[1]:>12.6f}{rank:>7}"
            f"{len(a.singular_values):>10}{a.deviation[0].mean():>11.4f}"
            f"{mean:>11.1e}{deviation:>11.1e}"
        )
    return "\n".join(lines)


def main() -> None:
    """Analyse the layers of a model that are small enough for a dense SVD."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model with fixed spatial sizes")
    parser.add_argument("--largest", type=int, default=4_000_000, help="entries of a matrix")
    given = parser.parse_args()
    print(table([analyse(node, shape) for node, shape in layers(given.model, given.largest)]))


if __name__ == "__main__":
    main()
