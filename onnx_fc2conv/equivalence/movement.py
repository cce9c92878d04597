"""Tensors that two models move in different ways, and compute alike all the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

__all__ = ["MOVEMENT", "moved_alike"]

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
    """Whether two nodes compute the same from the same tensors, moved in one way or another.

    A product of patches and filters is a convolution in other words: what counts is what is cut
    into patches.
    """
    if (node.domain, node.op_type) != (twin.domain, twin.op_type) or node.op_type in MOVEMENT:
        return False
    ranks = [None if v.shape is None else len(v.shape) for v in (node.outputs[0], twin.outputs[0])]
    if ranks[0] is None or ranks[0] != ranks[1]:
        return False
    one = [unmoved(v, fixed) for v in node.inputs if v is not None and v not in fixed]
    two = [unmoved(v, fixed_too) for v in twin.inputs if v is not None and v not in fixed_too]
    if len(one) == len(two) == 1 and one[0].name not in shared:
        one, two = [_cut_into_patches(one[0], fixed)], [_convolved(two[0], fixed_too)]
    return all(v.name in shared for v in one) and (
        [shared[v.name] for v in one] == [v.name for v in two]
    )


def unmoved(value: ir.Value, fixed: Collection[ir.Value]) -> ir.Value:
    """The tensor that this one is a rearrangement of."""
    node = value.producer()
    while node is not None and node.op_type in MOVEMENT and node.inputs:
        # But for Concat, further inputs say where to: a shape that is computed, say.
        moving = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        moved = [v for v in moving if v is not None and v not in fixed]
        if len(moved) != 1:
            break
        value = moved[0]
        node = value.producer()
    return value


def _cut_into_patches(value: ir.Value, fixed: Collection[ir.Value]) -> ir.Value:
    """The tensor of whose patches this one is the product with filters, and a bias.

    Padding among the patches is a Pad, of one row or of the tensor. The value itself if it is no
    such product.
    """
    product = unmoved(_without(value, "Add", fixed), fixed)
    patches = _without(product, "MatMul", fixed)
    if patches is product:
        return value
    rows = unmoved(patches, fixed)
    return unmoved(_without(rows, "Pad", fixed), fixed)


def _convolved(value: ir.Value, fixed: Collection[ir.Value]) -> ir.Value:
    """The tensor of which this one is a convolution; the value itself if it is none."""
    convolution = _without(value, "Add", fixed)
    source = _without(convolution, "Conv", fixed)
    return value if source is convolution else unmoved(source, fixed)


def _without(value: ir.Value, op_type: str, fixed: Collection[ir.Value]) -> ir.Value:
    """What a node of this type makes the value of with constants; the value itself if none does."""
    node = value.producer()
    if node is None or node.op_type != op_type or node.domain:
        return value
    moving = [v for v in node.inputs if v is not None and v not in fixed]
    return moving[0] if len(moving) == 1 else value
