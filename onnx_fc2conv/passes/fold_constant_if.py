"""FoldConstantIf: an If whose condition never changes is its branch."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.graphs.names import NameScope

__all__ = ["FoldConstantIf"]


@dataclass(frozen=True)
class FoldConstantIf(ir.passes.InPlacePass):
    """Replace each If by its branch, where the condition is a constant of the model.

    1. A condition that a caller may feed (an initializer listed as input, from IR version 4 on) is
       no constant.
    2. The If's outputs keep their names; a tensor of the branch keeps its own unless it is taken.
    3. An If inside the branch is folded too; those inside of a Loop or of an If that stays are not.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold until there is nothing left to fold."""
        overridable = set(model.graph.inputs) if (model.ir_version or 10) >= 4 else set[ir.Value]()
        modified = False
        while (found := _foldable(model.graph, overridable)) is not None:
            _inline(model.graph, *found)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _foldable(graph: ir.Graph, overridable: set[ir.Value]) -> tuple[ir.Node, ir.Graph] | None:
    """The first If with a branch that is always taken."""
    branches = ((node, _branch(node, overridable)) for node in graph)
    return next(((node, branch) for node, branch in branches if branch is not None), None)


def _branch(node: ir.Node, overridable: set[ir.Value]) -> ir.Graph | None:
    """The branch that is always taken; None if there is none."""
    if node.op_type != "If" or node.domain or not node.inputs or node.inputs[0] in overridable:
        return None
    condition = node.inputs[0]
    tensor = None if condition is None else ir.convenience.get_const_tensor(condition)
    if tensor is None or tensor.size != 1:
        return None
    taken = "then_branch" if tensor.numpy().reshape(-1)[0] else "else_branch"
    attribute = node.attributes.get(taken)
    return None if attribute is None else attribute.as_graph()


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Move the branch into the graph, right before the If, and drop the If."""
    results = list(branch.outputs)
    inner = list(branch)
    stored = list(branch.initializers.values())
    _forget(node, taken=branch)
    names = NameScope.of(graph)
    for value in stored:
        branch.initializers.pop(value.name or "")
        value.name = names.fresh(value.name or "constant")
        graph.register_initializer(value)
    branch.outputs.clear()
    branch.remove(inner)
    for moved in inner:
        moved.name = names.fresh(moved.name or moved.op_type)
        for value in moved.outputs:
            value.name = names.fresh(value.name) if value.name else value.name
        graph.insert_before(node, moved)
    for output, result in zip(list(node.outputs), results, strict=True):
        name = output.name
        handed = ir.node("Identity", [result])
        handed.outputs[0].type, handed.outputs[0].shape = output.type, output.shape
        graph.insert_before(node, handed)
        output.replace_all_uses_with(handed.outputs[0], replace_graph_outputs=True)
        output.name = None
        handed.outputs[0].name = name
    graph.remove(node, safe=True)


def _forget(node: ir.Node, taken: ir.Graph) -> None:
    """Drop the other branch, which frees its names and the tensors that it reads."""
    for attribute in node.attributes.values():
        if attribute.type != ir.AttributeType.GRAPH or attribute.as_graph() is taken:
            continue
        for inner in ir.traversal.RecursiveGraphIterator(attribute.as_graph()):
            for position in range(len(inner.inputs)):
                inner.replace_input_with(position, None)
    node.attributes.clear()
