"""Interpreting a model for static mode: interface and sizes stay, FC layers become Conv.

The rules are those of dense mode. What differs is what a refusal means: the node stays, its input
is made anew from the maps that it is a view of, and what it computes starts a new map. A layer that
no rule makes a convolution of a map becomes pointwise (see `pointwise`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.graphs.names import node_name
from onnx_fc2conv.graphs.operators import FC_OPERATORS
from onnx_fc2conv.graphs.shapes import Shapes, known_shapes, shapes_at
from onnx_fc2conv.views.bodies import captured_values
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.inputs import (
    ImageAxes,
    InputShapes,
    fixed_images,
    native_batch,
    native_shapes,
)
from onnx_fc2conv.views.interpreter import Interpreter
from onnx_fc2conv.views.maps.constant import Unknown
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView, Mixed, channels_first
from onnx_fc2conv.views.plan import (
    FcLayer,
    LeftAlone,
    Plan,
    PointwiseLayer,
    Rebuilt,
    Step,
)
from onnx_fc2conv.views.pointwise import PointwiseLayers
from onnx_fc2conv.views.tape import Replaced

__all__ = ["interpret_statically"]


def interpret_statically(
    model: ir.Model, input_shapes: InputShapes | None = None, *, all_linear: bool = False
) -> Plan:
    """Find out which fully connected layers become convolutions where everything else stays.

    Args:
        model: The model, without function calls. It is not changed.
        input_shapes: Native shapes, by input name, where the model's own are symbolic.
        all_linear: Whether layers that depend on no image are converted too. Inputs of symbolic
            size are then no images, so that no size is written into the model.

    Returns:
        The plan; it has no refusals.

    Raises:
        ArgumentError: If a native size is missing or does not fit.
        RefusedError: If images have different batch sizes.
    """
    return _StaticInterpreter(model, input_shapes or {}, all_linear=all_linear).run()


class _StaticInterpreter(Interpreter):
    """A walk over the graph in which a refused node stays as it is."""

    static = True

    def __init__(self, model: ir.Model, given: InputShapes, *, all_linear: bool) -> None:
        images = _images(model.graph, given) if all_linear else None
        super().__init__(model, given, images=images)
        self.all_linear = all_linear
        self.native = self._shapes_at(model, self.batches.native)
        self.other = self.native
        if any(value.shape and not isinstance(value.shape[0], int) for value in self.images):
            self.other = self._shapes_at(model, self.batches.other)
        self.pointwise_layers = PointwiseLayers(self.facts, known_shapes(model), self.names)
        self.pointwise: dict[ir.Node, PointwiseLayer] = {}

    def _shapes_at(self, model: ir.Model, batch: int) -> Shapes:
        """The shape of every tensor at the native size and a batch size."""
        given = self.shapes.items()
        return shapes_at(model, {n: [batch if d is None else d for d in dims] for n, dims in given})

    def run(self) -> Plan:
        """The plan: nothing is frozen, materialized or refused; tensors are rebuilt at need."""
        plan = super().run()
        rebuilt = self._rebuilt()
        return Plan(
            steps=plan.steps,
            outputs=(),
            inputs=plan.inputs,
            layers=plan.layers,
            left_alone=(*self.left_alone, *self._inner_layers()),
            frozen={},
            materialized={},
            refusals=(),
            rebuilt=rebuilt,
            pointwise=tuple(self.pointwise.values()),
            replaced=plan.replaced,
        )

    def _judge(self, ctx: Context, layers: Sequence[FcLayer]) -> None:
        """Make a layer pointwise whose kernel would hold its matrix once for each operand row.

        Raises:
            NodeRefused: If it is one.
        """
        if any(layer.kernel_shape[0] != layer.weight_shape[0] for layer in layers):
            ctx.refuse("token-wise", "is applied to several rows, each of other elements")

    def _refused(self, node: ir.Node, refusal: Refusal) -> None:
        """The node stays, or is made pointwise; an output of rank 3 or more starts a new map."""
        if node.op_type in FC_OPERATORS and node.domain == "":
            self._make_pointwise(node)
        for value in node.outputs:
            new = self._new_map(value)
            self.facts[value] = (
                Unknown(from_image=True)
                if new is None
                else FeatureView.of(new, self.space, self.batches)
            )

    def _leave(self, node: ir.Node, reason: str, *, from_image: bool) -> None:
        """Nothing is known of the node's operands; if it is a layer it becomes pointwise."""
        for value in node.outputs:
            self.facts[value] = Unknown(from_image=from_image)
        if node.op_type not in FC_OPERATORS or node.domain != "":
            return
        if from_image or self.all_linear:
            self._make_pointwise(node)
        else:
            self.left_alone.append(LeftAlone(node_name(node), reason))

    def _make_pointwise(self, node: ir.Node) -> None:
        found = self.pointwise_layers.of(node)
        if isinstance(found, str):
            self.left_alone.append(LeftAlone(node_name(node), found))
            return
        self.pointwise[node], layer = found
        self.tape.append(layer)

    def _inner_layers(self) -> list[LeftAlone]:
        """Return the layers inside If, Loop and Scan, which only ``all_linear`` lists."""
        if not self.all_linear:
            return []
        reason = "is inside the subgraph of an If, Loop or Scan"
        return [
            LeftAlone(node_name(node), reason)
            for node in ir.traversal.RecursiveGraphIterator(self.graph)
            if node.op_type in FC_OPERATORS and node.domain == "" and node.graph is not self.graph
        ]

    def _output(self, value: ir.Value, gone: tuple[int, ...]) -> None:
        """Outputs stay as they are."""

    def _new_map(self, value: ir.Value) -> FeatureMap | None:
        """Return the tensor as a map [N, C, *spatial]: at a single size, any layout is valid."""
        name = value.name or ""
        shape = self.native.get(name, ())
        sizes = [length for length in shape if length is not None]
        if len(shape) < 3 or len(sizes) < len(shape) or value.dtype is None:
            return None
        batch, channels, *extent = sizes
        if batch != self.batches.native:
            return None
        if self.other is not self.native and self.other.get(name) != (batch + 1, *shape[1:]):
            return None
        return self.space.add(
            FeatureMap(
                name=name,
                channels=channels,
                extent=tuple(extent),
                dtype=value.dtype,
                field=(AxisField(),) * len(extent),
                first_label=self.space.reserve(int(np.prod(sizes[1:]))),
                layout=channels_first(len(shape)),
                value=value,
            )
        )

    def _rebuilt(self) -> tuple[Rebuilt, ...]:
        """Return the tensors that kept nodes or outputs need, but that only maps hold now.

        The search goes backwards from the outputs and the inputs of steps: a tensor behind a layer
        that has become a Conv of a map is rebuilt, and the nodes before it are not needed any more.
        Where it cannot be rebuilt, its nodes stay, and their inputs are rebuilt.
        """
        rebuilt: list[Rebuilt] = []
        behind = self._behind_layers()
        replaced = {record.value for record in self.tape.of(Replaced)}
        queue = list(dict.fromkeys([*self.graph.outputs, *_read(self.tape.of(Step))]))
        seen = set(queue)
        for value in queue:
            again = self._rebuild(value) if value in behind else None
            if again is not None:
                rebuilt.append(again)
                continue
            node = None if value in replaced else value.producer()
            if node is None:
                continue
            for operand in (*node.inputs, *captured_values(node)):
                if operand is not None and operand not in seen:
                    seen.add(operand)
                    queue.append(operand)
        return tuple(rebuilt)

    def _behind_layers(self) -> set[ir.Value]:
        """Return the views behind a converted layer, up to the next tensor that stays."""
        behind: set[ir.Value] = set()
        for node in self.graph:
            converted = node.op_type in FC_OPERATORS and node not in self.pointwise
            for value in node.outputs:
                fact = self.facts.get(value)
                if not isinstance(fact, FeatureView):
                    continue
                if fact.whole_map is not None and fact.whole_map.value is value:
                    continue
                if converted or not behind.isdisjoint(node.inputs):
                    behind.add(value)
        return behind

    def _rebuild(self, value: ir.Value) -> Rebuilt | None:
        """Plan to restore the tensor from the maps that it is a view of; None if it is impossible.

        A map made of constants alone has one sample, whatever the batch is.
        """
        fact = self.facts.get(value)
        if not isinstance(fact, FeatureView):
            return None
        try:
            sources, axis, index = fact.maps, fact.batch_axis, fact.index
        except Mixed:
            return None
        if any(map(_is_constant, sources)):
            return None
        elements, start = np.empty_like(index), 0
        for source in sources:
            local = index - source.first_label
            inside = (local >= 0) & (local < source.size)
            elements[inside] = local[inside] + start
            start += source.size
        return Rebuilt(value, sources, elements.reshape(-1), index.shape, axis)


def _is_constant(feature_map: FeatureMap) -> bool:
    """Whether the map is made of constants alone."""
    if feature_map.constant is not None:
        return True
    return bool(feature_map.sources) and all(map(_is_constant, feature_map.sources))


def _read(steps: Iterable[Step]) -> Iterator[ir.Value]:
    """The tensors of the model that the steps read."""
    for operand in (operand for step in steps for operand in step.inputs):
        if isinstance(operand, ir.Value):
            yield operand
        elif isinstance(operand, FeatureMap) and operand.value is not None:
            yield operand.value


def _images(graph: ir.Graph, given: InputShapes) -> dict[ir.Value, ImageAxes]:
    """The image inputs of fixed size; none if they do not agree on a batch size."""
    images = fixed_images(graph)
    try:
        native_batch(images, native_shapes(graph, given), given)
    except RefusedError:
        return {}
    return images
