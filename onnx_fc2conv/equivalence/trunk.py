"""The trunk of the original on images of any size.

Two kinds of layers compute something else on a larger image than the same layer does inside a
window: ``auto_pad=SAME_*`` pads as much as the size asks, ``ceil_mode`` adds a cell where the
size leaves a remainder. A conversion writes out the pads that they have at the native size; the
trunk here takes these over. That they are right is what the native size shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.structure import subgraph

__all__ = ["SizeDependent", "free_trunk"]

_PADDING = ("auto_pad", "pads", "ceil_mode")


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
    for node in part.graph:
        if not _depends_on_size(node):
            continue
        twin = twins[pair.shared[node.outputs[0].name or ""]]
        if _depends_on_size(twin):
            raise SizeDependent(
                f"{twin.op_type} {twin.name or twin.outputs[0].name} pads by the size of the image "
                "(auto_pad or ceil_mode): its cells do not stay in place when the image grows"
            )
        for attribute in _PADDING:
            node.attributes.pop(attribute, None)
            if attribute in twin.attributes:
                node.attributes.add(twin.attributes[attribute])
    return part


def _depends_on_size(node: ir.Node) -> bool:
    """Whether the layer pads otherwise at another size; with stride 1, SAME does not."""
    strides = node.attributes.get_ints("strides", None) or (1,)
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    return bool(node.attributes.get_int("ceil_mode", 0)) or (same and max(strides) > 1)
