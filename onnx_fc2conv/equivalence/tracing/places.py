"""Where each element of a layer's operand comes from, found by running the models' own operators.

The models' data movement is run in onnxruntime on numbers that say which element of the feature map
they are. The index that the converter computed is not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.tracing.head_inputs import head_inputs, head_model, native_shape
from onnx_fc2conv.equivalence.tracing.movement import MOVEMENT
from onnx_fc2conv.equivalence.tracing.operands import LAYERS
from onnx_fc2conv.equivalence.tracing.structure import not_moving
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["NotTraced", "Trace", "trace"]

_LARGEST_LABEL = 1 << 24
"""float32 counts to 2^24 without a gap."""

_REARRANGING = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "Where"),
    *("QLinearAdd", "QLinearMul"),
}
_MIXING = {
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "Gemm", "MatMul", "Pad"),
    *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Resize", "Upsample", "Einsum"),
    *("QLinearConv", "QLinearMatMul", "QGemm", "QLinearAveragePool", "QLinearGlobalAveragePool"),
    *("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
}
_SCALING = {"BatchNormalization", "Mul", "Div", "Sub", "Neg"}
_AFFINE = _SCALING | {"Add"}


class NotTraced(Exception):  # noqa: N818 - a reason, not an error
    """The operand of a layer is not a rearrangement of one tensor."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Where the elements of an operand come from.

    Attributes:
        model: The model.
        operand: The operand.
        start: The tensor before it: a feature map of both models, or the product of another layer.
        shape: Shape of ``start`` at the native size.
        batch: Number of samples in it.
        places: For each element of one sample of the operand, row-major, its number in ``start``.
        sized: Native shapes of other tensors before it whose shape alone is read.
    """

    model: ir.Model
    operand: str
    start: str
    shape: tuple[int, ...]
    batch: int
    places: AnyArray
    sized: Mapping[str, tuple[int, ...]]

    def beside(self, other: Trace) -> Counter[str]:
        """The operators between start and operand that compute and that ``other`` lacks.

        An Add right after a product is its layer's bias and does not count.
        """
        more = self._computing() - other._computing()
        consumers = next(v for v in self._part().graph.inputs if v.name == self.start).consumers()
        if self._starts_at_product() and len(consumers) == 1 and consumers[0].op_type == "Add":
            more["Add"] -= 1
        return +more

    def _starts_at_product(self) -> bool:
        made = (node for node in self.model.graph if node.op_type in LAYERS)
        return self.start in {value.name for node in made for value in node.outputs}

    def _computing(self) -> Counter[str]:
        graph = self._part().graph
        fixed = not_moving(graph)
        return Counter(
            node.op_type
            for node in graph
            if node.op_type not in MOVEMENT and any(v not in fixed for v in node.outputs)
        )

    def until(self, name: str, dtype: ir.DataType) -> ir.Model:
        """The model from ``start``, of this type, to a tensor behind it."""
        return head_model(self.model, {self.start: dtype}, self.sized, [name])

    def _part(self) -> ir.Model:
        return self.until(self.operand, ir.DataType.FLOAT)

    def shifted(self, other: Trace) -> bool:
        """Whether something is added between start and operand that ``other`` does not add."""
        return bool({"BatchNormalization", "Sub", "Add"} & set(self.beside(other)))

    def folded_scale(self, other: Trace) -> AnyArray | None:
        """The scale of each element between start and operand, if ``other`` does not scale.

        It is (f(2L) - f(L)) / L, where f applies the operators to a constant.
        """
        if not _SCALING & set(self.beside(other)):
            return None
        session = Session(only_movement(self._part(), keep=_AFFINE))
        length = np.float32(1024)
        one, two = (
            session.run({self.start: np.full(self.shape, factor * length, np.float32)})
            for factor in (1, 2)
        )
        difference = two[self.operand].astype(np.float64) - one[self.operand]
        return one_sample(difference / length, self.batch)


def trace(pair: Pair, model: ir.Model, operand: ir.Value | None, stops: Collection[str]) -> Trace:
    """Follow an operand back to the nearest of the tensors ``stops``.

    A stop that only rearranges a tensor is passed by: a model may keep it beside the Conv.

    Raises:
        NotTraced: If it draws on none or on several, or on more elements than float32 can count.
    """
    if operand is None:
        raise NotTraced("no operand of the layer depends on the input")
    passed_by = {
        value.name for node in model.graph if node.op_type in _REARRANGING for value in node.outputs
    }
    read = head_inputs(pair, model, operand, set(stops) - passed_by)
    if len(read.maps) != 1:
        raise NotTraced(f"reads {len(read.maps)} tensors at once; the other tiers compare it")
    (start,) = read.maps
    batch = pair.fixed_batch or 1
    shape = native_shape(pair, model, start)
    size = int(np.prod(shape))
    if size % batch or not size:
        raise NotTraced(f"{start} {list(shape)} does not hold {batch} samples")
    if size > _LARGEST_LABEL:
        raise NotTraced("the feature map has more elements than float32 can count")
    # With a batch of one the export may have dropped the batch axis: all elements are one sample's.
    labels = np.tile(np.arange(size // batch, dtype=np.float32), batch).reshape(shape)
    name = operand.name or ""
    if name == start:
        return Trace(model, name, start, shape, batch, labels.reshape(batch, -1)[0], {})
    if read.sized and shape[0] != batch:
        raise NotTraced("its samples are not on the first axis; the other tiers compare it")
    part = head_model(model, {start: ir.DataType.FLOAT}, read.sized, [name])
    session = Session(only_movement(part))
    moved = session.run({start: labels}, [name])[name]
    if (session.run({start: -1 - labels}, [name])[name] != -1 - moved).any():
        raise NotTraced("constants are among its elements; the other tiers compare it")
    return Trace(model, name, start, shape, batch, one_sample(moved, batch), read.sized)


def one_sample(array: AnyArray, batch: int) -> AnyArray:
    """The elements of the first sample, whose axis is the first or the last."""
    samples_first: AnyArray = array if array.shape[:1] == (batch,) else array.T
    return samples_first.reshape(-1)[: array.size // batch]


def only_movement(model: ir.Model, keep: Collection[str] = ()) -> ir.Model:
    """The model with every operator that computes taken out: it hands its input through.

    Args:
        model: The model, which is changed.
        keep: Operators that stay although they compute.
    """
    fixed = not_moving(model.graph)
    for node in list(model.graph):
        if node.op_type == "Concat" and 0 < len(fixed & set(node.inputs)) < len(node.inputs):
            raise NotTraced("constants are joined with its features; the other tiers compare it")
        if node.op_type in MOVEMENT or all(output in fixed for output in node.outputs):
            continue
        moving = [v for v in node.inputs if v is not None and v not in fixed]
        if node.op_type in keep and len(moving) == 1:
            continue
        if node.op_type in _MIXING or node.op_type.startswith("Reduce"):
            raise NotTraced(f"{node.op_type} {node.name or ''} lies before it in one model only")
        if len(moving) != 1 and node.op_type not in _ELEMENTWISE:
            continue
        through = ir.node("Identity", [moving[0]])
        model.graph.insert_before(node, through)
        node.outputs[0].replace_all_uses_with(through.outputs[0], replace_graph_outputs=True)
        through.outputs[0].name = node.outputs[0].name
        node.outputs[0].name = f"{through.outputs[0].name}.unused"
        model.graph.remove(node, safe=True)
    return model
