"""Nodes with huge outputs: a few bytes of a model file may demand terabytes, or hours.

These are operators whose output size depends on an operand's *values* (ONNX operators
ConstantOfShape-9, Expand-8, OneHot-9, Pad-11, Range-11, Resize-10, Tile-6, Upsample-9). The size of
any other operator is bounded by its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.graphs.operators import REARRANGING, SIZES
from onnx_fc2conv.views.maps.constant import NotComputable
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_growth", "check_sizes", "repeated"]

_MOST = 1 << 24
"""Elements: an attention mask of 4,096 tokens has as many."""

_MOST_REPEATED = 1 << 28
"""Elements of a ConstantOfShape, which take no memory; the largest layer of VGG has 103 million."""

_ANY_MEMORY = 1 << 40
"""Elements that no machine holds."""

_GROWING = {"ConstantOfShape", "Expand", "OneHot", "Range", "Resize", "Tile", "Upsample"}
_SMALL = 1 << 10
"""Most elements of an operand whose values may set the size of the output."""

_RESIZE = ("roi", "scales", "sizes")

_MOST_RESIZED = 1 << 20
"""Elements: ONNX's reference implementation of Resize computes them one by one."""

_LIMITS = {
    "ConstantOfShape": _MOST_REPEATED,
    "Resize": _MOST_RESIZED,
    "Upsample": _MOST_RESIZED,
}


def check_growth(node: ir.Node, inputs: Sequence[AnyArray | None]) -> None:
    """Check that the output of a node has a reasonable size.

    Raises:
        NotComputable: If it is not; the message has the number of elements.
    """
    elements = _elements(node, inputs)
    if elements > _LIMITS.get(node.op_type, _MOST):
        raise NotComputable(f"{node.op_type} would make a tensor of {elements:.3g} elements")
    if node.op_type in (*SIZES, *REARRANGING):  # NumPy copies no element for these
        return
    for array in inputs:
        if array is not None and array.size > _MOST and not any(array.strides):
            raise NotComputable(f"{node.op_type} would compute with {array.size:.3g} equal numbers")


def repeated(node: ir.Node, shape: AnyArray) -> AnyArray:
    """Return the output of a ConstantOfShape-9 as a broadcast view of its number (default 0)."""
    tensor = node.attributes.get_tensor("value", None)
    number = np.float32(0) if tensor is None else tensor.numpy().reshape(())
    return np.broadcast_to(number, tuple(int(length) for length in shape))


def check_sizes(graph: ir.Graph) -> None:
    """Check that no node makes a tensor larger than any memory from its constants.

    Any runtime would try to allocate it, onnxruntime too.

    Raises:
        InvalidModelError: If there is one.
    """
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type in _GROWING and not node.domain:
            facts = (ir.convenience.get_const_tensor(v) if v else None for v in node.inputs)
            arrays = [None if t is None or t.size > _SMALL else t.numpy() for t in facts]
            if (elements := _elements(node, arrays)) > _ANY_MEMORY:
                raise InvalidModelError(
                    f"{node.op_type} {node.name or node.outputs[0].name} would make a tensor of "
                    f"{elements:.3g} elements"
                )


def _elements(node: ir.Node, inputs: Sequence[AnyArray | None]) -> float:
    """Return the number of output elements; 0 where no operand's value sets it."""
    match node.op_type, inputs:
        case "ConstantOfShape", [np.ndarray() as shape]:
            return _product(shape)
        case "Expand", [np.ndarray() as array, np.ndarray() as shape]:
            longest = max(array.ndim, shape.size)
            pair = np.ones((2, longest))
            pair[0, longest - array.ndim :] = array.shape
            pair[1, longest - shape.size :] = shape.reshape(-1)
            return _product(pair.max(axis=0))
        case "Tile", [np.ndarray() as array, np.ndarray() as repeats]:
            return array.size * _product(repeats)
        case "OneHot", [np.ndarray() as indices, np.ndarray() as depth, *_]:
            return indices.size * _product(depth)
        case "Range", [np.ndarray() as start, np.ndarray() as limit, np.ndarray() as delta]:
            with np.errstate(all="ignore"):
                return float(np.nan_to_num((limit.astype(float) - start) / delta).max())
        case (("Resize" | "Upsample"), [np.ndarray() as array, *operands]):
            return _resized(node, array, operands)
        case _:
            return 0.0


def _resized(node: ir.Node, array: AnyArray, operands: Sequence[AnyArray | None]) -> float:
    """Elements of a Resize of (X, roi, scales, sizes), or an Upsample of (X, scales)."""
    given = dict(
        zip(("scales",) if node.op_type == "Upsample" else _RESIZE, operands, strict=False)
    )
    scales, sizes = given.get("scales"), given.get("sizes")
    if sizes is not None and sizes.size:
        axes = node.attributes.get_ints("axes", range(array.ndim))
        kept = [
            n for axis, n in enumerate(array.shape) if axis not in {a % array.ndim for a in axes}
        ]
        return _product(sizes) * _product(np.array(kept))
    return array.size * _product(scales) if scales is not None and scales.size else 0.0


def _product(numbers: AnyArray) -> float:
    with np.errstate(all="ignore"):
        return float(np.prod(numbers.astype(np.float64)))
