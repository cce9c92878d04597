"""ReduceOutputs: the mean or the maximum of all windows, one vector an image again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.graphs.names import NameScope, describe
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.views import OutputMap, interpret

__all__ = ["Reduce", "ReduceOutputs"]

Reduce = Literal["none", "mean", "max"]
"""What is taken over all positions of an output map."""

_OPERATORS = {"mean": "ReduceMean", "max": "ReduceMax"}


@dataclass(frozen=True)
class ReduceOutputs(ir.passes.InPlacePass):
    """Reduce each output map [N, K, *spatial] over all of its positions to [N, K].

    (The dense evaluation of Simonyan & Zisserman 2015, section 3.2, averages the scores.)

    1. An output that is a map of a single cell at the native size gets a ReduceMean or ReduceMax
       over its spatial axes, in whichever layout it is; its name stays. At the native size it
       computes what it did.
    2. An output that is a larger map at the native size (a feature map of the original) and one
       that is no map any more, as after this pass, are left alone.
    3. An output of integers (the number of a class) is refused: it has no mean.

    Run it after `FcToConv`, before or after `FreeInputSize`.

    Attributes:
        reduce: ``"mean"``, ``"max"``, or ``"none"``: then nothing is done.
        input_shapes: Native shape by input name, where the model's own is symbolic.

    Raises:
        RefusedError: If an output cannot be reduced (then nothing is changed).
        ArgumentError: If a native size is missing or does not fit, or ``reduce`` is another word.
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
        refusals = (*plan.refusals, *(r for output in maps if (r := _refusal(output)) is not None))
        if refusals:
            raise RefusedError(refusals)
        for output in maps:
            self._append(model.graph, output)
        return ir.passes.PassResult(model, modified=bool(maps))

    def _append(self, graph: ir.Graph, output: OutputMap) -> None:
        """The reduction takes over the output and its name."""
        names = NameScope.of(graph)
        cells, name = output.value, output.value.name or "output"
        op_type, axes = _OPERATORS[self.reduce], sorted(output.spatial_axes)
        inputs: list[ir.Value] = [cells]
        attributes: dict[str, int | list[int]] = {"keepdims": 0}
        if graph.opset_imports[""] < 18:
            attributes["axes"] = axes
        else:
            inputs.append(_stored(graph, names.fresh(f"{name}.positions"), axes))
        node = ir.node(op_type, inputs, attributes, name=names.fresh(f"{name}.{self.reduce}"))
        reduced = node.outputs[0]
        reduced.type = cells.type
        if cells.shape is not None:
            kept = [dim for axis, dim in enumerate(cells.shape) if axis not in axes]
            reduced.shape = ir.Shape(kept)
        graph.append(node)
        for position, current in enumerate(graph.outputs):
            if current is cells:
                graph.outputs[position] = reduced
        cells.name = names.fresh(f"{name}.map")
        reduced.name = name


def _is_map_of_cells(output: OutputMap) -> bool:
    """Whether the output is, in the model itself, a map with one cell at the native size."""
    made = output.value.producer() is not None
    return output.stays and made and output.feature_map.is_cell


def _refusal(output: OutputMap) -> Refusal | None:
    """Why a map cannot be reduced, if it cannot."""
    dtype, node = output.feature_map.dtype, output.value.producer()
    if node is None or dtype.is_floating_point():
        return None
    return Refusal(
        "reduced-integers",
        node.metadata_props.get(ORIGIN, describe(node)),
        f"output {output.value.name!r} holds {dtype}, of which a mean or maximum over positions "
        "says nothing",
    )


def _stored(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    tensor = ir.tensor(np.array(numbers, np.int64), name=name)
    value = ir.val(name, dtype=tensor.dtype, shape=[len(numbers)], const_value=tensor)
    graph.register_initializer(value)
    return value
