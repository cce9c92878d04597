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
