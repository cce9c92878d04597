"""Tensors that two models compute alike, though they move data in different ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

__all__ = ["MOVEMENT", "layer_of_a_cell", "moved_alike", "regrouped_before", "same_dims"]

MOVEMENT = {
    *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather"),
    *("Split", "Concat", "Shape", "Size", "Constant", "ConstantOfShape", "Expand", "Tile", "Range"),
    *("DepthToSpace", "SpaceToDepth", "GatherElements", "GatherND"),
}
"""Operators that only move data, or compute where to."""


def moved_alike(
    node: ir.Node,
    twin: ir.Node,
    shared: Mapping[str | None, str | None],
    fixed: Collection[ir.Value],
    fixed_too: Collection[ir.Value],
) -> bool:
    """Whether two nodes compute the same from the same tensors, however these are moved.

    A product of patches and filters is a convolution: the tensor that is cut into patches
    counts.
    """
    if (node.domain, node.op_type) != (twin.domain, twin.op_type) or node.op_type in MOVEMENT:
        return False
    if node.outputs[0].shape is None or twin.outputs[0].shape is None:
        return False
    one = [_unmoved(v, fixed) for v in node.inputs if v is not None and v not in fixed]
    two = [_unmoved(v, fixed_too) for v in twin.inputs if v is not None and v not in fixed_too]
    if [len(values) for values in (*one, *two)] == [1, 1] and one[0][0].name not in shared:
        one, two = [_cut_into_patches(one[0][0], fixed)], [_convolved(two[0][0], fixed_too)]
    if not all(value.name in shared for values in one for value in values):
        return False
    return [{shared[v.name] for v in values} for values in one] == [
        {v.name for v in values} for values in two
    ]


def layer_of_a_cell(
    node: ir.Node,
    twin: ir.Node,
    shared: Mapping[str | None, str | None],
    reshaped: Collection[str | None],
    fixed: Collection[ir.Value],
) -> bool:
    """Whether a Gemm of a pooled image, [N, C], has become a Conv of its one cell.

    The original has it at any size: it is the gate of a squeeze-and-excite, for example.
    """
    if (node.op_type, twin.op_type) != ("Gemm", "Conv") or node.inputs[0] is None:
        return False
    roots = _unmoved(node.inputs[0], fixed)
    if len(roots) > 1:
        return False
    source, pooling = roots[0], roots[0].producer()
    pooled = pooling is not None and pooling.op_type.startswith("Global")
    read = twin.inputs[0]
    return (pooled or source.name in reshaped) and (
        read is not None and shared.get(source.name) == read.name
    )


def regrouped_before(
    node: ir.Node, regrouped: Collection[str | None], fixed: Collection[ir.Value]
) -> str | None:
    """Return the name of the ``regrouped`` tensor that the node only moves, if it moves one."""
    if node.op_type not in MOVEMENT or node.inputs[0] is None:
        return None
    roots = _unmoved(node.inputs[0], fixed)
    return roots[0].name if len(roots) == 1 and roots[0].name in regrouped else None


def same_dims(node: ir.Node, twin: ir.Node) -> bool:
    """Whether the outputs have as many axes, of the same lengths where both are known."""
    one, two = node.outputs[0].shape, twin.outputs[0].shape
    if one is None or two is None or len(one) != len(two):
        return False
    pairs = zip(list(one)[1:], list(two)[1:], strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _unmoved(value: ir.Value, fixed: Collection[ir.Value]) -> list[ir.Value]:
    """Return the tensors that this one rearranges: several where some are joined."""
    found: list[ir.Value] = []
    queue, seen = [value], {value}
    for current in queue:
        node = current.producer()
        moved: list[ir.Value] = []
        if node is not None and (node.op_type in MOVEMENT or _keeps_type(node)):
            # Except in Concat, further inputs say where to move: a computed shape, say.
            moving = node.inputs if node.op_type == "Concat" else node.inputs[:1]
            moved = [v for v in moving if v is not None and v not in fixed]
        if not moved:
            found.append(current)
        queue.extend(v for v in dict.fromkeys(moved) if v not in seen)
        seen.update(moved)
    return found


def _keeps_type(node: ir.Node) -> bool:
    """Whether the node is a Cast to the type that its operand has already."""
    if node.op_type != "Cast" or node.inputs[0] is None or node.inputs[0].dtype is None:
        return False
    return node.attributes.get_int("to", 0) == node.inputs[0].dtype


def _cut_into_patches(value: ir.Value, fixed: Collection[ir.Value]) -> list[ir.Value]:
    """Return the tensors whose patches this one multiplies with filters, plus a bias.

    Padding among the patches is a Pad of one row. Return the value itself if it is no such product.
    """
    (product, *others) = _unmoved(_without(value, "Add", fixed), fixed)
    patches = _without(product, "MatMul", fixed)
    if others or patches is product:
        return [value]
    (rows, *others) = _unmoved(patches, fixed)
    return [value] if others else _unmoved(_without(rows, "Pad", fixed), fixed)


def _convolved(value: ir.Value, fixed: Collection[ir.Value]) -> list[ir.Value]:
    """Return the tensors that this one convolves; the value itself if it is no convolution."""
    convolution = _without(value, "Add", fixed)
    source = _without(convolution, "Conv", fixed)
    return [value] if source is convolution else _unmoved(source, fixed)


def _without(value: ir.Value, op_type: str, fixed: Collection[ir.Value]) -> ir.Value:
    """Return the one operand, constants aside, of the node of this type that makes the value."""
    node = value.producer()
    if node is None or node.op_type != op_type or node.domain:
        return value
    moving = [v for v in node.inputs if v is not None and v not in fixed]
    return moving[0] if len(moving) == 1 else value
