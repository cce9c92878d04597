"""ReduceOutputs: the mean or the maximum of all windows, one vector an image again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.graphs.names import ORIGIN, describe
from onnx_fc2conv.graphs.writer import GraphWriter
from onnx_fc2conv.options import Reduce
from onnx_fc2conv.views import OutputMap, interpret

__all__ = ["ReduceOutputs"]

_OPERATORS = {"mean": "ReduceMean", "max": "ReduceMax"}


@dataclass(frozen=True)
class ReduceOutputs(ir.passes.InPlacePass):
    """Reduce each output map [N, K, *spatial] over all of its positions to [N, K].

    (The dense evaluation of Simonyan & Zisserman 2015, section 3.2, averages the scores.)

    1. An output that is a map of a single cell at the native size gets a ReduceMean or ReduceMax
       over its spatial axes, in its own layout; its name stays. At the native size it
       computes the same as before.
    2. An output that is a larger map at the native size (a feature map of the original), or no map
       any more, as after this pass, is left alone.
    3. An output of integers (the index of a class) is refused: its mean says nothing.

    Run it after `FcToConv`, before or after `FreeInputSize`.

    Attributes:
        reduce: ``"mean"``, ``"max"``, or ``"none"``: then nothing is done.
        input_shapes: Native shape by input name, where the model's own is symbolic.

    Raises:
        RefusedError: If an output cannot be reduced (then nothing is changed).
        ArgumentError: If a native size is missing or does not fit, or ``reduce`` is not valid.
    """

    reduce: Reduce = "mean"
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reduce not in get_args(Reduce):
            listed = ", ".join(map(repr, get_args(Reduce)))
            raise ArgumentError(f"there is no reduce {self.reduce!r}; it is one of {listed}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Find the output maps, then append a node to each."""
        if self.reduce == "none":
            return ir.passes.PassResult(model, modified=False)
        plan = interpret(model, self.input_shapes)
        maps = [output for output in plan.outputs if _is_map_of_cells(output)]
        refusals = (*plan.refusals, *_integers(maps))
        if refusals:
            raise RefusedError(refusals)
        writer = GraphWriter(model)
        for output in maps:
            self._append(writer, output)
        return ir.passes.PassResult(model, modified=bool(maps))

    def _append(self, writer: GraphWriter, output: OutputMap) -> None:
        """The reduction takes over the output and its name."""
        outputs = writer.graph.outputs
        cells, name = output.value, output.value.name or "output"
        axes = sorted(output.spatial_axes)
        at = writer.at_end()
        reduced = at.reduce(_OPERATORS[self.reduce], cells, axes, name=f"{name}.{self.reduce}")
        reduced.type = cells.type
        if cells.shape is not None:
            kept = [dim for axis, dim in enumerate(cells.shape) if axis not in axes]
            reduced.shape = ir.Shape(kept)
        outputs[:] = [reduced if current is cells else current for current in outputs]
        cells.name = writer.names.fresh(f"{name}.map")
        reduced.name = name


def _is_map_of_cells(output: OutputMap) -> bool:
    """Whether the output is, in the model itself, a map with one cell at the native size."""
    made = output.value.producer() is not None
    return output.stays and made and output.feature_map.is_single_cell


def _integers(maps: Sequence[OutputMap]) -> list[Refusal]:
    """A refusal for each map of integers, of which no mean or maximum can be taken."""
    return [
        Refusal(
            "reduced-integers",
            node.metadata_props.get(ORIGIN, describe(node)),
            f"output {output.value.name!r} holds {output.feature_map.dtype}, of which a mean or "
            "maximum over positions says nothing",
        )
        for output in maps
        if (node := output.value.producer()) is not None
        and not output.feature_map.dtype.is_floating_point()
    ]
