"""The inputs of a head: feature maps, and the mere sizes of other tensors.

Exporters take the batch size of a flattened tensor from the image, ``Shape(image)[0]``: no pixel
counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.tracing.structure import frontier, not_moving, subgraph, with_outputs
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["HeadInputs", "head_inputs", "head_model", "native_shape"]


@dataclass(frozen=True)
class HeadInputs:
    """The shared tensors from which a head computes a tensor.

    Attributes:
        maps: Names of those whose elements it reads.
        sized: Native shapes, by name, of those whose shape alone it reads.
    """

    maps: tuple[str, ...]
    sized: Mapping[str, tuple[int, ...]]


def head_inputs(
    pair: Pair, model: ir.Model, output: ir.Value, shared: Collection[str]
) -> HeadInputs:
    """Find the shared tensors from which a head of one of the models computes ``output``.

    A size that both models compute is not an input of the head: a window has its own.
    """
    sizes = not_moving(model.graph)
    elements = set(shared) - {value.name for value in sizes}
    maps = [name for name in frontier(model.graph, [output], elements, until=sizes) if name]
    every = [name for name in frontier(model.graph, [output], elements) if name]
    sized = {name: native_shape(pair, model, name) for name in every if name not in maps}
    return HeadInputs(tuple(maps), {name: shape for name, shape in sized.items() if shape})


def head_model(
    model: ir.Model,
    maps: Mapping[str, ir.DataType],
    sized: Mapping[str, tuple[int, ...]],
    outputs: Collection[str],
) -> ir.Model:
    """The part of the model from these maps on, on any number of windows.

    Tensors read for their size alone become zeros of native shape, one for each window.
    """
    part = subgraph(model, {**dict.fromkeys(sized), **maps}, outputs)
    values = {value.name: value for value in part.graph.inputs}
    for name in sized.keys() & values.keys():
        part.graph.inputs.remove(values[name])
        nodes = _as_many(values[next(iter(maps))], values[name], sized[name])
        part.graph.insert_before(part.graph[0], nodes)
    return part


def _as_many(samples: ir.Value, sized: ir.Value, shape: Sequence[int]) -> list[ir.Node]:
    """Return nodes that make zeros [N, *shape[1:]], N being the length of axis 0 of ``samples``.

    Every opset from 7 on has their operators.
    """

    def constant(array: AnyArray) -> ir.Value:
        nodes.append(ir.node("Constant", [], {"value": ir.tensor(array)}))
        return nodes[-1].outputs[0]

    def made(op_type: str, *operands: ir.Value) -> ir.Value:
        nodes.append(ir.node(op_type, operands))
        return nodes[-1].outputs[0]

    nodes: list[ir.Node] = []
    one = constant(np.zeros((1, *shape[1:]), np.float32))
    count = made("Gather", made("Shape", samples), constant(np.zeros(1, np.int64)))
    rest = constant(np.ones(len(shape) - 1, np.int64))
    nodes.append(ir.node("Concat", [count, rest], {"axis": 0}))
    many = made("Tile", one, nodes[-1].outputs[0])
    name = sized.name
    sized.name = f"{name}.unused"
    sized.replace_all_uses_with(many)
    many.name = name
    return nodes


def native_shape(pair: Pair, model: ir.Model, name: str) -> tuple[int, ...]:
    """The shape of a tensor of one of the models at the native size."""
    inferred = pair.native_shape(model, name)
    if inferred is not None:
        return inferred
    session = pair.session(with_outputs(model, [name]))
    shapes = pair.batched(pair.fixed_batch or 1)
    feeds: dict[str, AnyArray] = {i.name: np.zeros(shapes[i.name], i.dtype) for i in pair.inputs}
    return session.run(feeds, [name])[name].shape
