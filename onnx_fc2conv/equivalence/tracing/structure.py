"""Parts of a model's graph: what depends on its inputs, and what lies between tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

__all__ = [
    "computing_type",
    "constants",
    "frontier",
    "not_moving",
    "operands",
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


def frontier(graph: ir.Graph, outputs: Iterable[ir.Value], known: Collection[str]) -> list[str]:
    """The known tensors from which the outputs are computed without another one between."""
    fixed = constants(graph)
    found: dict[str, None] = {}
    queue, seen = list(outputs), set(outputs)
    for value in queue:
        node = value.producer()
        if value in fixed:
            continue
        if value.name in known or node is None:
            found[value.name or ""] = None
            continue
        more = [operand for operand in operands(node) if operand not in seen]
        seen.update(more)
        queue += more
    return list(found)


def operands(node: ir.Node) -> list[ir.Value]:
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
