"""Sliding operators: Conv, pooling, and others that keep maps (Concat of channels, Pad).

The node stays; its output is a map whose receptive field and native extent are computed here.
Pads that depend on the input size (``auto_pad=SAME_*``, ``ceil_mode``) are frozen to the pads
at the native size, or the grid would move with the size of the image.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.geometry import NoCell, SlidingWindow
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.graphs.operators import CONVOLUTIONS, POOLINGS
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.grids import joined_field, parting
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.registry import Answer, Fact, rule
from onnx_fc2conv.views.rules.movement import concatenate, pad_amounts, pad_features

__all__ = ["conv", "joined_channels", "pool", "pooled"]


@rule(*CONVOLUTIONS)
def conv(ctx: Context) -> FeatureView:
    """Conv-1/11/22, ConvInteger-10 and QLinearConv-10 with a constant kernel."""
    op_type = ctx.node.op_type
    weight = ctx.constant_operand(3 if op_type == "QLinearConv" else 1)
    if weight is None or not all(map(_is_constant, ctx.operands[1:])):
        ctx.refuse("weight-not-constant", "its kernel is not a constant")
    shape = weight.shape
    (source,) = as_feature_maps(ctx)
    if len(shape) != 2 + len(source.extent):
        ctx.refuse("invalid-node", f"kernel {list(shape)} does not fit its input")
    if shape[1] * ctx.int_attribute("group", 1) != source.channels:
        ctx.refuse("invalid-node", f"kernel {list(shape)} does not fit {source.channels} channels")
    dtype = _sum_type(ctx) or source.dtype
    return _slide(ctx, source, tuple(shape[2:]), channels=shape[0], dtype=dtype)


def _is_constant(fact: Fact | None) -> bool:
    """Whether an operand is constant, or one number that is the same for all samples."""
    return fact is None or isinstance(fact, Constant) or fact == Unknown(False, uniform=())


def _sum_type(ctx: Context) -> ir.DataType | None:
    """Return the type of a convolution's result; None for that of its image."""
    if ctx.node.op_type == "ConvInteger":
        return ir.DataType.INT32
    zero = ctx.constant_operand(7) if ctx.node.op_type == "QLinearConv" else None
    return None if zero is None else ir.DataType.from_numpy(zero.array.dtype)


@rule(*POOLINGS)
def pool(ctx: Context) -> FeatureView:
    """MaxPool-1/8/10/11/12/22, AveragePool-1/7/10/11/19/22, LpPool-2/11/18/22."""
    if len(ctx.node.outputs) > 1 and ctx.node.outputs[1].uses():
        ctx.refuse("pool-indices", "its indices output counts positions of one image size")
    return pooled(ctx)


def pooled(ctx: Context) -> FeatureView:
    """Apply a pooling with the node's window."""
    kernel = ctx.ints_attribute("kernel_shape")
    (source,) = as_feature_maps(ctx)
    if kernel is None or len(kernel) != len(source.extent):
        ctx.refuse("invalid-node", f"kernel_shape {kernel} does not fit its input")
    return _slide(ctx, source, kernel)


@rule("Concat")
def concat(ctx: Context) -> Answer:
    """Concat of maps along the channels is a map, of anything else data movement."""
    views = [fact for fact in ctx.operands if isinstance(fact, FeatureView)]
    on_maps = next((view for view in views if view.layout is not None), None)
    if on_maps is None or on_maps.layout is None or len(views) < len(ctx.operands):
        return concatenate(ctx)
    rank = len(on_maps.layout)
    axis = ctx.int_attribute("axis", 1) % rank
    if axis != on_maps.layout[1] or any(len(view.shape) != rank for view in views):
        return concatenate(ctx)
    return joined_channels(ctx, on_maps.layout)


def joined_channels(ctx: Context, layout: tuple[int, ...]) -> FeatureView:
    """The node joins the channels of all maps that it is given, which are in this layout."""
    maps = as_feature_maps(ctx, any_layout=True)
    if any(m.extent != maps[0].extent for m in maps):
        ctx.refuse("invalid-node", "joins maps of different sizes")
    field = joined_field(ctx, maps, broadcasts=False)
    return ctx.kept(
        maps[0],
        layout=layout,
        channels=sum(m.channels for m in maps),
        field=field,
        sources=maps,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(ctx, maps),
    )


@rule("Pad")
def pad(ctx: Context) -> Answer:
    """Padding of the spatial axes and the channels of a map (Pad-2/11/13/18/19/21)."""
    view = ctx.view(0)
    if view is None or any(isinstance(fact, FeatureView) for fact in ctx.operands[1:]):
        ctx.refuse("data-dependent", "pads by amounts or values that depend on the image")
    source = view.whole_map
    if view.layout is None or source is None:
        return pad_features(ctx, view)
    amounts = pad_amounts(ctx, len(view.layout))
    samples, channels, *spatial = (amounts[axis] for axis in view.layout)
    if any(samples):
        ctx.refuse("batch-mixing", f"pads axis {view.layout[0]}, which holds the samples")
    if any(map(any, spatial)):
        ctx.require_several_cells(source, "pads")
    shape = [
        n + sum(pads) for n, pads in zip(source.per_sample_shape, (channels, *spatial), strict=True)
    ]
    if min(shape) < 1:
        ctx.refuse("shape-mismatch", f"crops {list(source.per_sample_shape)} to nothing")
    along = zip(source.field, spatial, strict=True)
    return ctx.kept(
        source,
        layout=view.layout,
        channels=shape[0],
        field=tuple(field.slide(1, pad=before, end_pad=after) for field, (before, after) in along),
        extent=tuple(shape[1:]),
        pads=describe(ctx.node) if max(map(max, spatial), default=0) > 0 else None,
    )


def _slide(
    ctx: Context, source: FeatureMap, kernel: tuple[int, ...], **changes: object
) -> FeatureView:
    """Slide the node's window over the map; the result is a map with these ``changes``."""
    strides, pads = ctx.ints_attribute("strides"), ctx.ints_attribute("pads")
    if max((*kernel, *(strides or ()))) > 1 or any(pads or ()):
        ctx.require_several_cells(source, f"slides a {'×'.join(map(str, kernel))} window over")
    auto_pad = ctx.node.attributes.get_string("auto_pad", "NOTSET")
    ceil_mode = bool(ctx.int_attribute("ceil_mode", 0))
    given = (strides, ctx.ints_attribute("dilations"), pads, auto_pad)
    try:
        window = SlidingWindow.resolve(source.extent, kernel, *given, ceil_mode=ceil_mode)
        floor = SlidingWindow.resolve(source.extent, kernel, *given) if ceil_mode else window
    except NoCell:
        ctx.refuse(
            "shape-mismatch",
            f"has no cell at the native size: kernel {list(kernel)} over {list(source.extent)}; "
            "check --input-shape",
        )
    except ValueError as error:
        ctx.refuse("invalid-node", str(error))
    if window != floor and ctx.int_attribute("count_include_pad", 0):
        ctx.refuse(
            "ceil-mode", "averages over its padding with ceil_mode, which pads cannot express"
        )
    if ceil_mode or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        gone = dict.fromkeys(["auto_pad", "ceil_mode"] if ceil_mode else ["auto_pad"])
        ctx.freeze({**gone, "pads": window.pads})
    return ctx.kept(
        source,
        extent=window.output_extent,
        field=window.slide(source.field),
        pads=describe(ctx.node) if any(window.pads) else None,
        **changes,
    )
