"""Applying a plan: dull on purpose, everything was decided before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.graphs.names import ORIGIN, NameScope, describe
from onnx_fc2conv.graphs.operators import CONVOLUTIONS
from onnx_fc2conv.graphs.writer import GraphWriter
from onnx_fc2conv.passes.pointwise import write_pointwise
from onnx_fc2conv.views.maps.view import FeatureMap
from onnx_fc2conv.views.plan import (
    AttributeValue,
    ConstantTensor,
    Intermediate,
    OutputMap,
    Plan,
    PointwiseLayer,
    Rebuilt,
    Step,
)

__all__ = ["ORIGIN", "apply", "write_attributes"]


def apply(plan: Plan, model: ir.Model) -> bool:
    """Carry the plan out on the model that it was made for; return whether anything changed."""
    builder = _Builder(model)
    listed = [value for value in model.graph.inputs if value.uses()]
    for node, attributes in plan.frozen.items():
        write_attributes(node, attributes)
    for step in plan.steps:
        builder.add(step)
    for output in plan.outputs:
        if not output.stays:
            builder.replace_output(output)
    for value, feature_map in plan.materialized.items():
        builder.replace(value, feature_map)
    for value, tensor in plan.replaced.items():
        builder.replace_number(value, tensor)
    for again in plan.rebuilt:
        builder.rebuild(again)
    for layer in plan.pointwise:
        builder.pointwise(layer)
    changed = bool(
        plan.frozen
        or plan.steps
        or plan.pointwise
        or not all(output.stays for output in plan.outputs)
    )
    if changed:
        RemoveUnusedNodesPass()(model)
        builder.restore_names()
        _drop_initializer_inputs(model.graph, listed)
        model.graph.sort()
    return changed


class _Builder:
    """Adds the steps' nodes to the graph, each right before the node that it replaces."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.writer = GraphWriter(model)
        self.values: dict[FeatureMap | Intermediate, ir.Value] = {}
        self.names: list[tuple[ir.Value, str]] = []
        self.named: dict[ir.Node, ir.Node] = {}

    def add(self, step: Step) -> None:
        inputs = [self._input(operand, step.source) for operand in step.inputs]
        attributes = [
            *(step.source.attributes[name] for name in step.carried),
            *_attributes(step.attributes),
        ]
        made = (step.output, *step.further)
        name = self._node_name(step)
        node = ir.node(step.op_type, inputs, domain=step.domain, name=name, num_outputs=len(made))
        if name and name == step.source.name:
            self.named[step.source] = node
        for attribute in attributes:
            node.attributes.add(attribute)
        self.writer.before(step.source, {ORIGIN: describe(step.source)}).put(node)
        for output, tensor in zip(node.outputs, made, strict=True):
            output.type = ir.TensorType(tensor.dtype)
            if isinstance(tensor, FeatureMap):
                cells = (None if a.stride else 1 for a in tensor.field)
                output.shape = ir.Shape([None, tensor.channels, *cells])
            self.values[tensor] = output
            self.names.append((output, tensor.name))

    def _node_name(self, step: Step) -> str | None:
        """Return the name of the replaced node, or of its tensor where one became several."""
        source = step.source
        if not source.name:
            return None
        if step.op_type in (source.op_type, *CONVOLUTIONS) and source not in self.named:
            return source.name
        return step.output.name if step.output.name != source.name else None

    def replace(self, value: ir.Value, feature_map: FeatureMap) -> None:
        """Let every node that reads the tensor read the map."""
        source = value.producer()
        assert source is not None
        restored = self._input(feature_map, source)
        assert restored is not None
        value.replace_all_uses_with(restored)

    def replace_number(self, value: ir.Value, tensor: Intermediate) -> None:
        """Let the readers of a tensor beside the maps read the step's output instead."""
        made = self.values[tensor]
        value.replace_all_uses_with(made, replace_graph_outputs=True)
        self._rename(made, value.name or "")

    def rebuild(self, again: Rebuilt) -> None:
        """Make a tensor of the original from maps [N, C, *spatial] of the native size.

        Flatten the maps, pick the elements unless they are all of one in order, and reshape.
        """
        source = again.value.producer()
        assert source is not None
        name = again.value.name or "tensor"
        values = [self._materialized(source, feature_map) for feature_map in again.sources]
        at = self.writer.after(source)
        value, count = values[0], again.elements.size
        total = sum(feature_map.size for feature_map in again.sources)
        picks = count != total or (again.elements != np.arange(count)).any()
        if len(values) > 1 or picks:
            values = [at.node("Flatten", v, axis=1) for v in values]
            value = at.node("Concat", *values, axis=1) if len(values) > 1 else values[0]
        if picks:
            indices = self.writer.constant(f"{name}.elements", again.elements)
            value = at.node("Gather", value, indices, axis=1)
        axis = again.batch_axis
        samples = () if axis is None else (-1,)
        shape = np.array([*samples, *again.shape], np.int64)
        value = at.node("Reshape", value, self.writer.constant(f"{name}.shape", shape))
        if axis:
            rest = [*range(1, len(again.shape) + 1)]
            rest.insert(axis, 0)
            value = at.transpose(value, rest)
        value.type = again.value.type
        value.shape = again.value.shape
        again.value.replace_all_uses_with(value, replace_graph_outputs=True)
        self.names.insert(0, (value, name))

    def _materialized(self, source: ir.Node, feature_map: FeatureMap) -> ir.Value:
        """Return the map [N, C, *spatial], with its deferred scale and shift carried out."""
        value = self._input(feature_map.base or feature_map, source)
        assert value is not None
        if feature_map.deferred is None:
            return value
        at = self.writer.after(source)
        waiting = (("Mul", feature_map.deferred.scale), ("Add", feature_map.deferred.shift))
        for op_type, affine in waiting:
            array = affine.reshape(feature_map.per_sample_shape).astype(feature_map.dtype.numpy())
            stored = self.writer.constant(f"{feature_map.name}.{op_type.lower()}", array)
            value = at.node(op_type, value, stored)
        return value

    def pointwise(self, layer: PointwiseLayer) -> None:
        """Let a layer be a Conv in its own place."""
        self.names.insert(0, write_pointwise(self.writer, layer))

    def replace_output(self, output: OutputMap) -> None:
        """Make the map the graph output that the value was; its name stays."""
        tensor = output.tensor or output.feature_map
        value = self.values.get(tensor)
        taken = value is None or value.is_graph_output()
        if value is None or taken:
            source = output.value.producer()
            assert source is not None
            operand = self._input(tensor, source)
            value = self.writer.after(source).node("Identity", operand)
            value.type = ir.TensorType(output.feature_map.dtype)
        for position, current in enumerate(self.graph.outputs):
            if current is output.value:
                self.graph.outputs[position] = value
        self._rename(value, output.value.name or "")

    def _rename(self, value: ir.Value, name: str) -> None:
        """Give the tensor this name before any other."""
        self.names = [(named, other) for named, other in self.names if named is not value]
        self.names.insert(0, (value, name))

    def restore_names(self) -> None:
        """Give the new tensors the names of those that they replace, now that these are gone."""
        taken = {v.name for node in self.graph for v in node.outputs}
        taken |= {v.name for v in self.graph.inputs} | set(self.graph.initializers)
        for value, name in self.names:
            if name and name not in taken:
                taken.add(name)
                value.name = name
        names = NameScope.of(self.graph)
        for source, node in self.named.items():
            both_stay = source.graph is not None and node.graph is not None
            if both_stay:
                node.name = names.fresh(node.name or "")

    def _input(
        self, operand: FeatureMap | Intermediate | ConstantTensor | ir.Value | None, source: ir.Node
    ) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, ConstantTensor):
            return self.writer.stored(operand.name, operand.make)
        if operand not in self.values:
            assert isinstance(operand, FeatureMap)
            assert operand.value is not None
            at = self.writer.before(source, typed=True)
            whole = at.unsqueeze(operand.value, operand.lacks)
            self.values[operand] = at.transpose(whole, operand.layout)
        return self.values[operand]


def _attributes(values: Mapping[str, AttributeValue | None]) -> Iterable[ir.Attr]:
    return ir.convenience.convert_attributes(
        {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }
    )


def write_attributes(node: ir.Node, values: Mapping[str, AttributeValue | None]) -> None:
    """Write attributes into a node; None removes one."""
    for name, value in values.items():
        if value is None:
            node.attributes.pop(name, None)
    for attribute in _attributes(values):
        node.attributes.add(attribute)


def _drop_initializer_inputs(graph: ir.Graph, used: Iterable[ir.Value]) -> None:
    """Until IR version 3 every initializer is listed as an input: unlist those now without use."""
    for value in used:
        name = value.name or ""
        if name in graph.initializers and not value.uses() and not value.is_graph_output():
            graph.inputs.remove(value)
            del graph.initializers[name]
