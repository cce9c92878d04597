"""FreeInputSize: batch and spatial dims of the image inputs become symbolic."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.graphs.names import NameScope, describe
from onnx_fc2conv.graphs.shapes import forget_shapes, infer_shapes
from onnx_fc2conv.views import Plan, interpret
from onnx_fc2conv.views.inputs import image_axes, model_inputs
from onnx_fc2conv.views.maps.view import FeatureMap

__all__ = ["FreeInputSize"]

_AXES = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}


@dataclass(frozen=True)
class FreeInputSize(ir.passes.InPlacePass):
    """Make the batch and spatial dims of image inputs symbolic, and infer all shapes again.

    1. Every node between the image inputs and the outputs must keep maps maps (see `FcToConv`);
       one that bakes the size in is refused by name.
    2. Dims that are symbolic already keep their names, but two axes of one image that share a name
       get two: the result takes images of any height and width.
    3. Another input that has as many samples as the images, by its first dim, gets their symbol
       where it meets their features sample by sample. Where it does not (its number of samples is
       written into a node), the number of images stays as it is too.
    4. All recorded shapes of intermediate tensors are dropped before inference: a stale one would
       silently win over the new symbolic dims.

    A model whose batch and spatial dims are all symbolic already is left alone, unless
    ``input_shapes`` gives its native size.

    Attributes:
        input_shapes: Native shape by input name, where the model's own is symbolic.

    Raises:
        RefusedError: If some node ties the model to its native size (then nothing is changed).
        ArgumentError: If a native size is missing or does not fit.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check that the model is fully convolutional, then free it."""
        if not self.input_shapes and _is_free(model.graph):
            return ir.passes.PassResult(model, modified=False)
        plan = interpret(model, self.input_shapes)
        refusals = (*plan.refusals, *_flattened_outputs(plan))
        if refusals:
            raise RefusedError(refusals)
        before = _signature(model)
        names = NameScope(_symbols(model, plan))
        symbol = _batch_symbol(plan) or names.fresh("N")
        single = any(image.feature_map.axes[0] is None for image in plan.inputs)
        samples, beside = _beside(model.graph, plan)
        batch: int | str = 1 if single else symbol
        if beside and samples is not None and not _arrive(model, plan, beside, symbol):
            batch, beside = samples, []
        for image in plan.inputs:
            _free(image.value, image.feature_map, None if batch == samples else symbol, names)
        for value in beside:
            assert value.shape is not None
            value.shape = ir.Shape([batch, *value.shape[1:]])
        forget_shapes(model)
        self._declare_outputs(plan, batch, names)
        infer_shapes(model)
        return ir.passes.PassResult(model, modified=_signature(model) != before)

    @staticmethod
    def _declare_outputs(plan: Plan, batch: int | str, names: NameScope) -> None:
        """Declare each output that is a map: [N, K, *spatial] in its own layout."""
        for output in plan.outputs:
            if not output.stays:  # one vector for the whole image: its shape is inferred
                continue
            if output.value.is_graph_input():
                continue
            feature_map = output.feature_map
            field = [f for axis, f in enumerate(feature_map.field) if axis not in output.gone]
            letters = _letters(len(field))
            spatial: list[int | str] = [
                1 if cells.stride == 0 else names.fresh(f"{output.value.name}_{letter}")
                for cells, letter in zip(field, letters, strict=True)
            ]
            if output.features is not None:
                output.value.shape = ir.Shape([batch, *output.features, *spatial])
                continue
            dims: list[int | str] = [batch, feature_map.channels, *spatial]
            shape: list[int | str] = [0] * len(dims)
            for position, axis in enumerate(output.layout):
                shape[axis] = dims[position]
            output.value.shape = ir.Shape(shape)


def _flattened_outputs(plan: Plan) -> list[Refusal]:
    """Return a refusal for each output that is a flattened map of one cell at the native size.

    At a larger size the vector would hold several cells.
    """
    return [
        Refusal(
            "flattened-features",
            describe(node),
            f"output {output.value.name!r} is a flattened map, which grows with the image; run "
            "FcToConv first",
        )
        for output in plan.outputs
        if not output.stays
        and (node := output.value.producer()) is not None
        and any(axis.stride for axis in output.feature_map.field)
    ]


def _beside(graph: ir.Graph, plan: Plan) -> tuple[int | None, list[ir.Value]]:
    """The number of samples that all images state, and the other inputs with as many.

    They are those whose values meet features of an image.
    """
    images = {image.value: image.feature_map.axes[0] for image in plan.inputs}
    stated = {
        value.shape[axis] if value.shape is not None and axis is not None else None
        for value, axis in images.items()
    }
    samples = stated.pop() if len(stated) == 1 else None
    if not isinstance(samples, int):
        return None, []
    names = {value.name for value in images}
    met = set().union(*(made_of for _, made_of in _meetings(graph, names)))
    shapes = ((value, value.shape) for value in graph.inputs if value.name in met)
    return samples, [v for v, shape in shapes if shape is not None and shape[:1] == (samples,)]


def _arrive(model: ir.Model, plan: Plan, beside: Sequence[ir.Value], symbol: str) -> bool:
    """Whether the samples of these inputs are those of whatever meets features of the images."""
    trial = model.clone()
    forget_shapes(trial)
    for value, own in zip(trial.graph.inputs, model.graph.inputs, strict=True):
        if own in beside and value.shape is not None:
            value.shape = ir.Shape([symbol, *value.shape[1:]])
    infer_shapes(trial)
    meetings = _meetings(trial.graph, {image.value.name for image in plan.inputs})
    return all(value.shape is not None and value.shape[0] == symbol for value, _ in meetings)


def _meetings(
    graph: ir.Graph, images: Collection[str | None]
) -> Iterator[tuple[ir.Value, set[str | None]]]:
    """Tensors made of other inputs that meet features of an image, with these inputs' names."""
    made_of = {value: {value.name} for value in model_inputs(graph)}
    for node in graph:
        sources = {v: made_of[v] for v in node.inputs if v is not None and v in made_of}
        mixed = set().union(*sources.values())
        made_of.update(dict.fromkeys(node.outputs, mixed))
        if not mixed.isdisjoint(images):
            yield from ((v, names) for v, names in sources.items() if names.isdisjoint(images))


def _is_free(graph: ir.Graph) -> bool:
    """Whether batch and spatial dims of all image inputs are symbolic, and have names."""
    return all(
        value.shape is not None
        and isinstance(dim := value.shape[axis], ir.SymbolicDim)
        and dim.value is not None
        for value, axes in image_axes(graph).items()
        for position, axis in enumerate(axes)
        if position != 1 and axis is not None
    )


def _batch_symbol(plan: Plan) -> str | None:
    """Return the model's own name for its batch dim, if it has one."""
    for image in plan.inputs:
        axis = image.feature_map.axes[0]
        if axis is None or image.value.shape is None:
            continue
        dim = image.value.shape[axis]
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
            return dim.value
    return None


def _free(value: ir.Value, feature_map: FeatureMap, batch: str | None, names: NameScope) -> None:
    """Make batch (if it has a name) and spatial dims symbolic; channels stay."""
    assert value.shape is not None
    dims = list(value.shape)
    batch_axis, channel_axis, *places = feature_map.axes
    spatial = [axis for axis in places if axis is not None]
    letters = _letters(len(spatial))
    if channel_axis is not None:
        dims[channel_axis] = feature_map.channels
    for axis, letter in ((batch_axis, None), *zip(spatial, letters, strict=True)):
        if axis is None or (axis == batch_axis and batch is None):
            continue
        dim = dims[axis]
        elsewhere = [d.value for d in dims[:axis] if isinstance(d, ir.SymbolicDim)]
        if not isinstance(dim, ir.SymbolicDim) or dim.value in (None, *elsewhere):
            dims[axis] = ir.SymbolicDim(batch if letter is None else names.fresh(letter))
    value.shape = ir.Shape(dims)


def _letters(rank: int) -> tuple[str, ...]:
    """Return the names of an image's spatial dims."""
    return _AXES.get(rank, tuple(f"S{axis}" for axis in range(rank)))


def _symbols(model: ir.Model, plan: Plan) -> list[str]:
    """Names of symbolic dims in the interface, except those of outputs that get new shapes."""
    maps = {output.value for output in plan.outputs if output.stays}
    kept = [value for value in model.graph.outputs if value not in maps]
    values = (*model.graph.inputs, *kept)
    return [
        dim.value
        for value in values
        if value.shape is not None
        for dim in value.shape
        if not isinstance(dim, int) and dim.value is not None
    ]


def _signature(model: ir.Model) -> tuple[str, ...]:
    """The shapes that this pass may change, as text."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    values = (*model.graph.inputs, *(value for node in nodes for value in node.outputs))
    return tuple(f"{value.name}: {value.shape}" for value in values)
