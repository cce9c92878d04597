"""Applying a plan: dull on purpose, everything was decided before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.views.labels import IntArray
from onnx_fc2conv.views.plan import (
    ORIGIN,
    AttributeValue,
    Constant,
    Intermediate,
    OutputMap,
    Plan,
    Rebuilt,
    Step,
)
from onnx_fc2conv.views.rules import NameScope, describe
from onnx_fc2conv.views.view import FeatureMap, channels_first

__all__ = ["ORIGIN", "apply"]


def apply(plan: Plan, model: ir.Model) -> bool:
    """Carry the plan out on the model that it was made for. True if anything changed."""
    builder = _Builder(model.graph, lists_initializers=(model.ir_version or 10) < 4)
    listed = [value for value in model.graph.inputs if value.uses()]
    for node, attributes in plan.frozen.items():
        _freeze(node, attributes)
    for step in plan.steps:
        builder.add(step)
    for output in plan.outputs:
        if not output.stays:
            builder.replace_output(output)
    for value, feature_map in plan.restored.items():
        builder.replace(value, feature_map)
    for again in plan.rebuilt:
        builder.rebuild(again)
    changed = bool(plan.frozen or plan.steps or not all(output.stays for output in plan.outputs))
    if changed:
        RemoveUnusedNodesPass()(model)
        builder.restore_names()
        _drop_initializer_inputs(model.graph, listed)
        model.graph.sort()
    return changed


class _Builder:
    """Adds the steps' nodes to the graph, each right before the node that it stands for."""

    def __init__(self, graph: ir.Graph, *, lists_initializers: bool) -> None:
        self.graph = graph
        self.lists_initializers = lists_initializers
        self.values: dict[FeatureMap | Intermediate, ir.Value] = {}
        self.constants: dict[str, ir.Value] = {}
        self.names: list[tuple[ir.Value, str]] = []
        self.named: set[ir.Node] = set()

    def add(self, step: Step) -> None:
        inputs = [self._input(operand, step.source) for operand in step.inputs]
        attributes = [
            *(step.source.attributes[name] for name in step.carried),
            *_attributes(step.attributes),
        ]
        made = (step.output, *step.further)
        node = ir.node(step.op_type, inputs, name=self._node_name(step), num_outputs=len(made))
        for attribute in attributes:
            node.attributes.add(attribute)
        node.metadata_props[ORIGIN] = describe(step.source)
        self.graph.insert_before(step.source, node)
        for output, tensor in zip(node.outputs, made, strict=True):
            output.type = ir.TensorType(tensor.dtype)
            if isinstance(tensor, FeatureMap):
                cells = (None if a.stride else 1 for a in tensor.field)
                output.shape = ir.Shape([None, tensor.channels, *cells])
            self.values[tensor] = output
            self.names.append((output, tensor.name))

    def _node_name(self, step: Step) -> str | None:
        """The name of the node that the step stands for; its tensor's where one became several."""
        source = step.source
        if not source.name:
            return None
        if step.op_type in (source.op_type, "Conv") and source not in self.named:
            self.named.add(source)
            return source.name
        return step.output.name if step.output.name != source.name else None

    def replace(self, value: ir.Value, feature_map: FeatureMap) -> None:
        """Let every node that reads the tensor read the map."""
        source = value.producer()
        assert source is not None
        restored = self._input(feature_map, source)
        assert restored is not None
        value.replace_all_uses_with(restored)

    def rebuild(self, again: Rebuilt) -> None:
        """Make a tensor of the original from a map [N, C, *spatial] of the native size.

        Flatten the map, pick the elements unless they are all of it in order, and reshape.
        """
        source = again.value.producer()
        assert source is not None
        value = self._input(again.source, source)
        assert value is not None
        name = again.value.name or "tensor"
        count = again.elements.size
        if not (count == again.source.size and (again.elements == np.arange(count)).all()):
            value = self._after(source, "Flatten", [value], {"axis": 1})
            indices = self._stored(f"{name}.elements", again.elements)
            value = self._after(source, "Gather", [value, indices], {"axis": 1})
        axis = again.batch_axis
        samples = () if axis is None else (-1,)
        shape = self._stored(f"{name}.shape", np.array([*samples, *again.shape], np.int64))
        value = self._after(source, "Reshape", [value, shape], {})
        if axis:
            rest = [*range(1, len(again.shape) + 1)]
            rest.insert(axis, 0)
            value = self._after(source, "Transpose", [value], {"perm": rest})
        value.type = again.value.type
        value.shape = again.value.shape
        again.value.replace_all_uses_with(value, replace_graph_outputs=True)
        self.names.insert(0, (value, name))

    def _after(
        self,
        source: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        attributes: Mapping[str, int | list[int]],
    ) -> ir.Value:
        node = ir.node(op_type, inputs, dict(attributes))
        self.graph.insert_after(source, node)
        return node.outputs[0]

    def _stored(self, name: str, array: IntArray) -> ir.Value:
        fresh = NameScope.of(self.graph).fresh(name)
        return self._constant(Constant(fresh, array.shape, lambda: ir.Tensor(array)))

    def replace_output(self, output: OutputMap) -> None:
        """Make the map the graph output that the value was; its name stays."""
        tensor = output.tensor or output.feature_map
        value = self.values.get(tensor)
        taken = value is None or value.is_graph_output()
        if value is None or taken:
            source = output.value.producer()
            assert source is not None
            node = ir.node("Identity", [self._input(tensor, source)])
            self.graph.insert_after(source, node)
            value = node.outputs[0]
            value.type = ir.TensorType(output.feature_map.dtype)
        for position, current in enumerate(self.graph.outputs):
            if current is output.value:
                self.graph.outputs[position] = value
        self.names = [(named, name) for named, name in self.names if named is not value]
        self.names.insert(0, (value, output.value.name or ""))

    def restore_names(self) -> None:
        """Give the new tensors the names of those that they stand for, now that these are gone."""
        taken = {v.name for node in self.graph for v in node.outputs}
        taken |= {v.name for v in self.graph.inputs} | set(self.graph.initializers)
        for value, name in self.names:
            if name and name not in taken:
                taken.add(name)
                value.name = name

    def _input(
        self, operand: FeatureMap | Intermediate | Constant | ir.Value | None, source: ir.Node
    ) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, Constant):
            return self._constant(operand)
        if operand not in self.values:
            assert isinstance(operand, FeatureMap)
            assert operand.value is not None
            self.values[operand] = self._channels_first(operand, operand.value, source)
        return self.values[operand]

    def _constant(self, constant: Constant) -> ir.Value:
        if constant.name not in self.constants:
            tensor = constant.make()
            tensor.name = constant.name
            value = ir.val(
                constant.name,
                dtype=tensor.dtype,
                shape=ir.Shape(constant.shape),
                const_value=tensor,
            )
            self.graph.register_initializer(value)
            if self.lists_initializers:  # as IR version 3 wants it
                self.graph.inputs.append(value)
            self.constants[constant.name] = value
        return self.constants[constant.name]

    def _channels_first(
        self, feature_map: FeatureMap, value: ir.Value, source: ir.Node
    ) -> ir.Value:
        """The tensor as [N, C, *spatial]."""
        if feature_map.lacks:
            value = self._unsqueezed(feature_map, value, source)
        if feature_map.layout == channels_first(len(feature_map.layout)):
            return value
        node = ir.node("Transpose", [value], {"perm": list(feature_map.layout)})
        node.outputs[0].type = ir.TensorType(feature_map.dtype)
        self.graph.insert_before(source, node)
        return node.outputs[0]

    def _unsqueezed(self, feature_map: FeatureMap, value: ir.Value, source: ir.Node) -> ir.Value:
        """The tensor with all axes (Unsqueeze-1/11 has them for an attribute, -13 for an input)."""
        inputs, attributes = [value], {"axes": list(feature_map.lacks)}
        if self.graph.opset_imports.get("", 0) >= 13:
            inputs.append(self._stored(f"{value.name}.axes", np.array(feature_map.lacks, np.int64)))
            attributes = {}
        node = ir.node("Unsqueeze", inputs, attributes)
        node.outputs[0].type = ir.TensorType(feature_map.dtype)
        self.graph.insert_before(source, node)
        return node.outputs[0]


def _attributes(values: Mapping[str, AttributeValue | None]) -> Iterable[ir.Attr]:
    return ir.convenience.convert_attributes(
        {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }
    )


def _freeze(node: ir.Node, values: Mapping[str, AttributeValue | None]) -> None:
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
