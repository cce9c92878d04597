"""The fully connected layers of the reference, and the Convs that replace them.

The converted model says in its metadata which Conv replaces which layer. Nothing else is taken
from it: `places` finds where the elements of both operands come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.equivalence.tracing.movement import MOVEMENT
from onnx_fc2conv.equivalence.tracing.operands import (
    KERNELS,
    LAYERS,
    adds_up,
    has_bias,
    has_stack,
    image_operand,
    layer_weight,
    weight_zero,
)
from onnx_fc2conv.equivalence.tracing.places import NotTraced, Trace, trace
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["LayerPair", "Layers", "NotComparable", "last_node", "layer_key"]

_POINTWISE = ("Unsqueeze", "Transpose", "Reshape")


class NotComparable(Exception):  # noqa: N818 - a finding, not an error
    """The layer and its Conv cannot be the same: another operand or number of elements."""


def layer_key(node: ir.Node) -> str:
    """Return the name of a layer in the metadata."""
    return f"{node.op_type} {node.name or node.outputs[0].name}"


def last_node(conv: ir.Node) -> ir.Node:
    """Return the last of the nodes that together replace the Conv's layer."""
    origin, node = conv.metadata_props[ORIGIN], conv
    while own := [n for n in node.outputs[0].consumers() if n.metadata_props.get(ORIGIN) == origin]:
        node = own[0]
    return node


@dataclass(frozen=True, eq=False)
class LayerPair:
    """A layer, the Convs that add up to it (mostly one), and the traces of their operands.

    Attributes:
        layer: The Gemm or MatMul.
        convs: The Convs; one that adds the bias is the first.
        weight: [K, D], by the elements of the layer's operand.
        kernel: [K, E], by the elements of the Convs' operands.
        alpha: Factor of the product.
        operand: Trace of the layer's operand.
        conv_operand: Trace of the Convs'.
        zero: The zero point of the weight's integers, one number or [K]; None for 0.
    """

    layer: ir.Node
    convs: tuple[ir.Node, ...]
    weight: AnyArray
    kernel: AnyArray
    alpha: float
    operand: Trace
    conv_operand: Trace
    zero: AnyArray | None = None

    @property
    def conv(self) -> ir.Node:
        """The Conv, or the first of them."""
        return self.convs[0]

    def placed(self, weight: AnyArray) -> AnyArray | None:
        """Reorder a weight [K, D] by the Conv's operand; None if that lacks an element."""
        positions = {int(label): n for n, label in enumerate(self.conv_operand.places)}
        columns = [positions.get(int(label), -1) for label in self.operand.places]
        if -1 in columns:
            return None
        if self.zero is None and columns == list(range(self.kernel.shape[1])):
            return weight
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


@dataclass(frozen=True, eq=False)
class Layers:
    """All layers of a pair of models.

    Attributes:
        pair: The models.
    """

    pair: Pair

    @cached_property
    def by_name(self) -> dict[str, ir.Node]:
        """The layers of the reference, by their name in the metadata."""
        graph = self.pair.reference.graph
        return {layer_key(node): node for node in graph if node.op_type in LAYERS}

    @cached_property
    def found(self) -> list[tuple[ir.Node | None, ir.Node]]:
        """Every Conv whose metadata names a layer, with the layer if there is one.

        Those that the reference has already, being a conversion itself, are left out.
        """
        stands_already = {n.metadata_props.get(ORIGIN) for n in self.pair.reference.graph}
        return [
            (self.by_name.get(node.metadata_props[ORIGIN]), node)
            for node in self.pair.converted.graph
            if node.op_type in KERNELS
            and node.metadata_props.get(ORIGIN, "").split(" ")[0] in LAYERS
            and node.metadata_props[ORIGIN] not in stands_already
            and not adds_up(self.pair.converted, node)
        ]

    @cached_property
    def together(self) -> dict[ir.Node, list[ir.Node]]:
        """By layer, the Conv that replaces it, or all that its sum is split into."""
        together: dict[ir.Node, list[ir.Node]] = {}
        for layer, conv in self.found:
            if layer is not None:
                together.setdefault(layer, []).append(conv)
        return together

    @cached_property
    def silent(self) -> list[str]:
        """The layers that neither stay nor are named by a Conv."""
        stated = {layer_key(layer) for layer in self.together}
        stay = {layer_key(node) for node in self.pair.converted.graph if node.op_type in LAYERS}
        return [key for key in self.by_name if key not in stated | stay]

    @cached_property
    def _stops(self) -> Mapping[str, str]:
        """Where tracing an operand back ends: names in the reference, and in the converted."""
        products = {
            layer.outputs[0].name or "": last_node(convs[-1]).outputs[0].name or ""
            for layer, convs in self.together.items()
        }
        # A tensor that is only moved may be shared as an output, while the Conv reads its source.
        nodes = self.pair.reference.graph
        moved = {v.name for node in nodes if node.op_type in MOVEMENT for v in node.outputs}
        return {one: two for one, two in self.pair.shared.items() if one not in moved} | products

    def size(self, layer: ir.Node) -> int:
        """Return the bytes of the layer's constants."""
        facts = (ir.convenience.get_const_tensor(value) for value in layer.inputs if value)
        return sum(tensor.nbytes for tensor in facts if tensor is not None)

    def read(self, layer: ir.Node, convs: Sequence[ir.Node]) -> LayerPair:
        """Weights and traces of a layer and its Convs.

        Raises:
            NotTraced: If this kind of layer cannot be compared on its own.
            NotComparable: If the two cannot be the same layer.
            Fc2ConvError, RunError, ValueError: If a constant cannot be read.
        """
        pair, stops = self.pair, self._stops
        if has_stack(pair.reference, layer):
            raise NotTraced("it has a matrix for each group of rows; other tiers compare it")
        convs = sorted(convs, key=has_bias, reverse=True)
        if len(convs) > 1 and has_bias(convs[1]):
            raise NotComparable("several of the Convs that it is split into add a bias")
        kernels = [constant_array(pair.converted, c.inputs[KERNELS[c.op_type][0]]) for c in convs]
        traces = [trace(pair, pair.converted, c.inputs[0], set(stops.values())) for c in convs]
        both = LayerPair(
            layer,
            tuple(convs),
            layer_weight(pair.reference, layer),
            _side_by_side([kernel.reshape(len(kernel), -1) for kernel in kernels]),
            layer.attributes.get_float("alpha", 1.0) if layer.op_type == "Gemm" else 1.0,
            trace(pair, pair.reference, image_operand(pair.reference, layer), stops),
            replace(traces[0], places=np.concatenate([t.places for t in traces])),
            weight_zero(pair.reference, layer),
        )
        if len({t.start for t in traces}) > 1:
            raise NotTraced("it is a sum over several maps; the other tiers compare it")
        _require_one_layer(both, stops)
        return both

    def is_matrix(self, layer: ir.Node, convs: Sequence[ir.Node]) -> bool:
        """Whether one Conv applies the layer's very matrix, to an operand made a map for it alone.

        Then the elements of the operand need not be traced.
        """
        if len(convs) > 1:
            return False
        (conv,) = convs
        made = conv.inputs[0].producer() if conv.inputs[0] is not None else None
        own = made is not None and made.metadata_props.get(ORIGIN) == conv.metadata_props[ORIGIN]
        if made is None or not own or made.op_type not in _POINTWISE:
            return False
        try:
            kernel = constant_array(self.pair.converted, conv.inputs[1])
            weight = layer_weight(self.pair.reference, layer)
        except (Fc2ConvError, RunError, ValueError):
            return False
        alike = kernel.shape == (*weight.shape, 1, 1) and kernel.dtype == weight.dtype
        return alike and kernel.tobytes() == weight.tobytes()


def _require_one_layer(both: LayerPair, stops: Mapping[str, str]) -> None:
    """Raise unless both read the same elements of the same tensor, one row a sample."""
    if stops[both.operand.start] != both.conv_operand.start:
        raise NotComparable(
            f"reads {both.conv_operand.start}, the layer reads {both.operand.start}"
        )
    one, two = (_laid_out(trace.shape) for trace in (both.operand, both.conv_operand))
    if one != two and prod(one) == prod(two):
        raise NotTraced("the product before it is laid out in another way; other tiers compare it")
    features = both.operand.places.size
    rows, rest = divmod(features, both.weight.shape[1])
    if rest and not features * both.operand.batch % both.weight.shape[1]:
        raise NotTraced("its operand's first axis is not that of samples; other tiers compare it")
    copies, beside = divmod(len(both.kernel), len(both.weight))  # of the weight, one a group
    if rows > 1 and not rest and not beside and rows % max(1, copies) == 0:
        raise NotTraced(f"the layer is applied to {rows} rows of a sample; other tiers compare it")
    if (
        features != both.weight.shape[1]
        or both.conv_operand.places.size != both.kernel.shape[1]
        or len(both.weight) != len(both.kernel)
        or both.weight.dtype != both.kernel.dtype
    ):
        raise NotComparable(
            f"kernel {both.kernel.dtype}{list(both.kernel.shape)} over "
            f"{both.conv_operand.places.size} elements, weight "
            f"{both.weight.dtype}{list(both.weight.shape)} over {features}"
        )


def _side_by_side(kernels: Sequence[AnyArray]) -> AnyArray:
    """The kernels as one; a single one is not copied, it may fill the memory."""
    return kernels[0] if len(kernels) == 1 else np.concatenate(kernels, axis=1)


def _laid_out(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a sample's shape without axes of length 1: it fixes the order of the elements."""
    return tuple(length for length in shape[1:] if length != 1) if len(shape) > 1 else shape
