"""Logits: the input of a saturating operator near the end of an output.

A softmax of 0.9999 hides an error of the logits, the index of the best class hides nearly all. So
the logits are compared too. They have the output's layout: data movement after the operator (groups
of features put back in place, say) is repeated on the logits.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.equivalence.tracing.structure import dequantized_from

__all__ = ["add_logits", "saturating_types"]

_KEEPING = {
    *("Softmax", "LogSoftmax", "Sigmoid", "Tanh", "HardSigmoid", "Hardmax"),
    *("QLinearSoftmax", "QLinearSigmoid"),
}
"""Saturating operators whose output has the shape of the input."""

_NUMBERING = {"ArgMax", "ArgMin"}
_MOVING = {"Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Gather"}
_TYPING = {"Cast", "QuantizeLinear", "DequantizeLinear"}
_KNOWN = _KEEPING | _NUMBERING | _MOVING | _TYPING


def add_logits(model: ir.Model) -> dict[str, str]:
    """Let the model compute the logits of every output that ends in a saturating operator.

    Args:
        model: The model; it gets more nodes unless it has them, and its outputs stay.

    Returns:
        By output, the name of its logits. None where the indices of the best classes are moved
        afterwards: scores have another shape.
    """
    found: dict[str, str] = {}
    for output in model.graph.outputs:
        chain = _chain(output)
        saturating = [n for n, node in enumerate(chain) if node.op_type in _KEEPING | _NUMBERING]
        if not saturating:
            continue
        numbering = [n for n, node in enumerate(chain) if node.op_type in _NUMBERING]
        if numbering and any(node.op_type not in _TYPING for node in chain[: numbering[-1]]):
            continue
        start = numbering[-1] + 1 if numbering else 0
        tail = [node for node in chain[start : max(saturating)] if node.op_type in _MOVING]
        logits = chain[max(saturating)].inputs[0]
        assert logits is not None
        found[output.name or ""] = _moved(model.graph, output, dequantized_from(logits), tail)
    return found


def _chain(output: ir.Value) -> list[ir.Node]:
    """Return the nodes that move or saturate the output, from the last to the first."""
    chain: list[ir.Node] = []
    node = output.producer()
    while node is not None and node.op_type in _KNOWN:
        chain.append(node)
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return chain


def _moved(graph: ir.Graph, output: ir.Value, logits: ir.Value, tail: list[ir.Node]) -> str:
    """Copy these nodes (given last first) onto the logits; return the new name."""
    last = output.producer()
    present = {value.name: value for node in graph for value in node.outputs}
    for node in reversed(tail):
        name = f"{output.name}.logits.{node.outputs[0].name}"
        if name in present:
            logits = present[name]
            continue
        copy = ir.node(
            node.op_type, [logits, *node.inputs[1:]], dict(node.attributes), domain=node.domain
        )
        assert last is not None
        graph.insert_after(last, copy)
        last, logits = copy, copy.outputs[0]
        logits.name = name
    return logits.name or ""


def saturating_types(graph: ir.Graph) -> dict[str, str]:
    """Return the last saturating operator's type, by output that ends in one."""
    found: dict[str, str] = {}
    for output in graph.outputs:
        types = [node.op_type for node in _chain(output)]
        saturating = [t for t in types if t in _KEEPING | _NUMBERING]
        if saturating:
            found[output.name or ""] = saturating[0]
    return found
