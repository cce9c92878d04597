"""What the graph of a model says by itself: constants, logits, the part between two tensors.

Nothing here knows how the conversion was made: a hand-made or foreign conversion is treated alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

__all__ = [
    "MOVEMENT",
    "constants",
    "frontier",
    "integers_of",
    "saturating_inputs",
    "saturating_types",
    "subgraph",
    "with_outputs",
]

MOVEMENT = {
    *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather"),
    *("Split", "Concat", "Shape", "Size", "Constant", "ConstantOfShape", "Expand", "Tile", "Range"),
    *("DepthToSpace", "SpaceToDepth", "GatherElements", "GatherND"),
}
"""Operators that only move data, or compute where to."""

_SATURATING = {
    *("Softmax", "LogSoftmax", "Sigmoid", "Tanh", "HardSigmoid", "Hardmax", "ArgMax", "ArgMin"),
    *("QLinearSoftmax", "QLinearSigmoid"),
}
_LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_HANDED_THROUGH = {
    *("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"),
    *("QuantizeLinear", "DequantizeLinear"),
}


def constants(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on no input of the graph."""
    found = set(graph.initializers.values())
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        has_body = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        if not has_body and all(value in found for value in inputs):
            found.update(node.outputs)
    return found


def frontier(graph: ir.Graph, outputs: Iterable[ir.Value], shared: Collection[str]) -> list[str]:
    """The shared tensors from which the outputs are computed without another shared one between."""
    fixed = constants(graph)
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
    """The node's inputs and what its subgraphs take from outside."""
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


def saturating_inputs(graph: ir.Graph) -> dict[str, str]:
    """For each output that ends in saturating operators, the name of what the first one takes.

    A softmax of 0.9999 hides an error of the logits, the number of the best class hides nearly all.
    """
    found: dict[str, str] = {}
    for value in graph.outputs:
        logits = None
        current: ir.Value | None = value
        while current is not None:
            node = current.producer()
            if node is None or node.op_type not in _SATURATING | _HANDED_THROUGH:
                break
            current = node.inputs[0]
            # A conversion may transpose before a softmax; the logits are what it transposes.
            if node.op_type in _SATURATING or (logits is not None and node.op_type == "Transpose"):
                logits = current
        if logits is not None and logits.name:
            found[value.name or ""] = integers_of(logits).name or logits.name
    return found


def integers_of(value: ir.Value) -> ir.Value:
    """What the tensor is dequantized from, if it is.

    A runtime fuses a layer with the quantization around it, unless what lies between is given out.
    """
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return value
    return node.inputs[0]


def saturating_types(graph: ir.Graph) -> dict[str, str]:
    """For each output that ends in a saturating operator, the operator's type."""
    found: dict[str, str] = {}
    for value in graph.outputs:
        node = value.producer()
        while node is not None and node.op_type in _HANDED_THROUGH:
            source = node.inputs[0]
            node = None if source is None else source.producer()
        if node is not None and node.op_type in _SATURATING:
            found[value.name or ""] = node.op_type
    return found


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
