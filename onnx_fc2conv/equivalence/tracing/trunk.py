"""The trunk of the original on images of any size.

Two kinds of layers compute something else on a larger image than the same layer does inside a
window: ``auto_pad=SAME_*`` pads as much as the size asks, ``ceil_mode`` adds a cell where the
size leaves a remainder. The trunk here gets the pads that these layers have at the native size,
worked out from the operators' definitions; the converted model is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.tracing.structure import subgraph, with_outputs
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["SizeDependent", "free_trunk", "native_pads"]


class SizeDependent(Exception):  # noqa: N818 - a finding, not an error
    """A layer of the converted model still depends on the size of the image."""


def free_trunk(pair: Pair, names: Sequence[str]) -> ir.Model:
    """The part of the reference from its inputs to these tensors, without any fixed size.

    Raises:
        SizeDependent: If the converted model does not write the pads out.
    """
    reference = pair.reference.clone()
    types = {i.name: ir.DataType.from_numpy(i.dtype) for i in pair.inputs}
    twins = {node.outputs[0].name: node for node in pair.converted.graph if node.outputs}
    part = subgraph(reference, types, names)
    dependent = [node for node in part.graph if _depends_on_size(node)]
    extents = _extents(pair, [node.inputs[0].name or "" for node in dependent if node.inputs[0]])
    for node in dependent:
        twin = twins.get(pair.shared.get(node.outputs[0].name or ""))
        if twin is not None and _depends_on_size(twin):
            raise SizeDependent(
                f"{twin.op_type} {twin.name or twin.outputs[0].name} pads by the size of the image "
                "(auto_pad or ceil_mode): its cells do not stay in place when the image grows"
            )
        operand, weight = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        assert operand is not None
        shape = () if weight is None or weight.shape is None else tuple(weight.shape)[2:]
        pads = native_pads(node, extents[operand.name or ""], shape)
        for attribute in ("auto_pad", "ceil_mode", "pads"):
            node.attributes.pop(attribute, None)
        node.attributes.add(ir.AttrInt64s("pads", pads))
    return part


def _depends_on_size(node: ir.Node) -> bool:
    """Whether the layer pads otherwise at another size; with stride 1, SAME does not."""
    strides = node.attributes.get_ints("strides", ()) or (1,)
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    return bool(node.attributes.get_int("ceil_mode", 0)) or (same and max(strides) > 1)


def _extents(pair: Pair, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Spatial sizes of tensors [N, C, *spatial] of the reference at the native size."""
    if not names:
        return {}
    shapes = pair.batched(pair.fixed_batch or 1)
    feeds: dict[str, AnyArray] = {i.name: np.zeros(shapes[i.name], i.dtype) for i in pair.inputs}
    model = with_outputs(pair.reference, dict.fromkeys(names))
    got = pair.session(model).run(feeds, list(dict.fromkeys(names)))
    return {name: array.shape[2:] for name, array in got.items()}


def native_pads(node: ir.Node, extent: Sequence[int], weight: Sequence[object] = ()) -> list[int]:
    """The pads that a layer has on a map of this extent, all leading ones first.

    ``SAME`` pads so that there are ceil(extent / stride) cells, the odd one at the end (UPPER) or
    the start (LOWER). ``ceil_mode`` rounds the number of cells up, if the last one starts within
    the map or its leading padding, and pads so that it is whole (Conv-11, MaxPool-12).

    Args:
        node: The layer.
        extent: Spatial size of its input.
        weight: Spatial size of its kernel, if it does not say.
    """
    rank = len(extent)
    attributes = node.attributes
    given = tuple(length for length in weight if isinstance(length, int)) or (1,) * rank
    kernel = attributes.get_ints("kernel_shape", ()) or given
    strides = attributes.get_ints("strides", ()) or (1,) * rank
    dilations = attributes.get_ints("dilations", ()) or (1,) * rank
    pads = attributes.get_ints("pads", ()) or (0,) * (2 * rank)
    auto_pad = attributes.get_string("auto_pad", "NOTSET")
    leading: list[int] = []
    trailing: list[int] = []
    for axis, length in enumerate(extent):
        span, stride = (kernel[axis] - 1) * dilations[axis] + 1, strides[axis]
        first, last = pads[axis], pads[rank + axis]
        if auto_pad.startswith("SAME"):
            total = max((-(-length // stride) - 1) * stride + span - length, 0)
            first = (total + 1) // 2 if auto_pad == "SAME_LOWER" else total // 2
            last = total - first
        elif auto_pad == "VALID":
            first = last = 0
        if attributes.get_int("ceil_mode", 0):
            cells = -(-(length + first + last - span) // stride) + 1
            if (cells - 1) * stride >= length + first:
                cells -= 1
            last += max((cells - 1) * stride + span - (length + first + last), 0)
        leading.append(first)
        trailing.append(last)
    return leading + trailing
