"""Operators along some features: a Softmax of [N, A, B] over B, a LayerNormalization of tokens.

Each of its runs reads a list of channels at one position of a map (`rows`). Where all read the same
list, the operator works along axis 1 of the map, at all positions at once. Where the lists differ,
the map of their P·B channels is reshaped, operated on and reshaped back, at any size:

    Reshape [0, P, B, -1]  →  the operator along axis 2  →  Reshape [0, P·B', *spatial of the map]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.rows import Rows, rows_along, rows_at_positions, sample_axes
from onnx_fc2conv.views.maps.as_feature_map import single_map
from onnx_fc2conv.views.maps.channels import materialized_channels
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import AttributeValue, ConstantTensor, Intermediate

__all__ = ["Along", "along_features", "reduced_view", "regrouped"]


@dataclass(frozen=True, eq=False)
class Along:
    """How an operator works along one axis.

    Attributes:
        attributes: Its attributes, for this axis of a tensor.
        constants: Its further inputs, for this axis.
        last: Whether it works along the last axis only.
        width: Number of elements of the result for a list; None for as many as the list has.
        keepdims: Whether the axes stay in the result.
        dtypes: Element type of each output; None for that of the operand.
        symmetric: Whether the order of a list affects only the order of the result.
    """

    attributes: Callable[[int], dict[str, AttributeValue]]
    constants: Callable[[int], Sequence[ConstantTensor | ir.Value | None]] = lambda _: ()
    last: bool = False
    width: int | None = None
    keepdims: bool = True
    dtypes: tuple[ir.DataType | None, ...] = (None,)
    symmetric: bool = False
    carried: tuple[str, ...] = ()


def along_features(
    ctx: Context, view: FeatureView, axes: tuple[int, ...], along: Along
) -> tuple[FeatureView, ...]:
    """Return the outputs of the operator along these axes of the view, without the batch axis.

    Raises:
        NodeRefused: If it works on elements of several positions at once.
    """
    source, rows, order = _lists(ctx, view, axes, symmetric=along.symmetric)
    lists, length = rows.lists.shape
    width = length if along.width is None else along.width
    outputs = _apply(ctx, source, lists, width, along)
    if along.width is None and along.symmetric:
        within = order[rows.which]
    else:
        within = np.broadcast_to(np.arange(width), (*rows.which.shape, width))
    return tuple(
        _view(view, axes, rows, output, rows.which[..., None] * width + within, along)
        for output in outputs
    )


def _lists(
    ctx: Context, view: FeatureView, axes: tuple[int, ...], *, symmetric: bool
) -> tuple[FeatureMap, Rows, IntArray]:
    """Return the map whose channels are the lists that the rows read, one after the other.

    Also return the rows, and for each list the place of its elements in its block of channels.
    """
    along = sample_axes(view, axes)
    source, local = single_map(ctx, view)
    rows = rows_at_positions(rows_along(local, along), source.size // source.channels)
    if rows is None:
        ctx.refuse(
            "flattened-features",
            f"works along {sorted(axes)} of {list(view.shape)}, on elements of several positions "
            f"of {source} at once: windows overlap, so that no cell of a larger map can hold what "
            "each of them needs; work along the channels of each position, pool the positions "
            "first, or take the means of groups of whole channels, as a group norm does: they are "
            "those of the whole image",
        )
    places = np.broadcast_to(np.arange(rows.lists.shape[1]), rows.lists.shape)
    if symmetric:
        sorted_by = np.argsort(rows.lists, axis=1, kind="stable")
        places = np.argsort(sorted_by, axis=1)
        rows = replace(rows, lists=np.take_along_axis(rows.lists, sorted_by, axis=1))
    picked = materialized_channels(ctx, source, rows.lists.reshape(-1))
    return picked, rows, places


def _apply(
    ctx: Context, source: FeatureMap, lists: int, width: int, along: Along
) -> tuple[FeatureMap, ...]:
    """Apply the operator along each list of channels; return the resulting maps."""
    node, grouped = ctx.node, lists > 1
    axis, rank = (2, 4) if grouped else (1, 2 + len(source.extent))
    forth = (*(a for a in range(rank) if a != axis), axis)
    back = tuple(int(a) for a in np.argsort(forth))
    operand: FeatureMap | Intermediate = source
    if grouped:
        groups = ctx.tensor(f"{ctx.name}.groups", source.dtype)
        apart = ctx.integers(f"{ctx.name}.groups", [0, lists, source.channels // lists, -1])
        operand = ctx.emit("Reshape", (source, apart), groups)
    if along.last:
        turned = ctx.tensor(f"{ctx.name}.channels_last", source.dtype)
        operand = ctx.emit("Transpose", (operand,), turned, {"perm": forth})
        axis = rank - 1
    maps = tuple(
        ctx.new_map(
            source,
            name=value.name or ctx.fresh(ctx.name),
            channels=lists * width,
            dtype=dtype or source.dtype,
        )
        for value, dtype in zip(node.outputs, along.dtypes, strict=False)
    )
    made: tuple[FeatureMap | Intermediate, ...] = maps
    if grouped or along.last:
        made = tuple(ctx.tensor(f"{m.name}.along", m.dtype) for m in maps)
    ctx.emit(
        node.op_type,
        (operand, *along.constants(axis)),
        made[0],
        along.attributes(axis),
        carried=along.carried,
        further=made[1:],
        domain=node.domain,
    )
    for tensor, feature_map in zip(made, maps, strict=True):
        current = tensor
        if along.last:
            target: FeatureMap | Intermediate = feature_map
            if grouped:
                target = ctx.tensor(f"{feature_map.name}.back", tensor.dtype)
            current = ctx.emit("Transpose", (tensor,), target, {"perm": back})
        if grouped:
            together = _spatial_shape(ctx, source, (feature_map.channels,))
            ctx.emit("Reshape", (current, together), feature_map)
    return maps


def regrouped(
    ctx: Context,
    feature_map: FeatureMap,
    features: tuple[int, ...],
    gone: tuple[int, ...] = (),
) -> Intermediate:
    """Reshape the map [N, K, *spatial] to [N, *features, *spatial], at any size.

    Spatial axes that are ``gone``, of length 1, are left out.
    """
    made = ctx.tensor(f"{feature_map.name}.axes", feature_map.dtype)
    if len(features) < 2:
        axes = (*(() if features else (1,)), *(2 + axis for axis in gone))
        return _squeezed(ctx, feature_map, axes, made)
    shape = _spatial_shape(ctx, feature_map, features)
    ctx.emit("Reshape", (feature_map, shape), made)
    if not gone:
        return made
    axes = tuple(1 + len(features) + axis for axis in gone)
    return _squeezed(ctx, made, axes, ctx.tensor(f"{made.name}.squeezed", made.dtype))


def _squeezed(
    ctx: Context,
    tensor: FeatureMap | Intermediate,
    axes: tuple[int, ...],
    made: Intermediate,
) -> Intermediate:
    """Squeeze the tensor; the axes are an attribute of Squeeze-1/11, an input of -13."""
    if ctx.opset < 13:
        return ctx.emit("Squeeze", (tensor,), made, {"axes": axes})
    return ctx.emit("Squeeze", (tensor, ctx.integers(made.name, list(axes))), made)


def _spatial_shape(
    ctx: Context, feature_map: FeatureMap, features: tuple[int, ...]
) -> ConstantTensor | Intermediate:
    """The shape [0, *features, *spatial] with the spatial dims of the map at run time."""
    rank, name = len(feature_map.extent), feature_map.name
    if rank <= 1:
        return ctx.integers(name, [0, *features, *[-1] * rank])
    whole, spatial, target = (
        ctx.tensor(f"{name}.{part}", ir.DataType.INT64) for part in ("shape", "spatial", "target")
    )
    axes = ctx.integers(f"{name}.spatial", list(range(2, 2 + rank)))
    head = ctx.integers(f"{name}.features", [0, *features])
    ctx.emit("Shape", (feature_map,), whole)
    ctx.emit("Gather", (whole, axes), spatial, {"axis": 0})
    return ctx.emit("Concat", (head, spatial), target, {"axis": 0})


def _view(  # noqa: PLR0913 - where the rows are, and what is in them
    view: FeatureView,
    axes: tuple[int, ...],
    rows: Rows,
    output: FeatureMap,
    channels: IntArray,
    along: Along,
) -> FeatureView:
    """Return the result as a view: the axes hold the channels [*rows, B'] of each row."""
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
    return view.reindexed(index)


def reduced_view(
    view: FeatureView, axes: tuple[int, ...], index: IntArray, *, keepdims: bool
) -> FeatureView:
    """Return the view with one element of ``index`` [*rows] in place of several along the axes."""
    batch = view.batch_axis
    if keepdims:
        return view.with_index(np.expand_dims(index, sample_axes(view, axes)), batch)
    batch = None if batch is None else batch - sum(axis < batch for axis in axes)
    return view.with_index(index, batch)
