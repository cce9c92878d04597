"""A Conv that replaces a product of patches, against the reference's own convolution."""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.runtime.session import RunError

__all__ = ["same_conv"]


def same_conv(pair: Pair, conv: ir.Node) -> TierResult | None:
    """Compare the kernel with that of the Conv that the reference has in its place.

    Args:
        pair: A model, and its conversion to matrix products and back.
        conv: A Conv of the converted model that names a layer which the reference lacks.

    Returns:
        The result; None if the reference has no such Conv.
    """
    names = {two: one for one, two in pair.shared.items()}
    own = names.get(conv.outputs[0].name or "")
    twins = [n for n in pair.reference.graph if n.op_type == conv.op_type == "Conv"]
    twin = next((node for node in twins if own and node.outputs[0].name == own), None)
    if twin is None:
        return None

    def result(status: Status, detail: str, elements: int = 0) -> TierResult:
        return TierResult("weights", conv.metadata_props[ORIGIN], status, detail, elements)

    try:
        one = constant_array(pair.reference, twin.inputs[1])
        two = constant_array(pair.converted, conv.inputs[1])
    except (Fc2ConvError, RunError, ValueError) as error:
        return result("failed", f"cannot be read: {error}")
    same = (one.shape, one.dtype, one.tobytes()) == (two.shape, two.dtype, two.tobytes())
    if not same:
        return result("failed", f"its kernel is not that of {describe(twin)}", one.size)
    return result(
        "passed", f"{one.size:,} weights, byte for byte those of {describe(twin)}", one.size
    )
