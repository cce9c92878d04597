"""The fully connected layers of the reference, and the Convs that stand for them.

The converted model says in its metadata which Conv stands for which layer. Nothing else is taken
from it: where the elements of either's operand come from is found in `places`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.places import NotTraced, Trace, trace
from onnx_fc2conv.equivalence.stored import constant_array
from onnx_fc2conv.equivalence.structure import MOVEMENT, constants
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["LayerPair", "Layers", "NotComparable", "layer_key"]

_FC_OPERATORS = ("Gemm", "MatMul")


class NotComparable(Exception):  # noqa: N818 - a finding, not an error
    """A layer and its Conv have other numbers of elements than they should."""


def layer_key(node: ir.Node) -> str:
    """How the metadata names a layer."""
    return f"{node.op_type} {node.name or node.outputs[0].name}"


@dataclass(frozen=True, eq=False)
class LayerPair:
    """A layer and its Conv, with where their elements come from.

    Attributes:
        layer: The Gemm or MatMul.
        conv: The Conv.
        weight: [K, D], by the elements of the layer's operand.
        kernel: [K, E], by the elements of the Conv's operand.
        alpha: Factor of the product.
        operand: Trace of the layer's operand.
        conv_operand: Trace of the Conv's.
    """

    layer: ir.Node
    conv: ir.Node
    weight: AnyArray
    kernel: AnyArray
    alpha: float
    operand: Trace
    conv_operand: Trace

    def placed(self, weight: AnyArray) -> AnyArray | None:
        """A weight [K, D] by the elements of the Conv's operand; None if one is not among them."""
        positions = {int(label): n for n, label in enumerate(self.conv_operand.places)}
        columns = [positions.get(int(label), -1) for label in self.operand.places]
        if -1 in columns:
            return None
        if len(set(columns)) == len(columns):
            placed = np.zeros((len(weight), self.kernel.shape[1]), weight.dtype)
            placed[:, columns] = weight
            return placed
        total = np.zeros((len(weight), self.kernel.shape[1]))
        np.add.at(total.T, np.array(columns), weight.T.astype(np.float64))
        return total.astype(weight.dtype)

    @cached_property
    def scale(self) -> AnyArray | float:
        """What is folded into the kernel, by the elements of the layer's operand."""
        scale = self.operand.folded_scale(self.conv_operand)
        return (1.0 if scale is None else scale) * self.alpha

    @property
    def folded(self) -> bool:
        """Whether the kernel holds other numbers than the weight: scaled ones, or sums."""
        sums = np.unique(self.operand.places).size < self.operand.places.size
        return sums or bool(np.any(self.scale != 1.0))

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
        """The layers of the reference by what the metadata calls them."""
        graph = self.pair.reference.graph
        return {layer_key(node): node for node in graph if node.op_type in _FC_OPERATORS}

    @cached_property
    def found(self) -> list[tuple[ir.Node | None, ir.Node]]:
        """Every Conv that says that it stands for a layer, with the layer if there is one."""
        return [
            (self.by_name.get(node.metadata_props[ORIGIN]), node)
            for node in self.pair.converted.graph
            if node.op_type == "Conv"
            and node.metadata_props.get(ORIGIN, "").split(" ")[0] in _FC_OPERATORS
        ]

    @cached_property
    def silent(self) -> list[str]:
        """The layers that neither stay nor have a Conv that says that it stands for them."""
        stated = {layer_key(layer) for layer, _ in self.found if layer is not None}
        graph = self.pair.converted.graph
        stay = {layer_key(node) for node in graph if node.op_type in _FC_OPERATORS}
        return [key for key in self.by_name if key not in stated | stay]

    @cached_property
    def _stops(self) -> Mapping[str, str]:
        """Where tracing an operand back ends: names in the reference, and in the converted."""
        products = {
            layer.outputs[0].name or "": conv.outputs[0].name or ""
            for layer, conv in self.found
            if layer is not None
        }
        # A tensor that is only moved may be shared as an output, while the Conv reads what it is
        # of.
        nodes = self.pair.reference.graph
        moved = {v.name for node in nodes if node.op_type in MOVEMENT for v in node.outputs}
        return {one: two for one, two in self.pair.shared.items() if one not in moved} | products

    def read(self, layer: ir.Node, conv: ir.Node) -> LayerPair:
        """Weights and traces of a layer and its Conv.

        Raises:
            NotTraced: If this kind of layer cannot be compared on its own.
            NotComparable: If the two cannot be the same layer.
            Fc2ConvError, RunError, ValueError: If a constant cannot be read.
        """
        pair, stops = self.pair, self._stops
        kernel = constant_array(pair.converted, conv.inputs[1])
        both = LayerPair(
            layer,
            conv,
            _weight(pair, layer),
            kernel.reshape(len(kernel), -1),
            layer.attributes.get_float("alpha", 1.0) if layer.op_type == "Gemm" else 1.0,
            trace(pair, pair.reference, _operand(pair.reference, layer), stops),
            trace(pair, pair.converted, conv.inputs[0], set(stops.values())),
        )
        _require_one_layer(both, stops, kernel.shape)
        return both


def _require_one_layer(both: LayerPair, stops: Mapping[str, str], shape: tuple[int, ...]) -> None:
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
    if rows > 1 and not rest and len(both.kernel) in (len(both.weight), rows * len(both.weight)):
        raise NotTraced(f"the layer is applied to {rows} rows of a sample; other tiers compare it")
    if (
        features != both.weight.shape[1]
        or both.conv_operand.places.size != both.kernel.shape[1]
        or len(both.weight) != len(both.kernel)
        or both.weight.dtype != both.kernel.dtype
    ):
        raise NotComparable(
            f"kernel {both.kernel.dtype}{list(shape)} over {both.conv_operand.places.size} "
            f"elements, weight {both.weight.dtype}{list(both.weight.shape)} over {features}"
        )


def _laid_out(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths that say in which order the elements of a sample lie."""
    return tuple(length for length in shape[1:] if length != 1) if len(shape) > 1 else shape


def _operand(model: ir.Model, layer: ir.Node) -> ir.Value | None:
    """The operand of a Gemm or MatMul that depends on the input."""
    fixed = constants(model.graph)
    return next((v for v in layer.inputs[:2] if v is not None and v not in fixed), None)


def _weight(pair: Pair, layer: ir.Node) -> AnyArray:
    """The layer's weight as [K, D], from the operator's definition."""
    fixed = constants(pair.reference.graph)
    left = layer.inputs[0] in fixed
    weight = constant_array(pair.reference, layer.inputs[0 if left else 1])
    if weight.ndim == 1:
        return weight[None, :]
    weight = weight.reshape(weight.shape[-2:])
    flag = layer.attributes.get_int("transA" if left else "transB", 0)
    return weight if bool(flag) != left else weight.T
