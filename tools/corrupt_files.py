"""Small valid models, and what can be done to them: the cases of tools/fuzz.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

LARGEST = 1 << 17
"""Bytes of the largest model that is mutated: more of them are structure then."""

Mutation = Callable[[random.Random, bytes], bytes]


def corpus() -> dict[str, bytes]:
    """Small valid models."""
    found: dict[str, bytes] = {}
    for file in sorted(Path(__file__).parent.parent.glob("models/*.onnx")):
        if file.stat().st_size <= LARGEST:
            found[file.stem] = file.read_bytes()
    for spelling in ("flatten", "reshape", "matmul", "constant", "if", "external", "function"):
        found[spelling] = _head(spelling).SerializeToString()
    return found


def _head(spelling: str) -> onnx.ModelProto:
    """A convolution and a fully connected layer, written in one of several ways."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    stored = [weight("k", 2, 1, 3, 3), weight("w", 3, 8), weight("b", 3)]
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], strides=[2, 2])]
    if spelling == "constant":
        nodes.append(helper.make_node("Constant", [], ["w2"], value=stored.pop(1)))
    source = "w2" if spelling == "constant" else "w"
    if spelling in ("reshape", "matmul"):
        stored.append(numpy_helper.from_array(np.array([0, -1], np.int64), "shape"))
        nodes.append(helper.make_node("Reshape", ["c", "shape"], ["f"]))
    else:
        nodes.append(helper.make_node("Flatten", ["c"], ["f"]))
    if spelling == "matmul":
        stored[1] = weight("w", 8, 3)
        nodes += [helper.make_node("MatMul", ["f", "w"], ["m"])]
        nodes += [helper.make_node("Add", ["m", "b"], ["y"])]
    elif spelling == "if":
        nodes += _choice(source)
        stored.append(numpy_helper.from_array(np.array(True), "yes"))
    else:
        nodes.append(helper.make_node("Gemm", ["f", source, "b"], ["y"], transB=1))
    functions = []
    if spelling == "function":
        last = nodes.pop()
        opset = helper.make_opsetid("", 17)
        functions = [helper.make_function("own", "Fc", list(last.input), ["y"], [last], [opset])]
        nodes.append(helper.make_node("Fc", list(last.input), ["y"], domain="own"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 1, 5, 5])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        stored,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)
    if spelling == "external":
        _external(model.graph.initializer[1], "data", 0, 96)
    return model


def _choice(weight: str) -> list[onnx.NodeProto]:
    branches = [
        helper.make_graph(
            [helper.make_node("Gemm", ["f", weight, "b"], ["out"], transB=1, alpha=alpha)],
            "branch",
            [],
            [helper.make_tensor_value_info("out", 1, None)],
        )
        for alpha in (1.0, 2.0)
    ]
    one, two = branches
    return [helper.make_node("If", ["yes"], ["y"], then_branch=one, else_branch=two)]


def _external(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def mutated(rng: random.Random, corpus: dict[str, bytes]) -> tuple[str, bytes]:
    """A model with one to four mutations."""
    name = rng.choice(sorted(corpus))
    content = corpus[name]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(_MUTATIONS)(rng, content)
    return name, content


def _flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_structure(rng: random.Random, content: bytes) -> bytes:
    """Bits among the last kilobytes, where names and shapes lie."""
    tail = min(len(content), 1500)
    return content[: len(content) - tail] + _flip(rng, content[len(content) - tail :])


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _splice(rng: random.Random, content: bytes) -> bytes:
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return rng.choice((content[:a] + content[b:], content[:a] + content[b:c] + content[a:]))


def _hostile_length(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    number = rng.choice((b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80" * 12, b"\xff\x7f"))
    return content[:at] + number + content[at + len(number) :]


def _on_message(change: Callable[[random.Random, onnx.ModelProto], None]) -> Mutation:
    """A mutation of the parsed model; files that do not parse stay as they are."""

    def mutation(rng: random.Random, content: bytes) -> bytes:
        try:
            model = onnx.ModelProto.FromString(content)
            if not model.graph.node:
                return content
            change(rng, model)
            return model.SerializeToString()
        except Exception:
            return content

    return mutation


_NUMBERS = (0, 1, -1, 2, 3, 7, 1 << 15, 1 << 31, (1 << 62) + 1, -(1 << 63), 10**12)


def _dims(rng: random.Random, model: onnx.ModelProto) -> None:
    tensor = rng.choice(model.graph.initializer)
    if rng.random() < 0.3:
        del tensor.dims[:]
    for _ in range(rng.choice((1, 1, 2, 40))):
        if tensor.dims and rng.random() < 0.7:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_NUMBERS)
        else:
            tensor.dims.append(rng.choice(_NUMBERS))


def _type(rng: random.Random, model: onnx.ModelProto) -> None:
    rng.choice(model.graph.initializer).data_type = rng.choice((0, 2, 6, 8, 11, 14, 16, 22, 99))


def _values(rng: random.Random, model: onnx.ModelProto) -> None:
    """Other numbers in integers, which are shapes and axes."""
    integers = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64]
    if integers:
        tensor = rng.choice(integers)
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(_NUMBERS)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _input_shape(rng: random.Random, model: onnx.ModelProto) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    match rng.randrange(5):
        case 0:
            value.type.tensor_type.ClearField("shape")
        case 1 if dims:
            del dims[rng.randrange(len(dims))]
        case 2:
            dims.add().dim_value = rng.choice(_NUMBERS)
        case 3:
            value.ClearField("type")
        case _ if dims:
            dim = rng.choice(dims)
            if rng.random() < 0.3:
                dim.dim_param = rng.choice(("N", "", "N*2", "x" * 5000, "\u202e", "-1"))
            else:
                dim.dim_value = rng.choice(_NUMBERS)


def _attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    if not node.attribute or rng.random() < 0.2:
        key = rng.choice(("axis", "perm", "pads", "strides", "group", "kernel_shape", "auto_pad"))
        node.attribute.append(helper.make_attribute(key, [rng.choice(_NUMBERS)] * 4))
        return
    attribute = rng.choice(node.attribute)
    match rng.randrange(4):
        case 0:
            attribute.type = rng.randrange(15)
        case 1:
            attribute.i = rng.choice(_NUMBERS)
        case 2 if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_NUMBERS)
        case _:
            attribute.ints.append(rng.choice(_NUMBERS))


def _names(rng: random.Random, model: onnx.ModelProto) -> None:
    """Missing, doubled, strange names; cycles."""
    nodes = model.graph.node
    names = sorted({n for node in nodes for n in (*node.input, *node.output)})
    strange = ("", "\x00", "../x", "a\nb", "\u202eevil", "n" * 70000, "\U0001f4a3")
    node = rng.choice(nodes)
    match rng.randrange(6):
        case 0 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice([*names, *strange])
        case 1 if node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice([*names, *strange])
        case 2:
            rng.choice(model.graph.initializer).name = rng.choice([*names, *strange])
        case 3:
            rng.choice(model.graph.output).name = rng.choice([*names, *strange])
        case 4:
            node.name = rng.choice([*(n.name for n in nodes), *strange])
        case _:
            rng.choice(model.graph.input).name = rng.choice([*names, *strange])


def _operator(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    known = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
    node.op_type = rng.choice(rng.choice((known, ["", "Nothing", "Constant", "Loop", "If"])))
    if rng.random() < 0.2:
        node.domain = rng.choice(("com.microsoft", "own", "ai.onnx.ml", "\x00"))


def _reorder(rng: random.Random, model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    if rng.random() < 0.5:
        rng.shuffle(nodes)
    elif rng.random() < 0.5:
        nodes.append(rng.choice(nodes))
    else:
        nodes.remove(rng.choice(nodes))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _opset(rng: random.Random, model: onnx.ModelProto) -> None:
    match rng.randrange(4):
        case 0:
            del model.opset_import[:]
        case 1:
            model.ir_version = rng.choice((0, 1, 3, 99, -5))
        case _:
            for entry in model.opset_import:
                entry.version = rng.choice((0, 1, 5, 6, 7, 11, 13, 22, 27, 10**9, -1))


def _bomb(rng: random.Random, model: onnx.ModelProto) -> None:
    """A few bytes that ask for terabytes, somewhere before a layer."""
    node = rng.choice(model.graph.node)
    if not node.input:
        return
    position, size = rng.randrange(len(node.input)), rng.choice((1 << 20, 1 << 34, 1 << 62))
    shape = numpy_helper.from_array(np.array([size, rng.choice((1, 1 << 20))], np.int64), "bomb_s")
    model.graph.initializer.append(shape)
    operator = rng.choice(("ConstantOfShape", "Expand", "Tile", "RandomNormal", "Range", "Resize"))
    inputs = {
        "ConstantOfShape": ["bomb_s"],
        "Expand": [node.input[position], "bomb_s"],
        "Tile": [node.input[position], "bomb_s"],
        "RandomNormal": [],
        "Range": ["bomb_a", "bomb_b", "bomb_c"],
        "Resize": [node.input[position], "", "", "bomb_s"],
    }[operator]
    if operator == "Range":
        for name, number in (("bomb_a", 0), ("bomb_b", size), ("bomb_c", 1)):
            stored = numpy_helper.from_array(np.array(number, np.int64), name)
            model.graph.initializer.append(stored)
    made = helper.make_node(operator, inputs, ["bomb"])
    if operator == "RandomNormal":
        made.attribute.append(helper.make_attribute("shape", [size, size]))
    node.input[position] = "bomb"
    model.graph.node.insert(0, made)


def _nest(rng: random.Random, model: onnx.ModelProto) -> None:
    """Bodies in bodies, or attributes that are deep."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["f"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", 1, None)],
    )
    for _ in range(rng.choice((3, 20, 45, 200))):
        node = helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)
        if node.ByteSize() > 1 << 20:
            break
        small = onnx.AttributeProto(name="else_branch", type=onnx.AttributeProto.GRAPH)
        small.g.CopyFrom(helper.make_graph([], "empty", [], []))
        node.attribute[1].CopyFrom(small)
        inner = helper.make_graph([node], "body", [], [helper.make_tensor_value_info("z", 1, None)])
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["deep"], then_branch=inner, else_branch=inner)
    )


def _place(rng: random.Random, model: onnx.ModelProto) -> None:
    """External data in all the wrong places."""
    locations = (
        *("data", "../secret", "/etc/passwd", "/dev/zero", "/dev/stdin", "link", ".", "", "\x00"),
        *("in/../../secret", "data/..", "model.onnx", "missing", "x" * 5000, "..\\secret"),
    )
    _external(
        rng.choice(model.graph.initializer),
        rng.choice(locations),
        rng.choice((0, 0, 1, 4096, 16384, -1, 1 << 62)),
        rng.choice((0, 96, 288, 16384, -1, 1 << 62)),
    )


def _extra(rng: random.Random, model: onnx.ModelProto) -> None:
    """Things that no exporter writes."""
    match rng.randrange(5):
        case 0:
            tensor = rng.choice(model.graph.initializer)
            tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
        case 1:
            model.graph.initializer.append(rng.choice(model.graph.initializer))
        case 2:
            model.graph.input.append(rng.choice(model.graph.input))
        case 3:
            tensor = rng.choice(model.graph.initializer)
            tensor.string_data.append(b"\xff\xfe")
            tensor.float_data.extend([1.0] * 3)
        case _:
            sparse = model.graph.sparse_initializer.add()
            sparse.dims.extend([rng.choice(_NUMBERS), rng.choice(_NUMBERS)])
            sparse.values.CopyFrom(rng.choice(model.graph.initializer))


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _flip_structure, _flip_structure, _cut, _splice, _hostile_length),
    *map(
        _on_message,
        (
            *(_dims, _type, _values, _input_shape, _attribute, _attribute, _names, _names),
            *(_operator, _reorder, _opset, _bomb, _nest, _place, _place, _extra),
        ),
    ),
)
