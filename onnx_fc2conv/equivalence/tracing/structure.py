"""The tensors that two models share, found by comparing their graphs alone.

Nothing here knows how the conversion was made: a hand-made or foreign conversion is treated alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.equivalence.tracing.movement import (
    MOVEMENT,
    layer_of_a_cell,
    moved_alike,
    regrouped_before,
    same_dims,
)

__all__ = [
    "Shared",
    "computing_type",
    "constants",
    "dequantized_from",
    "frontier",
    "not_moving",
    "shared_values",
    "subgraph",
    "with_outputs",
]

_LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def constants(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on no input of the graph."""
    return _computed_alone(graph, ())


def not_moving(graph: ir.Graph) -> set[ir.Value]:
    """Return constants, and values computed from the shapes of tensors alone."""
    return _computed_alone(graph, ("Shape", "Size"))


def _computed_alone(graph: ir.Graph, operators: Collection[str]) -> set[ir.Value]:
    """Return the values that depend on the graph's inputs only through these operators."""
    found = set(graph.initializers.values())
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        has_body = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        alone = not has_body and all(value in found for value in inputs)
        if alone or (node.op_type in operators and not node.domain):
            found.update(node.outputs)
    return found


@dataclass(frozen=True)
class Shared:
    """The tensors that two models share.

    Attributes:
        names: Tensors that both compute alike: converted names by reference names.
        moved: Those of them, by the name in the reference, whose inputs are the same but for their
            order: the models move data in different ways before them.
    """

    names: Mapping[str, str]
    moved: frozenset[str]


def shared_values(reference: ir.Model, converted: ir.Model) -> Shared:
    """Find the tensors that both models compute by the same operators from the same inputs.

    Attributes and weights are not compared: the check runs both models and compares the tensors.
    Where several nodes of the converted model would do, the one whose output has the same name is
    taken, else the first. A node whose output has the same name may have inputs that are only moved
    (a channel shuffle written in another way), or made by a layer of patches and by the convolution
    that it is. A tensor that both compute on other axes (a group norm of rows or of a map) is not
    shared itself: it may be a window of the head, but later tensors may be maps again.
    """
    fixed, fixed_too = constants(reference.graph), constants(converted.graph)
    inputs_too = {value.name for value in converted.graph.inputs if value not in fixed_too}
    names = {v.name: v.name for v in reference.graph.inputs if v.name in inputs_too - {None}}
    moved: set[str] = set()
    reshaped: set[str | None] = set()  # the same numbers in another rank: later ones are shared
    regrouped: set[str | None] = set()  # on other axes: shared once moved back
    candidates: dict[tuple[object, ...], list[ir.Node]] = {}
    by_name = {node.outputs[0].name: node for node in converted.graph if node.outputs}
    for node in converted.graph:
        moving = tuple(v.name for v in node.inputs if v is not None and v not in fixed_too)
        candidates.setdefault((node.domain, node.op_type, *moving), []).append(node)
    for node in reference.graph:
        inputs = [v for v in node.inputs if v is not None and v not in fixed]
        if not inputs:
            continue
        key = (node.domain, node.op_type, *(names.get(v.name) for v in inputs))
        known = all(v.name in names for v in inputs)
        twins = candidates.get(key, []) if known else []
        if twins:
            same_name = (t for t in twins if t.outputs[0].name == node.outputs[0].name)
            twin = next(same_name, twins[0])
            twins.remove(twin)
        else:
            root = regrouped_before(node, regrouped, fixed)
            namesake = by_name.get(node.outputs[0].name if root is None else names[root])
            if namesake is None or not (
                (root is not None and same_dims(node, namesake))
                or moved_alike(node, namesake, names, fixed, fixed_too)
                or layer_of_a_cell(node, namesake, names, reshaped, fixed)
            ):
                continue
            twin = namesake
            moved.update(v.name for v in node.outputs if v.name)
        if _axes_differ(node, twin):
            regrouped.update(value.name for value in node.outputs)
        elif _layouts_differ(node, twin):
            reshaped.update(value.name for value in node.outputs)
        for one, two in zip(node.outputs, twin.outputs, strict=False):
            names[one.name] = two.name
    alike = {
        one: two for one, two in names.items() if one and two and one not in reshaped | regrouped
    }
    for node in reference.graph:
        for value in node.outputs:
            if dequantized_from(value).name in alike.keys() - {value.name}:
                alike.pop(value.name or "", None)
    return Shared(alike, frozenset(moved))


def _axes_differ(node: ir.Node, twin: ir.Node) -> bool:
    """Whether the outputs have other numbers of axes, also without those of length 1."""
    one, two = node.outputs[0].shape, twin.outputs[0].shape
    if one is None or two is None or len(one) == len(two):
        return False
    long, long_too = (sum(dim != 1 for dim in list(shape)[1:]) for shape in (one, two))
    return long != long_too


def _layouts_differ(node: ir.Node, twin: ir.Node) -> bool:
    """Whether the outputs are known to have their numbers in different places.

    They have other ranks (a reduction that keeps its axes), or the operators work along other axes
    (a Softmax of channels that are the last axis in one model and axis 1 in the other).
    """
    one, two = node.outputs[0].shape, twin.outputs[0].shape
    if one is None or two is None:
        return False
    if len(one) != len(two):
        return True
    axes = [n.attributes.get_int("axis", None) for n in (node, twin)]
    axes = [None if axis is None else axis % max(len(one), 1) for axis in axes]
    return node.op_type not in MOVEMENT and axes[0] != axes[1]


def frontier(
    graph: ir.Graph,
    outputs: Iterable[ir.Value],
    shared: Collection[str],
    until: Collection[ir.Value] = (),
) -> list[str]:
    """The shared tensors from which the outputs are computed without another shared one between.

    The search stops at the values ``until``: tensors before them do not count.
    """
    fixed = constants(graph).union(until)
    found: dict[str, None] = {}
    queue, seen = list(outputs), set(outputs)
    for value in queue:
        node = value.producer()
        if value in fixed:
            continue
        if value.name in shared or node is None:
            found[value.name or ""] = None
            continue
        for operand in _operands(node):
            if operand not in seen:
                seen.add(operand)
                queue.append(operand)
    return list(found)


def _operands(node: ir.Node) -> list[ir.Value]:
    """Return the node's inputs and the outer tensors that its subgraphs read."""
    operands = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        graphs: Iterable[ir.Graph] = ()
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = (attribute.as_graph(),)
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = attribute.as_graphs()
        for graph in graphs:
            for inner in ir.traversal.RecursiveGraphIterator(graph):
                operands.extend(v for v in inner.inputs if v is not None and v.graph is node.graph)
    return operands


def computing_type(model: ir.Model) -> ir.DataType | None:
    """The coarsest floating-point type of the weights that linear layers multiply by."""
    found = [
        value.dtype
        for node in model.graph
        if node.op_type in _LINEAR
        for value in node.inputs
        if value is not None and value.dtype is not None and value.dtype.is_floating_point()
    ]
    return min(found, key=lambda dtype: dtype.bitwidth, default=None)


def dequantized_from(value: ir.Value) -> ir.Value:
    """Return the integers that the tensor is dequantized from, else the tensor itself.

    A runtime fuses a layer with the quantization around it, unless a tensor between is an output.
    """
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return value
    return node.inputs[0]


def with_outputs(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of the model that gives these tensors out too."""
    copy = model.clone()
    values = ir.convenience.create_value_mapping(copy.graph, include_subgraphs=False)
    present = {value.name for value in copy.graph.outputs}
    for name in names:
        if name not in present:
            present.add(name)
            copy.graph.outputs.append(values[name])
    return copy


def subgraph(
    model: ir.Model, inputs: Mapping[str, ir.DataType | None], outputs: Iterable[str]
) -> ir.Model:
    """The part of the model between these tensors, without any recorded shape or type.

    Args:
        model: The model.
        inputs: The tensors to start from, with their types (None keeps what is recorded).
        outputs: The tensors to compute.
    """
    graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    for value in graph.inputs:
        dtype = inputs.get(value.name or "")
        if dtype is not None:
            value.type = ir.TensorType(dtype)
        value.shape = None
    for node in graph:
        for value in node.outputs:
            value.shape = value.type = None
    # Before IR version 4 an initializer is an input as well, which it is not here.
    version = max(model.ir_version or 4, 4)
    return ir.Model(graph, ir_version=version, functions=list(model.functions.values()))
