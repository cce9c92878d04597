"""Faults to plant into a right conversion, each a function that changes the model in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_fc2conv.passes.apply import ORIGIN

Array = npt.NDArray[Any]
Plant = Callable[[ir.Model], None]


def fc_convs(model: ir.Model) -> list[ir.Node]:
    """The convolutions that stand for fully connected layers, in graph order."""
    origins = ("Gemm", "MatMul")
    return [
        node
        for node in model.graph
        if node.op_type == "Conv" and node.metadata_props.get(ORIGIN, "").startswith(origins)
    ]


def first(model: ir.Model, op_type: str) -> ir.Node:
    """The first node of a type that is no converted layer."""
    converted = fc_convs(model)
    return next(n for n in model.graph if n.op_type == op_type and n not in converted)


def last(model: ir.Model, op_type: str) -> ir.Node:
    return [node for node in model.graph if node.op_type == op_type][-1]


def constant_of(node: ir.Node, position: int) -> Array:
    value = node.inputs[position]
    assert value is not None
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def replace_constant(node: ir.Node, position: int, array: Array) -> None:
    """Give the node another constant, under a name of its own."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name = f"planted_{len(graph.initializers)}"
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.val(name, dtype=tensor.dtype, shape=tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    node.replace_input_with(position, value)


def edit_constant(layer: int, position: int, change: Callable[[Array], Array]) -> Plant:
    """Change the kernel (1) or bias (2) of a converted layer."""

    def plant(model: ir.Model) -> None:
        node = fc_convs(model)[layer]
        replace_constant(node, position, change(constant_of(node, position).copy()))

    return plant


def edit_trunk(op_type: str, position: int, change: Callable[[Array], Array]) -> Plant:
    def plant(model: ir.Model) -> None:
        node = first(model, op_type)
        replace_constant(node, position, change(constant_of(node, position).copy()))

    return plant


def one_element(change: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """Change the largest element and no other."""

    def apply(array: Array) -> Array:
        flat = array.reshape(-1)
        position = int(np.abs(flat).argmax())
        flat[position] = change(flat[position])
        return array

    return apply


def attribute(find: Callable[[ir.Model], ir.Node], **values: Any) -> Plant:
    """Set attributes of a node; None takes one away."""

    def plant(model: ir.Model) -> None:
        node = find(model)
        for name, value in values.items():
            node.attributes.pop(name, None)
            if value is not None:
                node.attributes.add(ir.convenience.convert_attribute(name, value))

    return plant


def bypass(find: Callable[[ir.Model], ir.Node]) -> Plant:
    """Take a node out: its input goes where its output went."""

    def plant(model: ir.Model) -> None:
        node = find(model)
        source, made = node.inputs[0], node.outputs[0]
        assert source is not None
        if made.is_graph_output():
            source.name, made.name = made.name, "bypassed"
        made.replace_all_uses_with(source, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)

    return plant


def drop_input(find: Callable[[ir.Model], ir.Node], position: int) -> Plant:
    return lambda model: find(model).replace_input_with(position, None)


def append(op_type: str, **attributes: Any) -> Plant:
    """Put an operator behind the first output, which keeps its name."""

    def plant(model: ir.Model) -> None:
        made = model.graph.outputs[0]
        name = made.name
        made.name = f"{name}_before"
        node = ir.node(op_type, [made], attributes)
        model.graph.append(node)
        node.outputs[0].name = name
        node.outputs[0].type = made.type
        model.graph.outputs[0] = node.outputs[0]

    return plant


def fix_inputs(*shape: int | str) -> Plant:
    """Declare the first input with this shape again, whatever the graph takes."""

    def plant(model: ir.Model) -> None:
        model.graph.inputs[0].shape = ir.Shape(shape)

    return plant


def first_fc(model: ir.Model) -> ir.Node:
    return fc_convs(model)[0]


def channels_last(kernel: Array) -> Array:
    """The kernel that the weight would be if the model flattened [H, W, C]."""
    outputs, channels, height, width = kernel.shape
    return kernel.reshape(outputs, height, width, channels).transpose(0, 3, 1, 2)


def swap_names(model: ir.Model) -> None:
    """Each head gives out what the other should."""
    one, two = model.graph.outputs
    one.name, two.name = "aside", one.name
    one.name = "y2"


def swap_kernels(model: ir.Model) -> None:
    one, two = fc_convs(model)
    kernels = constant_of(one, 1), constant_of(two, 1)
    replace_constant(one, 1, kernels[1])
    replace_constant(two, 1, kernels[0])


def softmax_over_everything(model: ir.Model) -> None:
    """Softmax-11 on [N, K, h, w] as it is: over K·h·w together."""
    softmax = last(model, "Softmax")
    softmax.attributes.pop("axis")
    logits = softmax.inputs[0].producer().inputs[0]  # type: ignore[union-attr]
    softmax.replace_input_with(0, logits)
    bypass(lambda m: last(m, "Transpose"))(model)


def drop_output(model: ir.Model) -> None:
    del model.graph.outputs[1]


def as_double(model: ir.Model) -> None:
    append("Cast", to=11)(model)
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def nudged_logits(model: ir.Model) -> None:
    """0.5 % more than every logit: the saturated output stays the same."""
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.005))(model)
    edit_constant(0, 2, lambda bias: bias * np.float32(1.005))(model)


def nudged_and_renamed(model: ir.Model) -> None:
    nudged_logits(model)
    for number, node in enumerate(model.graph):
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"renamed_{number}"


def unfold_batch_norm(model: ir.Model) -> None:
    kernel = constant_of(first_fc(model), 1).copy()
    kernel[:, 1] *= np.float32(1.001)
    replace_constant(first_fc(model), 1, kernel)


def drop_mean_axis(model: ir.Model) -> None:
    """The mean over rows only; the largest over the rest."""
    mean = last(model, "ReduceMean")
    mean.attributes.add(ir.convenience.convert_attribute("axes", [2]))
    rest = ir.node("ReduceMax", [mean.outputs[0]], {"axes": [3]})
    model.graph.insert_after(mean, rest)
    mean.outputs[0].replace_all_uses_with(rest.outputs[0])
    rest.replace_input_with(0, mean.outputs[0])


def use_one_image(model: ir.Model) -> None:
    """x - x where the original has x - z."""
    last(model, "Sub").replace_input_with(1, last(model, "Sub").inputs[0])


def fold_windows_into_the_batch(model: ir.Model) -> None:
    """Reshape to [-1, D, 1, 1] and a 1×1 kernel: the windows of a larger image become samples."""
    conv = first_fc(model)
    kernel, source = constant_of(conv, 1), conv.inputs[0]
    flat = ir.node("Reshape", [source, None])
    model.graph.insert_before(conv, flat)
    replace_constant(flat, 1, np.array([-1, kernel[0].size, 1, 1]))
    conv.replace_input_with(0, flat.outputs[0])
    replace_constant(conv, 1, kernel.reshape(len(kernel), -1, 1, 1))


def instead(op_type: str, other: str, **attributes: object) -> Plant:
    """Another operator in the place of the last one of a type."""

    def plant(model: ir.Model) -> None:
        node = last(model, op_type)
        node.op_type = other
        attribute(lambda _: node, **attributes)(model)

    return plant


def nothing(_: ir.Model) -> None:
    """Leave the model as it is."""


def ulp(towards: float) -> Callable[[Array], Array]:
    return one_element(lambda w: np.nextafter(w, np.float32(towards)))


def permuted(kernel: Array) -> Array:
    return kernel[:, [1, 2, 0]]


def exchanged(kernel: Array) -> Array:
    """The first and the last weight of the first output change places."""
    kernel[0, [0, -1], [0, -1], [0, -1]] = kernel[0, [-1, 0], [-1, 0], [-1, 0]]
    return kernel


def percent(amount: float) -> Callable[[Array], Array]:
    return one_element(lambda weight: weight * np.float32(1 + amount / 100))
