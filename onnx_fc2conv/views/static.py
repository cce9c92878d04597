"""Interpreting a model for static mode: interface and sizes stay, FC layers become Conv.

The rules are those of dense mode. What differs is what a refusal means: the node stays, its input
is made anew from the map that it is a view of, and what it computes starts a new map.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.views.inputs import InputShapes
from onnx_fc2conv.views.interpreter import Interpreter
from onnx_fc2conv.views.known import Opaque
from onnx_fc2conv.views.plan import FC_OPERATORS, LeftAlone, Plan, Rebuilt
from onnx_fc2conv.views.rules.registry import node_name
from onnx_fc2conv.views.view import FeatureMap, FeatureView, Mixed, channels_first

__all__ = ["interpret_statically"]


def interpret_statically(model: ir.Model, input_shapes: InputShapes | None = None) -> Plan:
    """Find out which fully connected layers become convolutions where everything else stays.

    Arguments and errors are those of `interpret`; the plan has no refusals.
    """
    return _StaticInterpreter(model, input_shapes or {}).run()


class _StaticInterpreter(Interpreter):
    """A walk over the graph in which a refused node stays as it is."""

    static = True

    def __init__(self, model: ir.Model, given: InputShapes) -> None:
        super().__init__(model, given)
        self.native = _native_value_shapes(model, self.shapes, self.batches.native)

    def run(self) -> Plan:
        """The plan: nothing is frozen, restored or refused; tensors are rebuilt where needed."""
        plan = super().run()
        rebuilt = self._rebuilt()
        return Plan(
            steps=plan.steps,
            outputs=(),
            inputs=plan.inputs,
            layers=plan.layers,
            left_alone=plan.left_alone,
            frozen={},
            restored={},
            refusals=(),
            rebuilt=rebuilt,
            replaced=plan.replaced,
        )

    def _refused(self, node: ir.Node, refusal: Refusal) -> None:
        """The node stays; an output of rank 3 or more starts a new map."""
        if node.op_type in FC_OPERATORS:
            self.left_alone.append(LeftAlone(node_name(node), refusal.reason))
        for value in node.outputs:
            new = self._new_map(value)
            self.facts[value] = (
                Opaque(from_image=True)
                if new is None
                else FeatureView.of(new, self.space, self.batches)
            )

    def _output(self, value: ir.Value) -> None:
        """Outputs stay as they are."""

    def _new_map(self, value: ir.Value) -> FeatureMap | None:
        """The tensor as a map [N, C, *spatial], which it is as good as any other at one size."""
        shape = self.native.get(value.name or "", ())
        if len(shape) < 3 or shape[0] != self.batches.native or value.dtype is None:
            return None
        _, channels, *extent = shape
        return self.space.add(
            FeatureMap(
                name=value.name or "",
                channels=channels,
                extent=tuple(extent),
                dtype=value.dtype,
                field=(AxisField(),) * len(extent),
                first_label=self.space.reserve(int(np.prod(shape[1:]))),
                layout=channels_first(len(shape)),
                value=value,
            )
        )

    def _rebuilt(self) -> tuple[Rebuilt, ...]:
        """The tensors that nodes which stay read, or that are outputs, but that only maps hold now.

        From the outputs back: whatever is a view of a map that a step makes is rebuilt, and what
        leads to it is not needed any more.
        """
        rebuilt: list[Rebuilt] = []
        queue = list(dict.fromkeys(self.graph.outputs))
        seen = set(queue)
        for value in queue:
            again = self._rebuild(value)
            if again is not None:
                rebuilt.append(again)
                continue
            node = None if value in self.replaced else value.producer()
            for operand in () if node is None else node.inputs:
                if operand is not None and operand not in seen:
                    seen.add(operand)
                    queue.append(operand)
        return tuple(rebuilt)

    def _rebuild(self, value: ir.Value) -> Rebuilt | None:
        """How to make the tensor from the map that it is a view of; None if it need not be made.

        A tensor whose map is not made by a step, whose map waits for a scale, or that draws on
        several maps stays with the nodes that it had.
        """
        fact = self.facts.get(value)
        if not isinstance(fact, FeatureView):
            return None
        source = fact.only_map
        if source is None or source.value is not None or source.pending is not None:
            return None
        try:
            index, axis = fact.local_index(source), fact.batch_axis
        except Mixed:
            return None
        return Rebuilt(value, source, index.reshape(-1), index.shape, axis)


def _native_value_shapes(
    model: ir.Model, inputs: dict[str, tuple[int | None, ...]], batch: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor at the native size, as far as ONNX shape inference knows it."""
    copy = model.clone()
    for value in copy.graph.inputs:
        shape = inputs.get(value.name or "")
        if shape is not None:
            value.shape = ir.Shape([batch if dim is None else dim for dim in shape])
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    return {
        value.name or "": tuple(value.shape.numpy())
        for node in copy.graph
        for value in node.outputs
        if value.shape is not None and value.shape.is_static()
    }
