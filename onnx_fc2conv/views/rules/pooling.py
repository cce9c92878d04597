"""Global pooling in any spelling: over all positions of a map, or over all along some axes.

Labels show which elements are pooled together, so that GlobalAveragePool, a mean over
axes [1, 2] of [N, H, W, C] and a mean over axis 2 of [N, C, H·W] are one case.

Either the pooling keeps seeing the whole image: one cell at any size. Or it becomes a pooling with
a window of the native extent and stride 1, whose cell p is the original pooling of the window at p:

    mean → AveragePool    max → MaxPool    min → -MaxPool(-x)    sum → count·AveragePool
    L1, L2 → LpPool
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import describe, node_name
from onnx_fc2conv.graphs.operators import GLOBAL_POOLINGS
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import as_feature_map, as_feature_maps
from onnx_fc2conv.views.maps.labels import SAMPLE, IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView, Labels
from onnx_fc2conv.views.plan import AttributeValue, Intermediate, WindowPooling
from onnx_fc2conv.views.registry import rule

__all__ = ["global_pool", "pool_view", "pooled_axes", "pooled_map", "reduced", "whole_pool"]

_WINDOWED = {
    "GlobalAveragePool": "AveragePool",
    "ReduceMean": "AveragePool",
    "ReduceSum": "AveragePool",
    "GlobalMaxPool": "MaxPool",
    "ReduceMax": "MaxPool",
    "ReduceMin": "MaxPool",
    "GlobalLpPool": "LpPool",
    "ReduceL1": "LpPool",
    "ReduceL2": "LpPool",
}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@rule(*GLOBAL_POOLINGS)
def global_pool(ctx: Context) -> FeatureView:
    """GlobalAveragePool-1/22, GlobalMaxPool-1/22, GlobalLpPool-1/2/22, of axes 2 and up."""
    view = ctx.first_view()
    if view.layout is None:
        axes = tuple(range(2, len(view.shape)))
        spatial = pooled_axes(view, axes)
        source = view.only_map
        if source is not None and spatial is not None and len(spatial) == len(source.extent):
            return pool_view(ctx, view, axes, spatial, keepdims=True)
    if not ctx.windowed:
        (source,) = as_feature_maps(ctx)
        return whole_pool(ctx, source, tuple(range(len(source.extent))))
    source = as_feature_map(ctx, view)
    output = _windowed(ctx, source, tuple(range(len(source.extent))))

    labels = Labels(output.labels(ctx.batches.native), output.labels(ctx.batches.other))
    return FeatureView(ctx.space, ctx.batches, lambda: labels)


def pooled_axes(view: FeatureView, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the spatial axes of the only map that a reduction of the view's ``axes`` pools.

    None unless it combines, for each channel, all positions along some spatial axes, each once.
    """
    source = view.only_map
    if source is None or source.deferred is not None or not axes:
        return None
    rank = len(source.extent)
    if view.layout is not None:
        found = tuple(view.layout.index(axis) - 2 for axis in axes)
        return tuple(sorted(found)) if min(found) >= 0 else None
    if source.is_single_cell:
        return None
    local = view.labels.native % SAMPLE - source.first_label
    rest = [axis for axis in range(local.ndim) if axis not in axes]
    groups = local.transpose(*rest, *axes).reshape(prod(local.shape[a] for a in rest), -1)
    _, *positions = np.unravel_index(groups, source.per_sample_shape)
    varying = [a for a in range(rank) if bool((positions[a] != positions[a][:, :1]).any())]
    short = [a for a in range(rank) if source.extent[a] == 1]
    pooled = tuple(range(rank)) if len({*varying, *short}) == rank else tuple(varying)
    shape = [1 if a in pooled else e for a, e in enumerate(source.extent)]
    together = _element(groups, source, shape)
    ordered = np.sort(groups, axis=1)
    complete = (
        groups.shape[1] == prod(source.extent[a] for a in pooled)
        and bool((together == together[:, :1]).all())
        and bool((ordered[:, 1:] > ordered[:, :-1]).all())
    )
    return pooled if complete and varying else None


def pooled_map(
    ctx: Context, source: FeatureMap, spatial: tuple[int, ...], **changes: object
) -> FeatureMap:
    """Return the map with one cell for the whole image along these spatial axes.

    Raises:
        NodeRefused: If it is the single cell that a layer gives for each window.
    """
    ctx.require_several_cells(source, "pools")
    return ctx.new_map(
        source,
        extent=tuple(1 if a in spatial else e for a, e in enumerate(source.extent)),
        field=tuple(
            f.pool_globally(e) if a in spatial else f
            for a, (f, e) in enumerate(zip(source.field, source.extent, strict=True))
        ),
        mixes_positions=describe(ctx.node),
        pooled_by=ctx.node,
        **changes,
    )


def whole_pool(
    ctx: Context, source: FeatureMap, spatial: tuple[int, ...], **changes: object
) -> FeatureView:
    """Keep the node, which pools a map along these spatial axes."""
    made = pooled_map(ctx, source, spatial, value=ctx.node.outputs[0], **changes)
    return FeatureView.of(made, ctx.space, ctx.batches)


def pool_view(
    ctx: Context,
    view: FeatureView,
    axes: tuple[int, ...],
    spatial: tuple[int, ...],
    *,
    keepdims: bool,
) -> FeatureView:
    """Pool the map of the view along ``spatial``; the result is the view without ``axes``."""
    source = view.only_map
    assert source is not None
    if ctx.windowed:
        output = _windowed(ctx, source, spatial)
    else:
        output = pooled_map(ctx, source, spatial)
        reduced(ctx, source, output, tuple(a + 2 for a in spatial))
    return _without_axes(ctx, view, axes, source, output, keepdims=keepdims)


def reduced(
    ctx: Context, source: FeatureMap | Intermediate, output: FeatureMap, axes: tuple[int, ...]
) -> FeatureMap:
    """Emit the node itself on the map [N, C, *spatial], over these axes, which it keeps."""
    op_type = ctx.node.op_type
    if op_type in GLOBAL_POOLINGS:
        return ctx.emit(op_type, (source,), output, carried=tuple(ctx.node.attributes))
    if ctx.opset < (13 if op_type == "ReduceSum" else 18):
        return ctx.emit(op_type, (source,), output, {"axes": axes, "keepdims": 1})
    stored = ctx.constant(f"{output.name}.axes", np.array(axes, np.int64))
    return ctx.emit(op_type, (source, stored), output, {"keepdims": 1})


def _windowed(ctx: Context, source: FeatureMap, spatial: tuple[int, ...]) -> FeatureMap:
    """Pool by a window of the native extent that slides along these spatial axes.

    Raises:
        NodeRefused: If no pooling operator does so.
    """
    op_type = ctx.node.op_type
    pooling = _WINDOWED.get(op_type)
    if pooling is None:
        ctx.refuse(
            "window-pooling",
            f"no pooling operator does what {op_type} does in each window",
        )
    if source.dtype not in _FLOATS:
        ctx.refuse("unsupported-type", f"pools {source.dtype}, which {pooling} does not")
    kernel = tuple(e if a in spatial else 1 for a, e in enumerate(source.extent))
    field = tuple(f.slide(k) for f, k in zip(source.field, kernel, strict=True))
    output = ctx.new_map(
        source,
        extent=tuple(1 if a in spatial else e for a, e in enumerate(source.extent)),
        field=field,
        one_per_window=source.one_per_window or any(axis.stride for axis in field),
    )
    ctx.tape.append(WindowPooling(node_name(ctx.node), op_type, pooling, kernel))
    attributes: dict[str, AttributeValue] = {"kernel_shape": kernel}
    if op_type in ("ReduceL1", "ReduceL2"):
        attributes["p"] = 1 if op_type == "ReduceL1" else 2

    def inner(what: str, like: FeatureMap) -> FeatureMap:
        return ctx.new_map(like, name=ctx.fresh(f"{output.name}.{what}"))

    match op_type:
        case "ReduceSum":
            mean = ctx.emit(pooling, (source,), inner("mean", output), attributes)
            count = np.array(prod(kernel), source.dtype.numpy())
            factor = ctx.constant(f"{output.name}.count", count)
            return ctx.emit("Mul", (mean, factor), output)
        case "ReduceMin":
            negative = ctx.emit("Neg", (source,), inner("negative", source))
            most = ctx.emit(pooling, (negative,), inner("most", output), attributes)
            return ctx.emit("Neg", (most,), output)
        case _:
            return ctx.emit(pooling, (source,), output, attributes, carried=ctx.carried("p"))


def _without_axes(  # noqa: PLR0913 - a view before and after
    ctx: Context,
    view: FeatureView,
    axes: tuple[int, ...],
    source: FeatureMap,
    output: FeatureMap,
    *,
    keepdims: bool,
) -> FeatureView:
    """Return the reduced tensor as a view of the pooled map."""

    def without(labels: IntArray) -> IntArray:
        first = labels[
            tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(labels.ndim))
        ]
        element = _element(first % SAMPLE - source.first_label, source, output.extent)
        made: IntArray = first // SAMPLE * SAMPLE + output.first_label + element
        return made if keepdims else made.squeeze(axes)

    return view.moved(without)


def _element(
    elements: IntArray, source: FeatureMap, extent: tuple[int, ...] | list[int]
) -> IntArray:
    """Map elements to those of a map with a single cell along the pooled axes."""
    channel, *positions = np.unravel_index(elements, source.per_sample_shape)
    kept = [
        p if e == s else np.zeros_like(p)
        for p, e, s in zip(positions, extent, source.extent, strict=True)
    ]
    return np.ravel_multi_index((channel, *kept), (source.channels, *extent)).astype(np.int64)
