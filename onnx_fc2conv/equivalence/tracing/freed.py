"""The original without its fixed size: run on larger images, as far as it computes there.

Two kinds of layers compute something else on a larger image than they do inside a window:
``auto_pad=SAME_*`` pads as much as the size asks, ``ceil_mode`` adds a cell where the size leaves a
remainder. They get the pads that they have at the native size, worked out from the operators'
definitions. Nothing is asked of the converted model, or of the code that converted it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.tracing.structure import subgraph, with_outputs
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Freed", "native_pads"]

_OWN_NAME = "fc2conv.node"
_MOST_FAILURES = 16
"""Nodes that may fail one after the other before the rest of the model is given up."""


class Freed:
    """The original, or the one rounded otherwise (`Pair.jittery`), on images of any size.

    Attributes:
        fails: Tensors that it does not compute on a larger image.
    """

    def __init__(self, pair: Pair, model: ir.Model) -> None:
        self.pair = pair
        self.fails: set[str] = set()
        self._model = model.clone()
        for number, node in enumerate(self._model.graph):
            node.name = f"{_OWN_NAME}{number}."
        self._nodes = list(self._model.graph)
        self._session: Session | None = None
        _write_pads(pair, self._model)

    def run(self, feeds: Mapping[str, AnyArray], names: Sequence[str]) -> dict[str, AnyArray]:
        """Those of the tensors that it computes on these inputs, samples on the first axis."""
        types = {i.name: ir.DataType.from_numpy(i.dtype) for i in self.pair.inputs}
        for _ in range(_MOST_FAILURES):
            wanted = tuple(name for name in names if name not in self.fails)
            if not wanted:
                break
            try:
                if self._session is None or not set(wanted) <= set(self._session.outputs):
                    self._session = self.pair.session(subgraph(self._model, types, wanted))
                return run_in_batches(self._session, feeds, wanted, self.pair.fixed_batch)
            except ValueError:  # not all have samples on their first axis
                self.fails |= self._without_samples(feeds, wanted)
            except (RunError, InvalidModelError) as error:
                number = re.search(rf"{re.escape(_OWN_NAME)}(\d+)\.", str(error.__cause__))
                if number is None:
                    break
                self._session = None
                self.fails |= _after(self._nodes[int(number[1])])
        self.fails.update(names)
        return {}

    def _without_samples(self, feeds: Mapping[str, AnyArray], names: Sequence[str]) -> set[str]:
        """Those of the tensors that have no axis for samples in front; all if that is not known."""
        count = next(len(array) for array in feeds.values() if array.ndim > 1)
        batch = self.pair.fixed_batch or min(count, 1)
        rows = np.minimum(np.arange(batch), count - 1)
        given = {n: array[rows] if array.ndim > 1 else array for n, array in feeds.items()}
        assert self._session is not None
        made = self._session.run(given, names)
        return {name for name in names if made[name].shape[:1] != (batch,)} or set(names)


def _after(node: ir.Node) -> set[str]:
    """The names of all tensors that are computed from a node's outputs, and of the outputs."""
    found = dict.fromkeys(node.outputs)
    queue = list(found)
    for value in queue:
        for consumer in value.consumers():
            queue += [made for made in consumer.outputs if made not in found]
            found.update(dict.fromkeys(consumer.outputs))
    return {value.name or "" for value in found}


def _write_pads(pair: Pair, model: ir.Model) -> None:
    """Give layers whose pads depend on the size of the image those of the native size."""
    dependent = [node for node in model.graph if _depends_on_size(node) and node.inputs[0]]
    extents = _extents(pair, {node.inputs[0].name or "" for node in dependent if node.inputs[0]})
    for node in dependent:
        operand, weight = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        assert operand is not None
        shape = () if weight is None or weight.shape is None else tuple(weight.shape)[2:]
        pads = native_pads(node, extents[operand.name or ""], shape)
        for attribute in ("auto_pad", "ceil_mode", "pads"):
            node.attributes.pop(attribute, None)
        node.attributes.add(ir.AttrInt64s("pads", pads))


def _depends_on_size(node: ir.Node) -> bool:
    """Whether the layer pads otherwise at another size; with stride 1, SAME does not."""
    strides = node.attributes.get_ints("strides", ()) or (1,)
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    return bool(node.attributes.get_int("ceil_mode", 0)) or (same and max(strides) > 1)


def _extents(pair: Pair, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Spatial sizes of tensors [N, C, *spatial] of the reference at the native size."""
    if not names:
        return {}
    shapes = pair.batched(pair.fixed_batch or 1)
    feeds: dict[str, AnyArray] = {i.name: np.zeros(shapes[i.name], i.dtype) for i in pair.inputs}
    got = pair.session(with_outputs(pair.reference, names)).run(feeds, list(names))
    return {name: array.shape[2:] for name, array in got.items()}


def native_pads(node: ir.Node, extent: Sequence[int], weight: Sequence[object] = ()) -> list[int]:
    """The pads that a layer has on a map of this extent, all leading ones first.

    ``SAME`` pads so that there are ceil(extent / stride) cells, the odd one at the end (UPPER) or
    the start (LOWER). ``ceil_mode`` rounds the number of cells up, if the last one starts within
    the map or its leading padding, and pads so that it is whole (Conv-11, MaxPool-12).

    Args:
        node: The layer.
        extent: Spatial size of its input.
        weight: Spatial size of its kernel, if it does not say.
    """
    rank = len(extent)
    attributes = node.attributes
    given = tuple(length for length in weight if isinstance(length, int)) or (1,) * rank
    kernel = attributes.get_ints("kernel_shape", ()) or given
    strides = attributes.get_ints("strides", ()) or (1,) * rank
    dilations = attributes.get_ints("dilations", ()) or (1,) * rank
    pads = attributes.get_ints("pads", ()) or (0,) * (2 * rank)
    auto_pad = attributes.get_string("auto_pad", "NOTSET")
    leading: list[int] = []
    trailing: list[int] = []
    for axis, length in enumerate(extent):
        span, stride = (kernel[axis] - 1) * dilations[axis] + 1, strides[axis]
        first, last = pads[axis], pads[rank + axis]
        if auto_pad.startswith("SAME"):
            total = max((-(-length // stride) - 1) * stride + span - length, 0)
            first = (total + 1) // 2 if auto_pad == "SAME_LOWER" else total // 2
            last = total - first
        elif auto_pad == "VALID":
            first = last = 0
        if attributes.get_int("ceil_mode", 0):
            cells = -(-(length + first + last - span) // stride) + 1
            if (cells - 1) * stride >= length + first:
                cells -= 1
            last += max((cells - 1) * stride + span - (length + first + last), 0)
        leading.append(first)
        trailing.append(last)
    return leading + trailing
