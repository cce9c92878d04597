"""Models to measure with: VGG-16, one of gigabytes with external data, and graphs of many nodes.

The weights are random; nothing is downloaded.

    python -m tools.benchmarks.graphs vgg16 vgg16.onnx
    python -m tools.benchmarks.graphs wide wide.onnx 2.4      # gigabytes
    python -m tools.benchmarks.graphs nodes n1000.onnx 1000
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as onh

from tools.gpu_check import vgg16

__all__ = ["long_graph", "wide_head"]


def _model(
    nodes: list[onnx.NodeProto],
    size: int,
    output: tuple[str, int],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    image = oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, size, size])
    result = oh.make_tensor_value_info(output[0], onnx.TensorProto.FLOAT, ["N", output[1]])
    graph = oh.make_graph(nodes, "model", [image], [result], weights)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=9)


def _weight(rng: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    scale = np.float32((2 / max(1, int(np.prod(shape[1:])))) ** 0.5)
    return onh.from_array(rng.standard_normal(shape, dtype=np.float32) * scale, name)


def wide_head(path: Path, gigabytes: float) -> None:
    """A small trunk and a wide head, whose weights lie in a file beside the model."""
    rng = np.random.default_rng(0)
    width = 4096
    features = round(gigabytes * 1e9 / 4 / width / 256) * 256
    block = rng.standard_normal((256, features), dtype=np.float32) / np.float32(features**0.5)
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as file:
        for _ in range(width // 256):
            block.tofile(file)
    wide = onnx.TensorProto(name="fc0.w", data_type=onnx.TensorProto.FLOAT, dims=[width, features])
    wide.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", data.name), ("offset", 0), ("length", data.stat().st_size)):
        wide.external_data.add(key=key, value=str(value))
    weights = [_weight(rng, "w0", 256, 3, 3, 3), wide, _weight(rng, "fc1.w", 10, width)]
    columns = features // 256
    pool = {"kernel_shape": [4, 1], "strides": [4, 1]}
    nodes = [
        oh.make_node("Conv", ["image", "w0"], ["c"], pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["c"], ["r"]),
        oh.make_node("MaxPool", ["r"], ["p"], **pool),
        oh.make_node("Flatten", ["p"], ["flat"]),
        oh.make_node("Gemm", ["flat", "fc0.w"], ["h"], transB=1),
        oh.make_node("Relu", ["h"], ["hr"]),
        oh.make_node("Gemm", ["hr", "fc1.w"], ["scores"], transB=1),
    ]
    model = _model(nodes, 4, ("scores", 10), weights)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = columns
    onnx.save(model, path)


def long_graph(path: Path, count: int) -> None:
    """A chain of about ``count`` nodes: blocks of Conv, Relu, Conv, Add, Relu, and a head."""
    rng = np.random.default_rng(0)
    weights = [_weight(rng, "w", 4, 3, 3, 3)]
    nodes = [oh.make_node("Conv", ["image", "w"], ["x0"], pads=[1, 1, 1, 1], name="stem")]
    here = "x0"
    for number in range((count - 3) // 5):
        one, two = f"w{number}a", f"w{number}b"
        weights += [_weight(rng, one, 4, 4, 1, 1), _weight(rng, two, 4, 4, 1, 1)]
        names = [f"x{number + 1}{part}" for part in ("a", "b", "c", "d", "")]
        nodes += [
            oh.make_node("Conv", [here, one], names[:1], name=f"block{number}/conv1"),
            oh.make_node("Relu", names[:1], names[1:2], name=f"block{number}/relu1"),
            oh.make_node("Conv", [names[1], two], names[2:3], name=f"block{number}/conv2"),
            oh.make_node("Add", [here, names[2]], names[3:4], name=f"block{number}/add"),
            oh.make_node("Relu", names[3:4], names[4:], name=f"block{number}/relu2"),
        ]
        here = names[4]
    weights.append(_weight(rng, "fc.w", 10, 4 * 8 * 8))
    nodes += [
        oh.make_node("Flatten", [here], ["flat"], name="flatten"),
        oh.make_node("Gemm", ["flat", "fc.w"], ["scores"], transB=1, name="fc"),
    ]
    onnx.save(_model(nodes, 8, ("scores", 10), weights), path)


def main(kind: str, path: str, size: str = "") -> None:
    """Write one of the models."""
    match kind:
        case "vgg16":
            onnx.save(vgg16(), path)
        case "wide":
            wide_head(Path(path), float(size))
        case "nodes":
            long_graph(Path(path), int(size))


if __name__ == "__main__":
    main(*sys.argv[1:])
