"""Interpreting a model as views of feature maps: from the image inputs to the outputs, once.

Every tensor becomes a `FeatureView`, a `Constant` or an `Unknown`, and every node is answered by
its rule. What comes out is a `Plan`; the model is not changed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.graphs.names import ORIGIN, NameScope, describe, node_name
from onnx_fc2conv.graphs.operators import FC_OPERATORS, SIZES
from onnx_fc2conv.options import Pool
from onnx_fc2conv.views.bodies import captured_values, inner_nodes
from onnx_fc2conv.views.computed import computed, uniform_shape
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.global_poolings import beside_windows, squeezes
from onnx_fc2conv.views.inputs import (
    ImageAxes,
    InputShapes,
    image_axes,
    image_map,
    model_inputs,
    native_batch,
    native_shapes,
)
from onnx_fc2conv.views.layers.fold_bias import fold_biases
from onnx_fc2conv.views.maps.constant import Constant, NotComputable, Unknown
from onnx_fc2conv.views.maps.view import Batches, FeatureView, LabelSpace, Mixed
from onnx_fc2conv.views.output_map import output_map
from onnx_fc2conv.views.plan import (
    FcLayer,
    ImageInput,
    LeftAlone,
    OutputMap,
    Plan,
    Step,
    WindowPooling,
)
from onnx_fc2conv.views.registry import Answer, Rule
from onnx_fc2conv.views.rules import RULES, Fact
from onnx_fc2conv.views.rules.unsupported import unknown_operator
from onnx_fc2conv.views.tape import Frozen, Materialized, Replaced, Tape

__all__ = ["Interpreter", "interpret"]

_RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Multinomial", "Bernoulli"),
}


def interpret(
    model: ir.Model, input_shapes: InputShapes | None = None, *, pool: Pool = "keep"
) -> Plan:
    """Find out how every fully connected layer of the model becomes a convolution.

    Args:
        model: The model, without function calls (inline them first). It is not changed.
        input_shapes: Native shapes, by input name, where the model's own are symbolic.
        pool: Whether a global pooling keeps seeing the whole image, or becomes a pooling of
            windows. (The squeeze of a gate keeps seeing the whole image, and what stands beside
            features that slide pools windows: which poolings these are is known after one walk.)

    A layer of patches of a map is a sliding layer, which gives many cells for each window. If the
    model cannot use these (its outputs need a single cell), it is a layer of the whole window.

    Raises:
        ArgumentError: If a native size is missing or does not fit.
    """
    plan = _interpreted(model, input_shapes or {}, pool, patches=True)
    if plan.refusals and plan.layers:
        whole = _interpreted(model, input_shapes or {}, pool, patches=False)
        plan = plan if whole.refusals else whole
    return plan


def _interpreted(model: ir.Model, given: InputShapes, pool: Pool, *, patches: bool) -> Plan:
    """Make the plan in which layers of patches slide, or are layers of the whole window."""
    interpreter = Interpreter(model, given, patches=patches)
    plan, maps = interpreter.run(), list(interpreter.space)
    if pool == "window":
        whole = squeezes(maps)
    elif windowed := beside_windows(maps):
        whole = frozenset(m.pooled_by for m in maps if m.pooled_by is not None) - windowed
    else:
        return plan
    return Interpreter(model, given, whole, patches=patches).run()


class Interpreter:
    """The state of one walk over the graph."""

    static = False

    def __init__(
        self,
        model: ir.Model,
        given: InputShapes,
        whole: Container[ir.Node] | None = None,
        images: Mapping[ir.Value, ImageAxes] | None = None,
        *,
        patches: bool = True,
    ) -> None:
        """Start.

        Args:
            model: The model.
            given: Native shapes by input name.
            whole: The global poolings that keep seeing the whole image; None for all.
            images: The image inputs, as `image_axes` finds them.
            patches: Whether a layer of patches of a map is a sliding layer.
        """
        graph = model.graph
        self.whole = whole
        self.patches = patches
        self.graph = graph
        self.opsets = graph.opset_imports
        self.images = image_axes(graph) if images is None else images
        self.shapes = native_shapes(graph, given)
        self.batches = Batches(native_batch(self.images, self.shapes, given))
        self.space = LabelSpace()
        self.names = NameScope.of(graph)
        self.facts: dict[ir.Value, Fact] = {}
        self.tape = Tape()
        self.left_alone: list[LeftAlone] = []
        self.refusals: list[Refusal] = []

    def run(self) -> Plan:
        """Walk from the inputs to the outputs."""
        inputs = self._start()
        for node in self.graph:
            self._interpret(node)
        gone = tuple(sorted(_lacked_by_all(inputs)))
        found = [self._output(value, gone) for value in dict.fromkeys(self.graph.outputs)]
        outputs = tuple(output for output in found if output is not None)
        tape = self.tape
        return Plan(
            steps=fold_biases(tape.of(Step), (output.feature_map for output in outputs)),
            outputs=outputs,
            inputs=tuple(inputs),
            layers=tape.of(FcLayer),
            left_alone=tuple(self.left_alone),
            frozen={record.node: record.attributes for record in tape.of(Frozen)},
            materialized={record.value: record.feature_map for record in tape.of(Materialized)},
            refusals=tuple(self.refusals),
            poolings=tape.of(WindowPooling),
            replaced={record.value: record.tensor for record in tape.of(Replaced)},
        )

    def _start(self) -> list[ImageInput]:
        """Record facts about the inputs and the initializers; return the images."""
        images: list[ImageInput] = []
        for value in self.graph.initializers.values():
            if value.const_value is not None:
                self.facts[value] = Constant.of_tensor(value.const_value, self.batches)
        for value in model_inputs(self.graph):
            axes = self.images.get(value)
            if axes is None:
                self.facts[value] = Unknown(from_image=False)
                continue
            feature_map = image_map(value, axes, self.shapes[value.name or ""], self.space)
            images.append(ImageInput(value, feature_map))
            self.facts[value] = FeatureView.of_image(feature_map, self.space, self.batches)
        return images

    def _interpret(self, node: ir.Node) -> None:
        operands = tuple(
            None if value is None else self.facts.get(value, Unknown(from_image=False))
            for value in node.inputs
        )
        captured = self._captured(node)
        if any(isinstance(fact, FeatureView) for fact in (*operands, *captured)):
            self._apply_rule(node, operands, captured)
        elif any(isinstance(fact, Unknown) and fact.from_image for fact in (*operands, *captured)):
            self._leave(node, "its input comes from a node that was refused", from_image=True)
        elif captured or any(isinstance(fact, Unknown) for fact in operands):
            self._leave(node, "its input is not made from a feature map", from_image=False)
            uniform = uniform_shape(node, operands)
            if uniform is not None:
                self.facts[node.outputs[0]] = Unknown(from_image=False, uniform=uniform)
        else:
            self._know(node, operands)

    def _apply_rule(
        self, node: ir.Node, operands: tuple[Fact | None, ...], captured: Sequence[Fact]
    ) -> None:
        if node.op_type in SIZES and node.domain == "":
            self._know(node, operands)
            return
        if any(isinstance(fact, Unknown) and fact.from_image for fact in operands):
            self._leave(node, "its input comes from a node that was refused", from_image=True)
            return
        ctx, start = self._context(node, operands), len(self.tape)
        with ctx.attempt() as attempt:
            if captured:
                ctx.refuse("subgraph", "uses the feature map inside a subgraph")
            answer = _answer(RULES.get((node.domain, node.op_type), unknown_operator), ctx)
            self._judge(ctx, self.tape.of(FcLayer, start))
            for record in self.tape.of(Materialized, start):
                view = FeatureView.of(record.feature_map, self.space, self.batches)
                self.facts[record.value] = view
            self._learn(node, answer if isinstance(answer, tuple) else (answer,))
            return
        self._refused(node, attempt.refused.refusal)

    def _context(self, node: ir.Node, operands: tuple[Fact | None, ...]) -> Context:
        """Make the context of the node's rule."""
        return Context(
            node,
            self._opset(node),
            operands,
            self.space,
            self.names,
            self.batches,
            self.tape,
            windowed=self.whole is not None and node not in self.whole,
            static=self.static,
            patches=self.patches,
        )

    def _judge(self, ctx: Context, layers: Sequence[FcLayer]) -> None:
        """Refuse the rule's result where it must not be used.

        Raises:
            NodeRefused: If so.
        """

    def _refused(self, node: ir.Node, refusal: Refusal) -> None:
        """Record a refused node in the plan."""
        self.refusals.append(refusal)
        self._leave(node, refusal.reason, from_image=True)

    def _learn(self, node: ir.Node, facts: Sequence[Fact]) -> None:
        """Record facts about the node's outputs, in order; further outputs are opaque."""
        for value, fact in zip(node.outputs, facts, strict=False):
            self.facts[value] = fact
        for value in node.outputs[len(facts) :]:
            self.facts[value] = Unknown(from_image=True)

    def _leave(self, node: ir.Node, reason: str, *, from_image: bool) -> None:
        if node.op_type in FC_OPERATORS:
            self.left_alone.append(LeftAlone(node_name(node), reason))
        for inner in inner_nodes(node):
            if inner.op_type in FC_OPERATORS:
                why = f"it is inside a body of {describe(node)}"
                self.left_alone.append(LeftAlone(node_name(inner), why))
        for value in node.outputs:
            self.facts[value] = Unknown(from_image=from_image)

    def _know(self, node: ir.Node, operands: tuple[Fact | None, ...]) -> None:
        """The outputs are constants, or integers computed from shapes."""
        if node.op_type == "Constant" and node.domain == "":
            stored = node.attributes.get("value")
            if stored is not None:
                self.facts[node.outputs[0]] = Constant.of_tensor(stored.as_tensor(), self.batches)
                return
        if node.op_type in _RANDOM or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            self._leave(node, "its input is not a constant", from_image=False)
            return
        constants = computed(node, operands, self._opset(node), self.batches)
        for value, fact in zip(node.outputs, constants, strict=True):
            self.facts[value] = fact

    def _output(self, value: ir.Value, gone: tuple[int, ...]) -> OutputMap | None:
        """Return the map that replaces a graph output, without the spatial axes ``gone``."""
        fact = self.facts.get(value)
        node = value.producer()
        if not isinstance(fact, FeatureView):
            return None
        if fact.layout is not None and fact.whole_map is not None:
            made = node is not None and ORIGIN in node.metadata_props
            materialized = {record.value for record in self.tape.of(Materialized)}
            stays = value not in materialized or made
            return OutputMap(value, fact.whole_map, fact.layout, stays=stays)
        assert node is not None
        ctx = self._context(node, ())
        with ctx.attempt() as attempt:
            return output_map(ctx, value, fact, gone)
        self.refusals.append(attempt.refused.refusal)
        return None

    def _captured(self, node: ir.Node) -> list[Fact]:
        """Return facts about the tensors that the node's subgraphs take from this graph."""
        return [self.facts[value] for value in captured_values(node) if value in self.facts]

    def _opset(self, node: ir.Node) -> int:
        return self.opsets.get(node.domain, 1)


def _lacked_by_all(images: Sequence[ImageInput]) -> set[int]:
    """Return the spatial axes that no image has: sound, for example, in layers for images."""
    lacked = [set(image.feature_map.lacks_spatial) for image in images]
    return set.intersection(*lacked) if lacked else set()


def _answer(rule: Rule, ctx: Context) -> Answer:
    """Return the rule's answer.

    Raises:
        NodeRefused: If it refuses the node, or cannot tell samples or constants.
    """
    try:
        return rule(ctx)
    except NotComputable as error:
        ctx.refuse("not-computable", f"has a constant that cannot be computed: {error}")
    except Mixed:
        ctx.refuse("batch-mixing", "its operand mixes the samples of a batch")
