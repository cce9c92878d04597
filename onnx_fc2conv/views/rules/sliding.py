"""Sliding operators: Conv, pooling, and others that keep maps (Concat of channels, Pad).

The node stays; its output is a map whose receptive field and native extent are computed here.
Pads that depend on the input size (``auto_pad=SAME_*``, ``ceil_mode``) are frozen to the pads
at the native size, or the grid would move with the size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.geometry import output_length
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.grids import joined_field, parting
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import AttributeValue
from onnx_fc2conv.views.registry import Answer, Fact, rule
from onnx_fc2conv.views.rules.movement import concatenate, pad_features

__all__ = ["conv", "joined_channels", "pool", "pooled"]


@dataclass(frozen=True)
class _Window:
    """The hyperparameters of a sliding layer, one entry per spatial axis.

    Attributes:
        kernel, strides, dilations: As in the operator.
        begins, ends: Padding before and after, auto_pad and ceil_mode resolved.
        frozen: Attributes to write into the node.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    frozen: Mapping[str, AttributeValue | None]

    @property
    def pads(self) -> bool:
        return any(self.begins) or any(self.ends)


@rule("Conv", "ConvInteger", "QLinearConv")
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
    window = _window(ctx, source, tuple(shape[2:]))
    return _slide(ctx, source, window, channels=shape[0], dtype=_sum_type(ctx) or source.dtype)


def _is_constant(fact: Fact | None) -> bool:
    """Whether an operand is constant, or one number that is the same for all samples."""
    return fact is None or isinstance(fact, Constant) or fact == Unknown(False, uniform=())


def _sum_type(ctx: Context) -> ir.DataType | None:
    """Return the type of a convolution's result; None for that of its image."""
    if ctx.node.op_type == "ConvInteger":
        return ir.DataType.INT32
    zero = ctx.constant_operand(7) if ctx.node.op_type == "QLinearConv" else None
    return None if zero is None else ir.DataType.from_numpy(zero.array.dtype)


@rule("MaxPool", "AveragePool", "LpPool")
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
    window = _window(ctx, source, kernel)
    return _slide(ctx, source, window, channels=source.channels, dtype=source.dtype)


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
        return pad_features(ctx)
    rank = len(view.layout)
    pads = ctx.ints_attribute("pads")
    amounts, axes = ctx.constant_operand(1), ctx.operand(3)
    if amounts is not None and not amounts.sized:
        pads = tuple(int(amount) for amount in amounts.array)
    if isinstance(axes, Constant) and not axes.sized and pads is not None:
        pads = _pads_of_all(pads, [int(axis) % rank for axis in axes.array.reshape(-1)], rank)
    elif axes is not None:
        pads = None
    if pads is None or len(pads) != 2 * rank:
        ctx.refuse("data-dependent", "pads by amounts that are not constant for all axes")
    begins = [pads[axis] for axis in view.layout]
    ends = [pads[rank + axis] for axis in view.layout]
    if begins[0] or ends[0]:
        axis = view.layout[0]
        ctx.refuse("batch-mixing", f"pads axis {axis}, which holds the samples")
    if source.one_per_window and any((*begins[2:], *ends[2:])):
        ctx.refuse("slides-after-fc", "pads the single cell that an FC layer gives")
    channels = source.channels + begins[1] + ends[1]
    spatial = zip(source.field, source.extent, begins[2:], ends[2:], strict=True)
    field, extent = zip(
        *((f.slide(1, pad=begin, end_pad=end), e + begin + end) for f, e, begin, end in spatial),
        strict=True,
    )
    if min(channels, *extent) < 1:
        ctx.refuse("shape-mismatch", f"crops {list(source.per_sample_shape)} to nothing")
    return ctx.kept(
        source,
        layout=view.layout,
        channels=channels,
        field=field,
        extent=extent,
        pads=describe(ctx.node) if max(*begins[2:], *ends[2:]) > 0 else None,
    )


def _pads_of_all(pads: tuple[int, ...], axes: list[int], rank: int) -> tuple[int, ...] | None:
    """Return the pads of all axes, from those of some (Pad-18); a negative one crops."""
    if len(pads) != 2 * len(axes):
        return None
    whole = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        whole[axis], whole[rank + axis] = pads[position], pads[len(axes) + position]
    return tuple(whole)


def _window(ctx: Context, source: FeatureMap, kernel: tuple[int, ...]) -> _Window:
    """Return the node's window with auto_pad and ceil_mode resolved at the native size."""
    rank = len(source.extent)
    strides = ctx.ints_attribute("strides") or (1,) * rank
    dilations = ctx.ints_attribute("dilations") or (1,) * rank
    pads = ctx.ints_attribute("pads") or (0,) * (2 * rank)
    if not (len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
        ctx.refuse("invalid-node", f"strides, dilations or pads are not for {rank} axes")
    if min(*strides, *dilations, *kernel) < 1:
        ctx.refuse("invalid-node", "has a kernel, stride or dilation below 1")
    begins, ends = list(pads[:rank]), list(pads[rank:])
    frozen: dict[str, AttributeValue | None] = {}

    auto_pad = ctx.node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        begins, ends = [0] * rank, [0] * rank
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        for axis, length in enumerate(source.extent):
            span = (kernel[axis] - 1) * dilations[axis] + 1
            cells = -(-length // strides[axis])
            total = max(0, (cells - 1) * strides[axis] + span - length)
            small, large = total // 2, total - total // 2
            begins[axis], ends[axis] = (
                (small, large) if auto_pad == "SAME_UPPER" else (large, small)
            )
        frozen = {"auto_pad": None, "pads": (*begins, *ends)}
    elif auto_pad != "NOTSET":
        ctx.refuse("invalid-node", f"has auto_pad {auto_pad!r}")

    if ctx.int_attribute("ceil_mode", 0):
        extra = [
            _ceil_extra(source.extent[a], kernel[a], strides[a], dilations[a], begins[a], ends[a])
            for a in range(rank)
        ]
        if any(extra) and ctx.int_attribute("count_include_pad", 0):
            ctx.refuse(
                "ceil-mode", "averages over its padding with ceil_mode, which pads cannot express"
            )
        ends = [end + more for end, more in zip(ends, extra, strict=True)]
        frozen = {**frozen, "ceil_mode": None, "auto_pad": None, "pads": (*begins, *ends)}
    return _Window(kernel, strides, dilations, tuple(begins), tuple(ends), frozen)


def _ceil_extra(  # noqa: PLR0913 - the hyperparameters of one axis
    length: int, kernel: int, stride: int, dilation: int, begin: int, end: int
) -> int:
    """Return the end padding that gives, rounded down, the cells of ceil_mode (MaxPool-12).

    A last window that would start in the end padding is not computed.
    """
    span = (kernel - 1) * dilation + 1
    cells = -(-(length + begin + end - span) // stride) + 1
    if (cells - 1) * stride >= length + begin:
        cells -= 1
    return max(0, (cells - 1) * stride + span - (length + begin + end))


def _slide(
    ctx: Context, source: FeatureMap, window: _Window, *, channels: int, dtype: ir.DataType
) -> FeatureView:
    if source.one_per_window and (window.pads or max(*window.kernel, *window.strides) > 1):
        ctx.refuse(
            "slides-after-fc",
            f"slides a {'×'.join(map(str, window.kernel))} window over the single cell that an FC "
            "layer gives; on a map it would reach into the neighboring windows",
        )
    axes = range(len(source.extent))
    extent = tuple(
        output_length(
            source.extent[a],
            window.kernel[a],
            window.strides[a],
            window.dilations[a],
            window.begins[a] + window.ends[a],
        )
        for a in axes
    )
    if min(extent, default=1) < 1:
        ctx.refuse(
            "shape-mismatch",
            f"has no cell at the native size: kernel {list(window.kernel)} over "
            f"{list(source.extent)}; check --input-shape",
        )
    field = tuple(
        source.field[a].slide(
            window.kernel[a],
            window.strides[a],
            window.dilations[a],
            window.begins[a],
            window.ends[a],
        )
        for a in axes
    )
    ctx.freeze(window.frozen)
    return ctx.kept(
        source,
        channels=channels,
        extent=extent,
        field=field,
        dtype=dtype,
        pads=describe(ctx.node) if window.pads else None,
    )
