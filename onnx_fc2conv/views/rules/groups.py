"""Operators along some features: a Softmax of [N, A, B] over B, a LayerNormalization of tokens.

Each application reads a list of channels at one position of a map (`rows`). Where all read the same
list, the operator works along axis 1 of the map, at all positions at once. Where the lists differ,
the map of their P·B channels is taken apart, worked on and put together again, at any size:

    Reshape [0, P, B, -1]  →  the operator along axis 2  →  Reshape [0, P·B', *spatial of the map]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.labels import IntArray
from onnx_fc2conv.views.plan import AttributeValue, Constant, Emitted, Intermediate, Step
from onnx_fc2conv.views.rules.registry import Application
from onnx_fc2conv.views.rules.restore import picked_channels, settled, single_map
from onnx_fc2conv.views.rules.rows import Rows, rows_along, rows_at_positions, sample_axes
from onnx_fc2conv.views.view import FeatureMap, FeatureView

__all__ = ["Along", "along_features", "integers", "reduced_view", "regrouped"]


@dataclass(frozen=True, eq=False)
class Along:
    """How an operator works along one axis.

    Attributes:
        attributes: Its attributes, for this axis of a tensor.
        constants: Its further inputs, for this axis.
        last: Whether it works along the last axis only.
        width: Number of elements that it makes of a list; None for as many as there are.
        keepdims: Whether the axes stay in the result (with length 1 where they are one).
        dtypes: Element type of each output; None for that of the operand.
        symmetric: Whether the order of a list does not matter but for the order of the result.
    """

    attributes: Callable[[int], dict[str, AttributeValue]]
    constants: Callable[[int], Sequence[Constant | ir.Value | None]] = lambda _: ()
    last: bool = False
    width: int | None = None
    keepdims: bool = True
    dtypes: tuple[ir.DataType | None, ...] = (None,)
    symmetric: bool = False
    carried: tuple[str, ...] = ()


def along_features(
    app: Application, view: FeatureView, axes: tuple[int, ...], along: Along
) -> Emitted:
    """The operator along these axes of the view, none of them that of the batch.

    Raises:
        NodeRefused: If it works on elements of several positions at once.
    """
    steps, source, rows, order = _lists(app, view, axes, symmetric=along.symmetric)
    lists, length = rows.lists.shape
    width = length if along.width is None else along.width
    made, outputs = _apply(app, source, lists, width, along)
    if along.width is None and along.symmetric:
        within = order[rows.which]
    else:
        within = np.broadcast_to(np.arange(width), (*rows.which.shape, width))
    views = tuple(
        _view(view, axes, rows, output, rows.which[..., None] * width + within, along)
        for output in outputs
    )
    return Emitted((*steps, *made), views[0], further=views[1:])


def _lists(
    app: Application, view: FeatureView, axes: tuple[int, ...], *, symmetric: bool
) -> tuple[tuple[Step, ...], FeatureMap, Rows, IntArray]:
    """The map whose channels are the lists that the rows read, one after the other.

    Also the rows, and for each list the place of its elements in the map's block of channels.
    """
    along = sample_axes(view, axes)
    steps, source, local = single_map(app, view)
    rows = rows_at_positions(rows_along(local, along), source.size // source.channels)
    if rows is None:
        app.refuse(
            "flattened-features",
            f"works along {sorted(axes)} of {list(view.shape)}, on elements of several positions "
            f"of {source.name} {list(source.per_sample_shape)} at once: windows overlap, so that "
            "no cell of a larger map can hold what each of them needs; work along the channels of "
            "each position, pool the positions first, or take the means of groups of whole "
            "channels, as a group norm does: they are those of the whole image",
        )
    if not source.scales_by_channel:
        app.refuse(
            "position-dependent",
            f"follows a scale or shift that differs from position to position of {source.name}",
        )
    more, source = settled(app, source)
    places = np.broadcast_to(np.arange(rows.lists.shape[1]), rows.lists.shape)
    if symmetric:
        sorted_by = np.argsort(rows.lists, axis=1, kind="stable")
        places = np.argsort(sorted_by, axis=1)
        rows = replace(rows, lists=np.take_along_axis(rows.lists, sorted_by, axis=1))
    picked, source = picked_channels(app, source, rows.lists.reshape(-1))
    return (*steps, *more, *picked), source, rows, places


def _apply(
    app: Application, source: FeatureMap, lists: int, width: int, along: Along
) -> tuple[tuple[Step, ...], tuple[FeatureMap, ...]]:
    """The steps that work along each of the lists of channels, and the maps that they make."""
    name = app.node.outputs[0].name or app.node.op_type
    rank = 2 + len(source.extent)
    plain = not along.last and lists == 1
    steps: list[Step] = []
    operand: FeatureMap | Intermediate = source
    axis = 1
    if lists > 1:
        operand = Intermediate(app.names.fresh(f"{name}.groups"), source.dtype)
        shape = integers(app, f"{name}.groups", [0, lists, source.channels // lists, -1])
        steps.append(Step("Reshape", (source, shape), operand, app.node))
        axis, rank = 2, 4
    forth = (*(a for a in range(rank) if a != axis), axis)
    back = tuple(int(a) for a in np.argsort(forth))
    if along.last:
        turned = Intermediate(app.names.fresh(f"{name}.channels_last"), source.dtype)
        steps.append(Step("Transpose", (operand,), turned, app.node, {"perm": forth}))
        operand, axis = turned, rank - 1

    maps = tuple(
        app.new_map(
            source,
            name=value.name or app.names.fresh(name),
            channels=lists * width,
            dtype=dtype or source.dtype,
        )
        for value, dtype in zip(app.node.outputs, along.dtypes, strict=False)
    )
    tensors = [
        m if plain else Intermediate(app.names.fresh(f"{m.name}.along"), m.dtype) for m in maps
    ]
    inputs = (operand, *along.constants(axis))
    attributes = along.attributes(axis)
    first, *further = tensors
    steps.append(
        Step(
            app.node.op_type,
            inputs,
            first,
            app.node,
            attributes,
            along.carried,
            tuple(further),
            app.node.domain,
        )
    )
    for tensor, feature_map in zip(tensors, maps, strict=True):
        current = tensor
        if along.last:
            target: FeatureMap | Intermediate = feature_map
            if lists > 1:
                target = Intermediate(app.names.fresh(f"{feature_map.name}.back"), tensor.dtype)
            steps.append(Step("Transpose", (current,), target, app.node, {"perm": back}))
            current = target
        if lists > 1:
            more, target_shape = _spatial_shape(app, source, (feature_map.channels,))
            steps.extend((*more, Step("Reshape", (current, target_shape), feature_map, app.node)))
    return tuple(steps), maps


def regrouped(
    app: Application,
    feature_map: FeatureMap,
    features: tuple[int, ...],
    gone: tuple[int, ...] = (),
) -> tuple[tuple[Step, ...], Intermediate]:
    """The map [N, K, *spatial] as [N, *features, *spatial], at any size.

    Spatial axes that are ``gone``, of length 1, are left out.
    """
    made = Intermediate(app.names.fresh(f"{feature_map.name}.axes"), feature_map.dtype)
    if len(features) < 2:
        axes = (*(() if features else (1,)), *(2 + axis for axis in gone))
        return (_squeezed(app, feature_map, axes, made),), made
    steps, shape = _spatial_shape(app, feature_map, features)
    reshaped = Step("Reshape", (feature_map, shape), made, app.node)
    if not gone:
        return (*steps, reshaped), made
    axes = tuple(1 + len(features) + axis for axis in gone)
    fewer = Intermediate(app.names.fresh(f"{made.name}.squeezed"), made.dtype)
    return (*steps, reshaped, _squeezed(app, made, axes, fewer)), fewer


def _squeezed(
    app: Application,
    tensor: FeatureMap | Intermediate,
    axes: tuple[int, ...],
    made: Intermediate,
) -> Step:
    """Squeeze-1/11 has the axes for an attribute, -13 for an input."""
    if app.opset < 13:
        return Step("Squeeze", (tensor,), made, app.node, {"axes": axes})
    return Step("Squeeze", (tensor, integers(app, made.name, list(axes))), made, app.node)


def _spatial_shape(
    app: Application, feature_map: FeatureMap, features: tuple[int, ...]
) -> tuple[tuple[Step, ...], Constant | Intermediate]:
    """The shape [0, *features, *spatial] with the spatial dims of the map at run time."""
    rank, name = len(feature_map.extent), feature_map.name
    if rank <= 1:
        return (), integers(app, name, [0, *features, *[-1] * rank])
    whole, spatial, target = (
        Intermediate(app.names.fresh(f"{name}.{part}"), ir.DataType.INT64)
        for part in ("shape", "spatial", "target")
    )
    axes = integers(app, f"{name}.spatial", list(range(2, 2 + rank)))
    head = integers(app, f"{name}.features", [0, *features])
    return (
        Step("Shape", (feature_map,), whole, app.node),
        Step("Gather", (whole, axes), spatial, app.node, {"axis": 0}),
        Step("Concat", (head, spatial), target, app.node, {"axis": 0}),
    ), target


def integers(app: Application, name: str, values: list[int]) -> Constant:
    """A constant of integers: a shape, or axes."""
    array = np.array(values, np.int64)
    return Constant(app.names.fresh(f"{name}.sizes"), array.shape, lambda: ir.Tensor(array))


def _view(  # noqa: PLR0913 - where the rows are, and what is in them
    view: FeatureView,
    axes: tuple[int, ...],
    rows: Rows,
    output: FeatureMap,
    channels: IntArray,
    along: Along,
) -> FeatureView:
    """The result as a view: the axes hold the given channels [*rows, B'] of each row."""
    positions = output.size // output.channels
    index = output.first_label + channels * positions + rows.at[..., None]
    held = sample_axes(view, axes)
    if not along.keepdims:
        return reduced_view(view, axes, index[..., 0], keepdims=False)
    lengths = [view.index.shape[axis] for axis in held]
    if along.width is not None:
        lengths = [along.width, *[1] * (len(held) - 1)]
    index = index.reshape(*rows.which.shape, *lengths)
    index = np.moveaxis(index, range(rows.which.ndim, index.ndim), held)
    return _of_index(view, index, view.batch_axis)


def reduced_view(
    view: FeatureView, axes: tuple[int, ...], index: IntArray, *, keepdims: bool
) -> FeatureView:
    """The view that shows one element of ``index`` [*rows] where it has several along the axes."""
    batch = view.batch_axis
    if keepdims:
        return _of_index(view, np.expand_dims(index, sample_axes(view, axes)), batch)
    batch = None if batch is None else batch - sum(axis < batch for axis in axes)
    return _of_index(view, index, batch)


def _of_index(view: FeatureView, index: IntArray, batch_axis: int | None) -> FeatureView:
    any_batch = view.labels.other is not None
    return FeatureView.of_index(view.space, view.batches, index, batch_axis, any_batch=any_batch)
