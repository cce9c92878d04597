"""Tier *weights*: every kernel holds the very bytes of its layer's weight, each in its place.

So does every bias, where nothing else is folded into it.

What is documented to be folded into a kernel (alpha of the Gemm, a scale of its operand, the sum of
the weights of an element that the layer reads twice) is folded into the weight here too.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.constants import release_weights
from onnx_fc2conv.equivalence.tracing.biases import bias_problem
from onnx_fc2conv.equivalence.tracing.layers import LayerPair, Layers, NotComparable, last_node
from onnx_fc2conv.equivalence.tracing.places import NotTraced
from onnx_fc2conv.equivalence.tracing.same_convs import same_conv
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_weights"]

_LARGE = 1 << 24
"""Bytes from which a weight is released once it has been read."""

_CHUNK = 1 << 24
"""Bytes that are compared at a time."""


def check_weights(pair: Pair) -> list[TierResult]:
    """Compare the weight of every layer that the converted model names with its Conv's kernel."""
    layers = Layers(pair)
    if not layers.found:
        reason = "the converted model does not say which Conv stands for which layer"
        return [TierResult("weights", "all layers", "skipped", reason)]
    results = [
        same_conv(pair, conv) or _result(conv, "failed", "the reference has no such layer")
        for layer, conv in layers.found
        if layer is None
    ]
    for layer, convs in layers.together.items():
        results.append(_check_layer(layers, layer, convs))
        if layers.size(layer) > _LARGE:  # hold no copies of it in memory: it is in the files
            release_weights(pair.reference)
            release_weights(pair.converted)
            gc.collect()  # a graph is full of cycles, and that of a layer holds some of its weight
    release_weights(pair.reference)
    release_weights(pair.converted)
    reason = "no Conv of the converted model says that it stands for this layer"
    return results + [TierResult("weights", key, "skipped", reason) for key in layers.silent]


def _check_layer(layers: Layers, layer: ir.Node, convs: Sequence[ir.Node]) -> TierResult:
    """Compare the weight of a layer with the kernel of its Conv, or of all that add up to it.

    Where the elements that it reads cannot be traced, the matrix alone is compared.
    """
    result = _check_places(layers, layer, convs)
    if result.status != "passed" and layers.is_matrix(layer, convs):
        detail = "the layer's matrix, byte for byte; the other tiers compare its operand"
        return replace(result, status="passed", detail=detail)
    return result


def _result(
    conv: ir.Node, status: Status, detail: str, elements: int = 0, worst: float | None = None
) -> TierResult:
    return TierResult("weights", conv.metadata_props[ORIGIN], status, detail, elements, worst)


def _check_places(layers: Layers, layer: ir.Node, convs: Sequence[ir.Node]) -> TierResult:
    """Compare the weights by the elements that the layer and its Convs read."""
    conv = convs[0]
    try:
        both = layers.read(layer, convs)
    except NotTraced as reason:
        return _result(conv, "skipped", str(reason))
    except NotComparable as difference:
        return _result(conv, "failed", str(difference))
    except (Fc2ConvError, RunError, ValueError) as error:
        return _result(conv, "failed", f"cannot be read: {error}")
    result = _compare(conv, both)
    if result.status != "passed" or both.operand.shifted(both.conv_operand):
        return result
    pair, conv = layers.pair, both.conv
    problem = bias_problem(pair.reference, layer, pair.converted, conv, last_node(conv))
    return replace(result, status="failed", detail=problem) if problem else result


def _compare(conv: ir.Node, both: LayerPair) -> TierResult:
    expected = both.placed(both.weight if both.alpha == 1.0 else both.times(both.alpha))
    if expected is None:
        return _result(conv, "failed", "the layer reads elements that its Conv does not")
    if _same_bytes(expected, both.kernel):
        folded = "" if both.alpha == 1.0 else f", times alpha {both.alpha:g}"
        detail = f"{expected.size:,} weights, byte for byte in place{folded}"
        return _result(conv, "passed", detail, expected.size, 0.0)
    scale = both.operand.folded_scale(both.conv_operand)
    if scale is not None:
        return _compare_scaled(conv, both, scale)
    if both.alpha != 1.0 and (_bits(both.placed(both.weight)) == _bits(both.kernel)).all():
        detail = "alpha is not in the kernel; the other tiers compare its effect"
        return _result(conv, "skipped", detail, expected.size)
    different = _bits(expected) != _bits(both.kernel)
    worst = _largest_difference(expected, both.kernel)
    row, column = np.unravel_index(int(different.argmax()), different.shape)
    detail = (
        f"{int(different.sum()):,} of {expected.size:,} weights are not the layer's, first output "
        f"{row}, element {column}"
    )
    return _result(conv, "failed", detail, expected.size, worst)


def _compare_scaled(conv: ir.Node, both: LayerPair, scale: AnyArray) -> TierResult:
    """Compare up to the rounding of a scale that was measured."""
    expected = both.placed(both.times(scale * both.alpha))
    assert expected is not None
    one, two = expected.astype(np.float64), both.kernel.astype(np.float64)
    allowed = 64 * float(np.finfo(expected.dtype).eps) * np.abs(one)
    wrong = ~(np.abs(one - two) <= allowed)
    worst = _largest_difference(expected, both.kernel)
    if wrong.any():
        row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        detail = (
            f"{int(wrong.sum()):,} of {one.size:,} weights are not the layer's times the scale "
            f"before it, first output {row}, element {column}"
        )
        return _result(conv, "failed", detail, one.size, worst)
    detail = f"{one.size:,} weights in place, times the scale before the layer up to rounding"
    return _result(conv, "passed", detail, one.size, worst)


def _largest_difference(one: AnyArray, two: AnyArray) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(one.astype(np.float64) - two.astype(np.float64)).max())


def _same_bytes(one: AnyArray, two: AnyArray) -> bool:
    """Whether two arrays hold the same bits, compared in blocks of rows to save memory."""
    rows = max(1, _CHUNK // max(1, one[:1].nbytes))
    starts = range(0, len(one), rows)
    return all(bool((_bits(one[n : n + rows]) == _bits(two[n : n + rows])).all()) for n in starts)


def _bits(array: AnyArray | None) -> AnyArray:
    """The array as unsigned integers of its bits: NaN equals itself, -0 is not 0."""
    assert array is not None
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.dtype.itemsize]
    return np.ascontiguousarray(array).view(unsigned)
