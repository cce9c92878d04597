"""Right rewrites of a model by means that are not ours: another model of the same numbers.

A rewrite takes a model and a source of random numbers; it returns None where it has nothing to do.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Rewrite = Callable[[onnx.ModelProto, random.Random], onnx.ModelProto | None]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def _optimized(level: onnxruntime.GraphOptimizationLevel) -> Rewrite:
    def rewrite(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto | None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "optimized.onnx")
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = level
            options.optimized_model_filepath = str(file)
            options.log_severity_level = 4
            content = model.SerializeToString()
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            return onnx.load(file)

    return rewrite


def without_metadata(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto:
    """Nothing is left that says who made the model, or what of."""
    made = _copy(model)
    for holder in (made, made.graph, *made.graph.node, *made.graph.initializer):
        del holder.metadata_props[:]
    del made.graph.value_info[:]
    made.producer_name, made.doc_string = "another", ""
    for number, node in enumerate(made.graph.node):
        node.name, node.doc_string = f"n{number}", ""
    return made


def renamed_tensors(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """Other names for all tensors but inputs and outputs, in an order that means nothing."""
    made = _copy(model)
    graph = made.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    inner = {name for node in graph.node for name in node.output} - kept - {""}
    inner |= {tensor.name for tensor in graph.initializer} - kept
    order = sorted(inner)
    rng.shuffle(order)
    new = {name: f"t{number}" for number, name in enumerate(order)}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    del graph.value_info[:]
    return made


def reordered_nodes(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto | None:
    """Another topological order."""
    made = _copy(model)
    waiting, known = list(model.graph.node), {""}
    known |= {value.name for value in (*model.graph.input, *model.graph.initializer)}
    order: list[onnx.NodeProto] = []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        node = rng.choice(ready)
        waiting.remove(node)
        order.append(node)
        known.update(node.output)
    if order == list(model.graph.node):
        return None
    del made.graph.node[:]
    made.graph.node.extend(order)
    return made


def constant_nodes(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto | None:
    """Every weight in a Constant node."""
    made = _copy(model)
    listed = {value.name for value in made.graph.input}
    stored = [tensor for tensor in model.graph.initializer if tensor.name not in listed]
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in stored]
    nodes += list(model.graph.node)
    if not stored:
        return None
    kept = [tensor for tensor in model.graph.initializer if tensor.name in listed]
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend(kept)
    made.graph.node.extend(nodes)
    return made


def _weights(model: onnx.ModelProto, op_types: set[str]) -> dict[str, Array]:
    """The floating-point weights that only operators of these types read, as their second input."""
    listed = {value.name for value in (*model.graph.input, *model.graph.output)}
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name not in listed
        and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        and len(tensor.dims) > 1
    }
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if position != 1 or node.op_type not in op_types or node.domain:
                found.pop(name, None)
    return found


def _replace(model: onnx.ModelProto, name: str, array: Array) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def transposed_weights(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto | None:
    """Kernels are stored in another layout; a Transpose gives the one that a Conv takes."""
    made = _copy(model)
    weights = _weights(model, {"Conv", "Gemm", "MatMul"})
    for name, array in weights.items():
        perm = rng.sample(range(array.ndim), array.ndim)
        back = [perm.index(axis) for axis in range(array.ndim)]
        _replace(made, name, array.transpose(perm))
        (tensor,) = (tensor for tensor in made.graph.initializer if tensor.name == name)
        tensor.name = f"{name}_stored"
        node = helper.make_node("Transpose", [tensor.name], [name], perm=back)
        made.graph.node.insert(0, node)
    return made if weights else None


def folded_batch_norm(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto | None:
    """A BatchNormalization behind a Conv goes into its kernel and bias."""
    made = _copy(model)
    graph = made.graph
    weights = _weights(model, {"Conv"})
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = [name for node in graph.node for name in node.input]
    readers += [output.name for output in graph.output]
    makers = {name: node for node in graph.node for name in node.output}
    done = False
    for norm in list(graph.node):
        conv = makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or readers.count(conv.output[0]) > 1:
            continue
        if conv.input[1] not in weights or readers.count(conv.input[1]) > 1:
            continue
        if not {*norm.input[1:], *conv.input[2:]} <= stored.keys():
            continue
        scale, shift, mean, variance = (stored[n].astype(np.float64) for n in norm.input[1:5])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        kernel = weights[conv.input[1]]
        bias = stored[conv.input[2]] if len(conv.input) > 2 else 0
        folded = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
        _replace(made, conv.input[1], folded.astype(kernel.dtype))
        moved = ((bias - mean) * factor + shift).astype(kernel.dtype)
        name = f"{norm.output[0]}_folded"
        graph.initializer.append(numpy_helper.from_array(moved, name))
        conv.input[:] = [conv.input[0], conv.input[1], name]
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
        done = True
    return made if done else None


def identities(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """Identity or Dropout between nodes, as exporters leave them."""
    made = _copy(model)
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        if rng.random() < 0.3 and copy.output[0]:
            name, inner = copy.output[0], f"before_{number}"
            copy.output[0] = inner
            nodes.append(helper.make_node("Identity", [inner], [name]))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def scaled_apart(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto | None:
    """A kernel doubled and the result halved: powers of two change no rounding."""
    made = _copy(model)
    weights = sorted(_weights(model, {"Conv"}))
    for conv in list(made.graph.node):
        if conv.op_type != "Conv" or conv.input[1] not in weights:
            continue
        if [n for c in made.graph.node for n in c.input].count(conv.input[1]) > 1:
            continue
        kernel = numpy_helper.to_array(
            next(t for t in made.graph.initializer if t.name == conv.input[1])
        )
        _replace(made, conv.input[1], kernel * kernel.dtype.type(2))
        made.graph.initializer.append(
            numpy_helper.from_array(np.array(0.5, kernel.dtype), f"{conv.output[0]}_half")
        )
        name, inner = conv.output[0], f"{conv.output[0]}_doubled"
        conv.output[0] = inner
        added = [helper.make_node("Mul", [inner, f"{name}_half"], [name])]
        if len(conv.input) > 2 and conv.input[2]:
            shift = conv.input[2]
            del conv.input[2:]
            shape = numpy_helper.from_array(
                np.array([1, -1, *[1] * (kernel.ndim - 2)], np.int64), f"{name}_shape"
            )
            made.graph.initializer.append(shape)
            added = [
                helper.make_node("Reshape", [shift, f"{name}_shape"], [f"{name}_shift"]),
                helper.make_node("Mul", [inner, f"{name}_half"], [f"{name}_plain"]),
                helper.make_node("Add", [f"{name}_plain", f"{name}_shift"], [name]),
            ]
        place = list(made.graph.node).index(conv) + 1
        for node in reversed(added):
            made.graph.node.insert(place, node)
        return made
    return None


_LEVELS = onnxruntime.GraphOptimizationLevel
REWRITES: dict[str, Rewrite] = {
    "optimized, basic": _optimized(_LEVELS.ORT_ENABLE_BASIC),
    "optimized, extended": _optimized(_LEVELS.ORT_ENABLE_EXTENDED),
    **{
        rewrite.__name__.replace("_", " "): rewrite
        for rewrite in (
            *(without_metadata, renamed_tensors, reordered_nodes, constant_nodes),
            *(transposed_weights, folded_batch_norm, identities, scaled_apart),
        )
    },
}
