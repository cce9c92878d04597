"""Tier *weights*: every kernel holds the very bytes of its layer's weight, each in its place.

So does every bias, where nothing else is folded into it.

What is documented to be folded into a kernel (alpha of the Gemm, a scale of its operand, the sum of
the weights of an element that the layer reads twice) is folded into the weight here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.biases import bias_problem
from onnx_fc2conv.equivalence.movement import MOVEMENT
from onnx_fc2conv.equivalence.operands import (
    KERNELS,
    LAYERS,
    adds_up,
    image_operand,
    is_left,
    weight_zero,
)
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.places import NotTraced, Trace, trace
from onnx_fc2conv.equivalence.report import Status, TierResult
from onnx_fc2conv.equivalence.runtime import RunError
from onnx_fc2conv.equivalence.same_convs import same_conv
from onnx_fc2conv.equivalence.stored import constant_array
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["check_weights"]


def check_weights(pair: Pair) -> list[TierResult]:
    """Compare the kernel of every emitted Conv with the weight of the layer that it stands for.

    The Conv says in its metadata which layer that is; a Conv that says nothing is not checked here,
    nor is one that the reference has already, being a conversion itself.
    """
    stands_already = {node.metadata_props.get(ORIGIN) for node in pair.reference.graph}
    layers = {_key(node): node for node in pair.reference.graph if node.op_type in LAYERS}
    found = [
        (layers.get(node.metadata_props[ORIGIN]), node)
        for node in pair.converted.graph
        if node.op_type in KERNELS
        and node.metadata_props.get(ORIGIN, "").split(" ")[0] in LAYERS
        and node.metadata_props[ORIGIN] not in stands_already
        and not adds_up(pair.converted, node)
    ]
    if not found:
        reason = "the converted model does not say which Conv stands for which layer"
        return [TierResult("weights", "all layers", "skipped", reason)]
    products = {
        layer.outputs[0].name or "": _last(conv).outputs[0].name or ""
        for layer, conv in found
        if layer is not None
    }
    # A tensor that is only moved may be shared as an output, while the Conv reads what it is of.
    moved = {
        v.name for node in pair.reference.graph if node.op_type in MOVEMENT for v in node.outputs
    }
    stops = {one: two for one, two in pair.shared.items() if one not in moved} | products
    together: dict[ir.Node, list[ir.Node]] = {}
    for layer, conv in found:
        if layer is not None:
            together.setdefault(layer, []).append(conv)
    results = [
        same_conv(pair, conv) or _result(conv, "failed", "the reference has no such layer")
        for layer, conv in found
        if layer is None
    ]
    results += [_check_layer(pair, layer, convs, stops) for layer, convs in together.items()]
    stated = {_key(layer) for layer, _ in found if layer is not None}
    stay = {_key(node) for node in pair.converted.graph if node.op_type in LAYERS}
    reason = "no Conv of the converted model says that it stands for this layer"
    silent = [key for key in layers if key not in stated | stay]
    return results + [TierResult("weights", key, "skipped", reason) for key in silent]


def _last(conv: ir.Node) -> ir.Node:
    """The last of the nodes that stand for the Conv's layer together."""
    origin, node = conv.metadata_props[ORIGIN], conv
    while own := [n for n in node.outputs[0].consumers() if n.metadata_props.get(ORIGIN) == origin]:
        node = own[0]
    return node


def _laid_out(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths that say in which order the elements of a sample lie."""
    return tuple(length for length in shape[1:] if length != 1) if len(shape) > 1 else shape


def _key(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or node.outputs[0].name}"


def _result(
    conv: ir.Node, status: Status, detail: str, elements: int = 0, worst: float | None = None
) -> TierResult:
    return TierResult("weights", conv.metadata_props[ORIGIN], status, detail, elements, worst)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer and its Conv, with where their elements come from.

    Attributes:
        weight: [K, D], by the elements of the layer's operand.
        kernel: [K, E], by the elements of the Conv's operand.
        alpha: Factor of the product.
        operand: Trace of the layer's operand.
        conv_operand: Trace of the Conv's.
        zero: The zero point of the weight's integers, one number or [K]; None for 0.
    """

    weight: AnyArray
    kernel: AnyArray
    alpha: float
    operand: Trace
    conv_operand: Trace
    zero: AnyArray | None

    def placed(self, weight: AnyArray) -> AnyArray | None:
        """A weight [K, D] by the elements of the Conv's operand; None if one is not among them."""
        positions = {int(label): n for n, label in enumerate(self.conv_operand.places)}
        columns = [positions.get(int(label), -1) for label in self.operand.places]
        if -1 in columns:
            return None
        if len(set(columns)) == len(columns):
            placed = np.zeros((len(weight), self.kernel.shape[1]), weight.dtype)
            if self.zero is not None:
                placed[:] = self.zero[:, None]
            placed[:, columns] = weight
            return placed
        total = np.zeros((len(weight), self.kernel.shape[1]))
        np.add.at(total.T, np.array(columns), weight.T.astype(np.float64))
        return total.astype(weight.dtype)

    def times(self, factor: AnyArray | float) -> AnyArray:
        """The weight times a factor, rounded once."""
        return (self.weight.astype(np.float64) * factor).astype(self.weight.dtype)


def _check_layer(
    pair: Pair, layer: ir.Node, convs: Sequence[ir.Node], stops: Mapping[str, str]
) -> TierResult:
    """Compare the weight with the kernel of the Conv, or of all that its sum is split into.

    Where the elements that it reads cannot be followed, the matrix itself will do.
    """
    result = _check_places(pair, layer, convs, stops)
    if result.status != "passed" and len(convs) == 1 and _is_matrix(pair, layer, convs[0]):
        detail = "the layer's matrix, byte for byte; what it is applied to the other tiers compare"
        return replace(result, status="passed", detail=detail)
    return result


def _is_matrix(pair: Pair, layer: ir.Node, conv: ir.Node) -> bool:
    """Whether the Conv applies the layer's very matrix to its operand, made a map for it alone."""
    try:
        kernel, weight = constant_array(pair.converted, conv.inputs[1]), _weight(pair, layer)
    except (Fc2ConvError, NotTraced, RunError, ValueError):
        return False
    if kernel.shape != (*weight.shape, 1, 1) or kernel.dtype != weight.dtype:
        return False
    lifted = "Unsqueeze", "Transpose", "Reshape"
    made = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    own = made is not None and made.metadata_props.get(ORIGIN) == conv.metadata_props[ORIGIN]
    if made is None or not own or made.op_type not in lifted:
        return False
    return not (_bits(weight) != _bits(kernel.reshape(weight.shape))).any()


def _check_places(
    pair: Pair, layer: ir.Node, convs: Sequence[ir.Node], stops: Mapping[str, str]
) -> TierResult:
    """Compare the weights by the elements that the layer and its Convs read."""
    biased = [conv for conv in convs if _has_bias(conv)]
    conv = (biased or convs)[0]
    if len(biased) > 1:
        return _result(conv, "failed", "several of the Convs that it is split into add a bias")
    try:
        found = [_read(pair, conv, stops) for conv in convs]
        kernel = np.concatenate([part for part, _ in found], axis=1)
        places = np.concatenate([trace.places for _, trace in found])
        both = _Layer(
            _weight(pair, layer),
            kernel,
            layer.attributes.get_float("alpha", 1.0) if layer.op_type == "Gemm" else 1.0,
            trace(pair, pair.reference, image_operand(pair.reference, layer), stops),
            replace(found[0][1], places=places),
            weight_zero(pair.reference, layer),
        )
        if len({trace.start for _, trace in found}) > 1:
            raise NotTraced("it is a sum over several maps; the other tiers compare it")
    except NotTraced as reason:
        return _result(conv, "skipped", str(reason))
    except (Fc2ConvError, RunError, ValueError) as error:
        return _result(conv, "failed", f"cannot be read: {error}")
    if stops[both.operand.start] != both.conv_operand.start:
        detail = f"reads {both.conv_operand.start}, the layer reads {both.operand.start}"
        return _result(conv, "failed", detail)
    one, two = (_laid_out(trace.shape) for trace in (both.operand, both.conv_operand))
    if one != two and prod(one) == prod(two):
        detail = "the product before it is laid out in another way; the other tiers compare it"
        return _result(conv, "skipped", detail)
    features = both.operand.places.size
    rows, rest = divmod(features, both.weight.shape[1])
    if rest and not features * both.operand.batch % both.weight.shape[1]:
        detail = "the first axis of its operand is not that of samples; the other tiers compare it"
        return _result(conv, "skipped", detail)
    if rows > 1 and not rest and len(both.kernel) in (len(both.weight), rows * len(both.weight)):
        detail = f"the layer is applied to {rows} rows of a sample; the other tiers compare it"
        return _result(conv, "skipped", detail)
    if (
        features != both.weight.shape[1]
        or both.conv_operand.places.size != both.kernel.shape[1]
        or len(both.weight) != len(both.kernel)
        or both.weight.dtype != both.kernel.dtype
    ):
        detail = (
            f"kernel {kernel.dtype}{list(kernel.shape)} over {both.conv_operand.places.size} "
            f"elements, weight {both.weight.dtype}{list(both.weight.shape)} over {features}"
        )
        return _result(conv, "failed", detail)
    result = _compare(conv, both)
    if result.status != "passed" or both.operand.shifted(both.conv_operand):
        return result
    problem = bias_problem(pair.reference, layer, pair.converted, conv, _last(conv))
    return replace(result, status="failed", detail=problem) if problem else result


def _has_bias(conv: ir.Node) -> bool:
    position = KERNELS[conv.op_type][1]
    return position is not None and any(value is not None for value in conv.inputs[position:])


def _read(pair: Pair, conv: ir.Node, stops: Mapping[str, str]) -> tuple[AnyArray, Trace]:
    """A Conv's kernel as [K, E], and where the E elements that it reads come from."""
    kernel = constant_array(pair.converted, conv.inputs[KERNELS[conv.op_type][0]])
    operand = trace(pair, pair.converted, conv.inputs[0], set(stops.values()))
    return kernel.reshape(len(kernel), -1), operand


def _compare(conv: ir.Node, both: _Layer) -> TierResult:
    expected = both.placed(both.weight if both.alpha == 1.0 else both.times(both.alpha))
    if expected is None:
        return _result(conv, "failed", "the layer reads elements that its Conv does not")
    different = _bits(expected) != _bits(both.kernel)
    if not different.any():
        folded = "" if both.alpha == 1.0 else f", times alpha {both.alpha:g}"
        detail = f"{expected.size:,} weights, byte for byte in place{folded}"
        return _result(conv, "passed", detail, expected.size, 0.0)
    scale = both.operand.folded_scale(both.conv_operand)
    if scale is not None:
        return _compare_scaled(conv, both, scale)
    if both.alpha != 1.0 and (_bits(both.placed(both.weight)) == _bits(both.kernel)).all():
        detail = "alpha is not in the kernel; the other tiers compare what is made of it"
        return _result(conv, "skipped", detail, expected.size)
    worst = _largest_difference(expected, both.kernel)
    row, column = np.unravel_index(int(different.argmax()), different.shape)
    detail = (
        f"{int(different.sum()):,} of {expected.size:,} weights are not the layer's, first output "
        f"{row}, element {column}"
    )
    return _result(conv, "failed", detail, expected.size, worst)


def _compare_scaled(conv: ir.Node, both: _Layer, scale: AnyArray) -> TierResult:
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


def _bits(array: AnyArray | None) -> AnyArray:
    """The array as unsigned integers of its bits: NaN equals itself, -0 is not 0."""
    assert array is not None
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.dtype.itemsize]
    return np.ascontiguousarray(array).view(unsigned)


def _weight(pair: Pair, layer: ir.Node) -> AnyArray:
    """The layer's weight as [K, D], from the operator's definition."""
    left = is_left(pair.reference, layer)
    position = LAYERS[layer.op_type].both[0 if left else 1]
    weight = constant_array(pair.reference, layer.inputs[position])
    if weight.ndim == 1:
        return weight[None, :]
    if prod(weight.shape[:-2]) > 1:
        raise NotTraced("it has a matrix for each group of rows; the other tiers compare it")
    weight = weight.reshape(weight.shape[-2:])
    flag = layer.attributes.get_int("transA" if left else "transB", 0)
    return weight if bool(flag) != left else weight.T
