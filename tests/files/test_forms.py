"""Forms that a file may have: names, lists, bodies, constants; ways to say the same net."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_fc2conv.equivalence import check
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.pipeline import Conversion, convert
from tests.nets import Array, Net, Tensor
from tests.oracle import assert_refused, assert_slides, converted_model

Build = Callable[[], onnx.ModelProto]


def plain(*, batch: int | str = "N", ir_version: int = 8) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Flatten, Gemm, Relu."""
    net = Net(batch=batch, ir_version=ir_version)
    return net.model(net.op("Relu", net.head(net.trunk())))


def node_of(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == op_type)


def weight_of(model: onnx.ModelProto) -> onnx.TensorProto:
    name = node_of(model, "Gemm").input[1]
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def declared(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for number, node in enumerate(model.graph.node):
        node.name = f"узел {number}"
        for listed in (node.input, node.output):
            for position, name in enumerate(listed):
                listed[position] = names.get(name, name)
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def unnamed_nodes() -> onnx.ModelProto:
    model = plain()
    for node in model.graph.node:
        node.name = ""
    return model


def initializers_as_inputs() -> onnx.ModelProto:
    return plain(ir_version=3)


def unicode_names() -> onnx.ModelProto:
    return renamed(plain(), {"x": "图像", "y": "оценки 🙂"})


def kernel_name_taken() -> onnx.ModelProto:
    """The name that the kernel would get is that of another tensor."""
    model = plain()
    weight = weight_of(model).name
    return renamed(model, {"relu1": f"{weight}.kernel", "flatten3": f"{weight}.kernel_2"})


def stored_twice() -> onnx.ModelProto:
    model = plain()
    model.graph.initializer.append(model.graph.initializer[0])
    return model


def with_training_info() -> onnx.ModelProto:
    model = plain()
    training = model.training_info.add()
    training.algorithm.name, training.initialization.name = "algorithm", "initialization"
    return model


def sparse_of(array: Array, name: str, *, coordinates: bool) -> onnx.SparseTensorProto:
    where = np.argwhere(array) if coordinates else np.flatnonzero(array)
    values = numpy_helper.from_array(array[array != 0], name)
    indices = numpy_helper.from_array(where.astype(np.int64), f"{name}.indices")
    return helper.make_sparse_tensor(values, indices, array.shape)


def thinned(model: onnx.ModelProto) -> Array:
    """The weight with a half of its elements zero; it is taken out of the model."""
    weight = weight_of(model)
    array = numpy_helper.to_array(weight).copy()
    array[:, ::2] = 0
    model.graph.initializer.remove(weight)
    return array


def sparse_initializer(*, coordinates: bool) -> Build:
    def build() -> onnx.ModelProto:
        model = plain()
        name = node_of(model, "Gemm").input[1]
        sparse = sparse_of(thinned(model), name, coordinates=coordinates)
        model.graph.sparse_initializer.append(sparse)
        return model

    return build


def sparse_constant() -> onnx.ModelProto:
    model = plain()
    name = node_of(model, "Gemm").input[1]
    sparse = sparse_of(thinned(model), "", coordinates=False)
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], sparse_value=sparse))
    return model


def constants_of_every_form() -> onnx.ModelProto:
    net = Net()
    y = net.fc(net.flat(net.trunk()), 6)
    y = net.op("Mul", y, net.op("Constant", value_float=0.5))
    y = net.op("Reshape", y, net.op("Constant", value_ints=[-1, 6]))
    y = net.op("Add", y, net.op("Constant", value_floats=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    y = net.op("Gather", y, net.op("Constant", value_int=1), axis=1)
    return net.model(net.op("Unsqueeze", y, net.op("Constant", value_ints=[1]), shape=(1,)))


def without_bias() -> onnx.ModelProto:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op("Gemm", flat, net.random(4, flat.size), None, transB=1, shape=(4,))
    return net.model(net.op("Clip", y, None, np.float32(0.5), shape=(4,)))


def mask_not_asked_for(*, empty: bool) -> Build:
    def build() -> onnx.ModelProto:
        net = Net()
        y = net.flat(net.trunk())
        kept, mask = net.ops("Dropout", y, outputs=2)
        mask.value.name = "" if empty else "mask"
        return net.model(net.fc(Tensor(kept.value, y.shape)))

    return build


FORMS: dict[str, Build] = {
    "unnamed-nodes": unnamed_nodes,
    "initializers-as-inputs": initializers_as_inputs,
    "unicode-names": unicode_names,
    "kernel-name-taken": kernel_name_taken,
    "stored-twice": stored_twice,
    "training-info": with_training_info,
    "sparse-initializer": sparse_initializer(coordinates=False),
    "sparse-coordinates": sparse_initializer(coordinates=True),
    "sparse-constant": sparse_constant,
    "constants-of-every-form": constants_of_every_form,
    "empty-inputs": without_bias,
    "output-not-used": mask_not_asked_for(empty=False),
    "output-not-named": mask_not_asked_for(empty=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str) -> None:
    model = FORMS[form]()
    conversion = assert_slides(model) if form != "unicode-names" else convert(model)
    assert check(model, converted_model(conversion))


def given_out(name: Callable[[onnx.ModelProto], str], shape: list[int | str]) -> Build:
    """The model gives out one tensor more."""

    def build() -> onnx.ModelProto:
        model = plain()
        model.graph.output.append(declared(name(model), shape))
        return model

    return build


def side_input_out() -> onnx.ModelProto:
    net = Net()
    net.input("side", ("N", 3))
    model = net.model(net.head(net.trunk()))
    model.graph.output.append(model.graph.input[1])
    return model


OUTPUTS: dict[str, tuple[Build, tuple[int | str, ...]]] = {
    "weight": (given_out(lambda model: weight_of(model).name, [4, 36]), (4, 36)),
    "kernel": (
        given_out(lambda _: "w0", [3, 2, 3, 3]),
        (3, 2, 3, 3),
    ),
    "image": (given_out(lambda _: "x", ["N", 2, 8, 10]), ("N", 2, "H", "W")),
    "map": (given_out(lambda _: "relu1", ["N", 3, 6, 8]), ("N", 3, "relu1_H", "relu1_W")),
    "side-input": (side_input_out, ("N", 3)),
    "same-twice": (given_out(lambda _: "y", ["N", 4]), ("N", 4, "y_H", "y_W")),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_further_output(name: str) -> None:
    build, shape = OUTPUTS[name]
    model = build()
    conversion = convert(model)
    assert conversion.after is not None
    assert conversion.after.outputs[model.graph.output[1].name] == shape
    report = check(model, converted_model(conversion))
    assert report, report.failures


def test_another_weight_given_out_is_found() -> None:
    model = OUTPUTS["weight"][0]()
    converted = converted_model(convert(model))
    (given,) = (v for v in converted.graph.outputs if v.name == weight_of(model).name)
    assert given.const_value is not None
    other = plain()
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor) + np.float32(tensor.name == given.name) * 1e-7
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    other.graph.output.append(model.graph.output[1])
    failures = {failure.subject for failure in check(other, converted).failures}
    assert given.name in failures


Dims = list[int | str]
SYMBOLS: dict[str, tuple[Dims, tuple[int | str, ...], tuple[int | str, ...]]] = {
    "batch-like-the-height": (
        ["H", 2, 8, 10],
        ("H", 2, "H_2", "W"),
        ("H", 4, "y_H", "y_W"),
    ),
    "batch-like-an-output": (
        ["y_H", 2, 8, 10],
        ("y_H", 2, "H", "W"),
        ("y_H", 4, "y_H_2", "y_W"),
    ),
    "square": (["N", 2, "size", "size"], ("N", 2, "size", "W"), ("N", 4, "y_H", "y_W")),
    "all": (
        ["batch", "C", "height", "width"],
        ("batch", 2, "height", "width"),
        ("batch", 4, "y_H", "y_W"),
    ),
    "unknown": (["?", "?", "?", "?"], ("N", 2, "H", "W"), ("N", 4, "y_H", "y_W")),
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_symbolic_dims(name: str) -> None:
    dims, image, scores = SYMBOLS[name]
    model = plain()
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for dim in dims:
        if dim == "?":
            shape.dim.add()
        elif isinstance(dim, int):
            shape.dim.add(dim_value=dim)
        else:
            shape.dim.add(dim_param=dim)
    del model.graph.value_info[:]
    shapes = {"x": (1, 2, 8, 10)}
    conversion = convert(model, input_shapes=shapes)
    assert conversion.after is not None
    assert (conversion.after.inputs["x"], conversion.after.outputs["y"]) == (image, scores)
    assert check(model, converted_model(conversion), input_shapes=shapes)


def test_one_batch_symbol_for_two_inputs() -> None:
    net = Net(batch="batch")
    side = net.input("side", ("batch", 3))
    y = net.op("Concat", net.flat(net.trunk()), side, axis=1, shape=(39,))
    model = net.model(net.fc(y))
    conversion = convert(model)
    assert conversion.after is not None
    assert conversion.after.inputs == {"x": ("batch", 2, "H", "W"), "side": ("batch", 3)}
    assert conversion.after.outputs == {"y": ("batch", 4, "y_H", "y_W")}
    assert check(model, converted_model(conversion))


def test_symbolic_outputs_are_declared_anew() -> None:
    model = plain()
    dims = model.graph.output[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_param = "H", "classes"
    conversion = assert_slides(model)
    assert conversion.after is not None
    assert conversion.after.outputs == {"y": ("N", 4, "y_H", "y_W")}


def out_of_order() -> onnx.ModelProto:
    model = plain()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def named_twice() -> onnx.ModelProto:
    model = plain()
    model.graph.node[1].output[0] = model.graph.node[0].output[0]
    return model


def damaged_sparse(spoil: Callable[[onnx.SparseTensorProto], None]) -> Build:
    def build() -> onnx.ModelProto:
        model = FORMS["sparse-initializer"]()
        spoil(model.graph.sparse_initializer[0])
        return model

    return build


def far_away(sparse: onnx.SparseTensorProto) -> None:
    sparse.indices.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(sparse.indices) + 10**6))


def huge(sparse: onnx.SparseTensorProto) -> None:
    sparse.dims[0] = 10**9


def outside(sparse: onnx.SparseTensorProto) -> None:
    sparse.values.data_location = TensorProto.EXTERNAL


def cubic(sparse: onnx.SparseTensorProto) -> None:
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros((72, 3), np.int64)))


INVALID: dict[str, tuple[Build, str]] = {
    "out-of-order": (out_of_order, "not in topological order: Relu .* reads 'gemm4' before"),
    "named-twice": (named_twice, "is redeclared"),
    "sparse-outside": (damaged_sparse(far_away), "indices outside of"),
    "sparse-huge": (damaged_sparse(huge), "is too large"),
    "sparse-external": (damaged_sparse(outside), "external data, which is not supported"),
    "sparse-cubic": (damaged_sparse(cubic), "has indices of shape"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name: str) -> None:
    build, reason = INVALID[name]
    with pytest.raises(InvalidModelError, match=reason) as error:
        convert(build())
    assert "\n" not in str(error.value)


def body(op_type: str, inputs: list[str], output: str) -> onnx.GraphProto:
    attributes = {"transB": 1} if op_type == "Gemm" else {}
    inner = helper.make_node(op_type, inputs, [output], **attributes)
    return helper.make_graph([inner], output, [], [declared(output, None)])


def choosing(*, condition: str, names: tuple[str, str] = ("then", "else")) -> onnx.ModelProto:
    """The head's Gemm in one branch of an If, a Gemm with other numbers in the other."""
    model = plain()
    graph, gemm = model.graph, node_of(model, "Gemm")
    other = numpy_helper.from_array(np.ones((4, 36), np.float32), "other")
    graph.initializer.append(other)
    wrong = [gemm.input[0], "other", gemm.input[2]]
    branches = {
        "then_branch": body("Gemm", list(gemm.input), names[0]),
        "else_branch": body("Gemm", wrong, names[1]),
    }
    choice = helper.make_node("If", ["condition"], list(gemm.output), name="choice", **branches)
    place = list(graph.node).index(gemm)
    graph.node.remove(gemm)
    graph.node.insert(place, choice)
    truth = numpy_helper.from_array(np.array(condition != "false"), "condition")
    if condition == "input":
        graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    elif condition == "constant":
        graph.node.insert(0, helper.make_node("Constant", [], ["condition"], value=truth))
    else:
        graph.initializer.append(truth)
    if condition == "overridable":
        graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("condition", ["stored", "constant", "false"])
@pytest.mark.parametrize("names", [("then", "else"), ("choice_2", "choice_2")])
def test_a_constant_if_is_its_branch(condition: str, names: tuple[str, str]) -> None:
    model = choosing(condition=condition, names=names)
    conversion = assert_slides(model)
    assert "If" not in {node.op_type for node in converted_model(conversion).graph}
    wanted = "other" if condition == "false" else "w2"
    assert [head.weight for head in conversion.heads] == [wanted]
    assert check(model, converted_model(conversion))


def test_constant_ifs_in_one_another() -> None:
    model = choosing(condition="stored")
    choice = node_of(model, "If")
    inner = next(a for a in choice.attribute if a.name == "then_branch").g
    deeper = helper.make_node(
        "If",
        ["condition"],
        ["deeper"],
        then_branch=body("Gemm", list(inner.node[0].input), "then"),
        else_branch=body("Gemm", list(inner.node[0].input), "then"),
    )
    inner.node[0].CopyFrom(deeper)
    inner.output[0].name = "deeper"
    conversion = assert_slides(model)
    assert "If" not in {node.op_type for node in converted_model(conversion).graph}


@pytest.mark.parametrize("condition", ["input", "overridable"])
def test_a_head_in_a_body_is_refused_by_name(condition: str) -> None:
    model = choosing(condition=condition)
    assert_refused(model, "subgraph", "If choice", "uses the feature map inside a subgraph")


def test_layers_in_a_body_that_sees_no_image_are_left_alone() -> None:
    """The names inside of the body are not taken for new tensors."""
    net = Net()
    net.input("side", ("N", 3))
    model = net.model(net.head(net.trunk()))
    graph = model.graph
    taken = f"{weight_of(model).name}.kernel"
    graph.initializer.append(numpy_helper.from_array(np.ones((3, 4), np.float32), "square"))
    graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    branches = {
        "then_branch": body("MatMul", ["side", "square"], taken),
        "else_branch": body("MatMul", ["side", "square"], "N"),
    }
    graph.node.append(helper.make_node("If", ["condition"], ["z"], name="choice", **branches))
    graph.output.append(declared("z", ["N", 4]))
    onnx.checker.check_model(model)
    conversion = convert(model)
    assert [layer.reason for layer in conversion.left_alone] == [
        "it is inside a body of If choice"
    ] * 2
    (head,) = conversion.heads
    assert head.kernel != taken
    onnx.checker.check_model(onnx.load_from_string(serialized(conversion)), full_check=True)
    assert check(model, converted_model(conversion))


def serialized(conversion: Conversion) -> bytes:
    import onnx_ir as ir  # noqa: PLC0415

    return ir.to_proto(converted_model(conversion)).SerializeToString()
