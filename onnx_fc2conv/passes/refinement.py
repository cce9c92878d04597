"""The plan of a refinement: which layers lose their stride, and which change after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.passes.dilated_layers import DilatedLayer, Grid, dilated, refuse_dilation
from onnx_fc2conv.views.interpreter import Interpreter
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView, channels_first
from onnx_fc2conv.views.plan import Plan

__all__ = [
    "Refinement",
    "ScaledPad",
    "Thinning",
    "plan_refinement",
    "refined_strides",
    "strides_per_axis",
]


@dataclass(frozen=True, eq=False)
class ScaledPad:
    """A Pad on a denser map.

    Attributes:
        node: The Pad.
        pads: The new amounts, as its attribute or its second input has them.
    """

    node: ir.Node
    pads: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Thinning:
    """A node that pools the whole image, and must see the same cells as before and no others.

    Attributes:
        node: The node.
        factors: Subsampling factor of its input, per spatial axis.
    """

    node: ir.Node
    factors: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Refinement:
    """The changes to a model that bring its windows closer together.

    Attributes:
        layers: Convolutions and poolings with new hyperparameters.
        pads: Pads with new amounts.
        thinnings: Poolings of the whole image.
    """

    layers: tuple[DilatedLayer, ...]
    pads: tuple[ScaledPad, ...]
    thinnings: tuple[Thinning, ...]


def plan_refinement(
    interpreter: Interpreter, plan: Plan, stride: int | tuple[int, ...]
) -> Refinement:
    """Plan the refinement of a model that was interpreted without refusals.

    Raises:
        RefusedError: If nodes cannot be carried to a denser grid.
        ArgumentError: If ``stride`` does not divide the stride of an output, or none has windows.
    """
    _demand_divisor(plan, stride)
    return _Planner(interpreter, plan, stride).run()


def strides_per_axis(stride: int | Sequence[int], rank: int | None = None) -> tuple[int, ...]:
    """Return the stride of each of ``rank`` axes; None accepts any number of strides.

    Raises:
        ArgumentError: If their number does not fit, or one is below 1.
    """
    given = (stride,) if isinstance(stride, int) else tuple(stride)
    text = ",".join(map(str, given))
    if min(given, default=0) < 1:
        raise ArgumentError(f"--stride {text}: windows lie at least one pixel apart")
    if rank is not None and len(given) == 1:
        return given * rank
    if rank not in (None, len(given)):
        raise ArgumentError(f"--stride {text} is for {len(given)} axes, but the images have {rank}")
    return given


def refined_strides(strides: Sequence[int], wanted: int | Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a map after refinement; 0 (one cell for the whole image) stays."""
    if not any(strides):
        return tuple(strides)
    each = strides_per_axis(wanted, len(strides))
    return tuple(gcd(own, one) if own else 0 for own, one in zip(strides, each, strict=True))


def _demand_divisor(plan: Plan, stride: int | tuple[int, ...]) -> None:
    """Check that the windows of every output can come that close.

    Raises:
        ArgumentError: If they cannot.
    """
    slides = False
    for output in plan.outputs:
        strides = tuple(axis.stride for axis in output.feature_map.field)
        slides = slides or any(strides)
        if not any(strides) or not output.feature_map.is_single_cell:
            continue
        wanted = strides_per_axis(stride, len(strides))
        if any(own % one for own, one in zip(strides, wanted, strict=True)):
            one, own = ("×".join(map(str, sizes)) for sizes in (wanted, strides))
            divisors = ", ".join(
                str(n) for n in range(1, gcd(*strides) + 1) if not gcd(*strides) % n
            )
            raise ArgumentError(
                f"--stride {one}: the windows of output {output.value.name!r} lie {own} pixels "
                f"apart; the stride must divide that: one of {divisors}"
            )
    if not slides:
        raise ArgumentError(
            "--stride: no output has windows to bring closer together; a head that pools the whole "
            "image has them with --pool window"
        )


class _Planner:
    """Goes through the nodes, from one grid to the next."""

    def __init__(self, interpreter: Interpreter, plan: Plan, stride: int | tuple[int, ...]) -> None:
        self.interpreter = interpreter
        self.frozen = plan.frozen
        self.stride = stride
        self.layers: list[DilatedLayer] = []
        self.pads: list[ScaledPad] = []
        self.thinnings: list[Thinning] = []

    def run(self) -> Refinement:
        refusals: list[Refusal] = []
        for node in self.interpreter.graph:
            try:
                self._visit(node)
            except RefusedError as error:
                refusals += error.refusals
        if refusals:
            raise RefusedError(refusals)
        return Refinement(tuple(self.layers), tuple(self.pads), tuple(self.thinnings))

    def _grid(self, feature_map: FeatureMap) -> Grid:
        strides = tuple(axis.stride for axis in feature_map.field)
        return Grid(strides, refined_strides(strides, self.stride))

    def _visit(self, node: ir.Node) -> None:
        sources, made = self._maps(node.inputs), self._maps(node.outputs)
        if not sources or not made:
            return
        grids = {self._grid(m) for m in (*sources, *made)}
        if not any(grid.is_denser for grid in grids):
            return
        source, output = sources[0], made[0]
        if output.pooled_by is node:
            self._thin(node, source, output)
        elif self._is_cellwise(node, sources, made):
            return
        elif node.op_type == "Pad" and node.domain == "":
            self._pad(node, source)
        else:
            self._dilate(node, source, output)

    def _maps(self, values: Sequence[ir.Value | None]) -> list[FeatureMap]:
        """The maps that tensors hold or draw on."""
        facts = (self.interpreter.facts.get(value) for value in values if value is not None)
        return [m for fact in facts if isinstance(fact, FeatureView) for m in fact.maps]

    def _is_cellwise(
        self, node: ir.Node, sources: Sequence[FeatureMap], made: Sequence[FeatureMap]
    ) -> bool:
        """Whether cell p of each output is computed from cells p of the inputs, alike for all p."""
        if any(m.mixes_positions == describe(node) for m in made):
            return False
        sliding = [m for m in sources if any(axis.stride for axis in m.field)]
        grids = {(m.extent, tuple(axis.stride for axis in m.field)) for m in (*sliding, *made)}
        seen = _pixels(sources)
        if len(grids) > 1 or any(_pixels([m]) != seen for m in made):
            return False
        facts = (self.interpreter.facts.get(value) for value in node.outputs)
        whole = all(fact.layout is not None for fact in facts if isinstance(fact, FeatureView))
        # Cells of a single position have no order that could be changed.
        return whole or all(m.is_single_cell for m in made)

    def _dilate(self, node: ir.Node, source: FeatureMap, output: FeatureMap) -> None:
        """Plan a sliding layer."""
        opset = self.interpreter.opsets.get(node.domain, 1)
        before, after = self._grid(source), self._grid(output)
        frozen = self.frozen.get(node, {})
        self.layers.append(dilated(node, opset, before, after, source.channels, frozen))

    def _pad(self, node: ir.Node, source: FeatureMap) -> None:
        """Plan a Pad, whose zeros (or other constant) grow by the factor of its map."""
        amounts = node.attributes.get_ints("pads", None)
        given = node.inputs[1] if len(node.inputs) > 1 else None
        fact = None if given is None else self.interpreter.facts.get(given)
        if amounts is None and isinstance(fact, Constant):
            amounts = [int(amount) for amount in fact.array]
        if node.attributes.get_string("mode", "constant") != "constant":
            refuse_dilation(
                node, "it pads with cells from the end of the map, and these move with the size"
            )
        if amounts is None or len(amounts) != 2 * len(source.layout):
            refuse_dilation(node, "it names the axes that it pads")
        factors = (1, 1, *self._grid(source).factors)
        each = [factors[source.layout.index(axis)] for axis in range(len(source.layout))]
        scaled = tuple(p * f for p, f in zip(amounts, each * 2, strict=True))
        if scaled != tuple(amounts):
            self.pads.append(ScaledPad(node, scaled))

    def _thin(self, node: ir.Node, source: FeatureMap, output: FeatureMap) -> None:
        """Plan a pooling of the whole image along some axes."""
        if self._grid(output).is_denser:
            refuse_dilation(node, "it pools the whole image along some axes only")
        if source.layout != channels_first(len(source.layout)):
            refuse_dilation(node, "it pools the whole image, channels last")
        self.thinnings.append(Thinning(node, self._grid(source).factors))


def _pixels(maps: Sequence[FeatureMap]) -> tuple[tuple[int, int], ...]:
    """Return the first pixel that the maps' cells 0 see, and one past the last, per spatial axis.

    Maps of one cell for the whole image are left out, if there are others.
    """
    maps = [m for m in maps if any(axis.stride for axis in m.field)] or maps
    rank = max(len(m.field) for m in maps)
    each = [[m.field[axis] for m in maps if len(m.field) == rank] for axis in range(rank)]
    return tuple(
        (min(f.start for f in along), max(f.start + f.size for f in along)) for along in each
    )
