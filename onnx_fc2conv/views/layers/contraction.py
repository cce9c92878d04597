"""From the contraction of a view's axis to Convs on the maps that the view draws on."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.layers.kernel import Kernel, Part, Weight
from onnx_fc2conv.views.layers.patches import patches
from onnx_fc2conv.views.layers.quantized_kernel import layer_kernel
from onnx_fc2conv.views.layers.rows import (
    Rows,
    distinct,
    rows_along,
    rows_at_positions,
    sample_axes,
)
from onnx_fc2conv.views.maps.as_feature_map import single_map
from onnx_fc2conv.views.maps.grids import joined_field
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import AttributeValue, ConstantTensor

__all__ = ["Reading", "conv_attributes", "read", "slid_map", "sum_of_convs"]

_MAX_PADDED = 1 << 24
"""Most elements of a kernel that repeats the weight for each row; more only fill memory."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The reads of a layer: row r reads the list ``which[r]`` of elements at position ``at[r]``.

    Attributes:
        parts: The part that it reads of each map; its kernels have the outputs of all lists.
        lists: Number of lists.
        which, at: Have the operand's shape without the batch and the contracted axis.
    """

    parts: tuple[Part, ...]
    lists: int
    which: IntArray
    at: IntArray


def read(ctx: Context, view: FeatureView, axis: int, outputs: int) -> Reading:
    """Return the reads of a layer with K outputs that contracts this axis of the view.

    Raises:
        NodeRefused: If it reads several maps that cannot be joined, or too many lists of elements.
    """
    (axis,) = sample_axes(view, (axis,))
    one_row = view.index.size == view.index.shape[axis]
    if one_row and len(view.maps) > 1:
        return _from_several_maps(ctx, view, axis)
    found = None if one_row or not ctx.patches else patches(view, rows_along(view.index, (axis,)))
    if found is not None and len(found.part.elements) in (1, found.part.groups):
        return Reading((found.part,), len(found.part.elements), found.which, found.at)
    source, local = single_map(ctx, view)
    rows = rows_along(local, (axis,))
    if one_row:
        nowhere = np.zeros(rows.shape[:-1], np.int64)
        part = Part(source, source.extent, rows.reshape(1, -1))
        return Reading((part,), 1, nowhere, nowhere)
    lists, part = _of_rows(source, rows)
    made = len(part.elements) * outputs
    elements = made * source.channels // part.groups * prod(part.window)
    if len(part.elements) > 1 and elements > _MAX_PADDED:
        ctx.refuse(
            "token-wise",
            f"is applied to {rows[..., 0].size} rows per sample (operand {list(view.shape)}) that "
            f"read several positions, or other channels each; the kernel would have {elements:,} "
            "elements",
        )
    return Reading((part,), len(part.elements), lists.which, lists.at)


def _of_rows(source: FeatureMap, rows: IntArray) -> tuple[Rows, Part]:
    """Return the reads of a layer that is applied to several rows [*rows, D] of a sample."""
    at_positions = rows_at_positions(rows, source.size // source.channels)
    if at_positions is not None and source.scales_by_channel:
        return at_positions, Part(source, (1,) * len(source.extent), at_positions.lists)
    lists = distinct(rows)
    return lists, Part(source, source.extent, lists.lists)


def _from_several_maps(ctx: Context, view: FeatureView, axis: int) -> Reading:
    """Read one row of features of several maps: joined where their grids agree, else a part each.

    The layer folds constant maps into its bias.
    """
    nowhere = np.zeros(rows_along(view.index, (axis,)).shape[:-1], np.int64)
    if all(source.constant is None for source in view.maps):
        with ctx.attempt():
            source, local = single_map(ctx, view)
            part = Part(source, source.extent, local.reshape(1, -1))
            return Reading((part,), 1, nowhere, nowhere)
    index = view.index.reshape(-1)
    parts: list[Part] = []
    for source in view.maps:
        local = index - source.first_label
        (columns,) = np.nonzero((local >= 0) & (local < source.size))
        parts.append(Part(source, source.extent, local[None, columns], columns))
    return Reading(tuple(parts), 1, nowhere, nowhere)


def sum_of_convs(
    ctx: Context, weight: Weight, parts: list[Part], bias: ConstantTensor | ir.Value | None
) -> tuple[FeatureMap, list[Kernel]]:
    """Emit a Conv for each map, with strides that align their cells, and their sum.

    Where cells have been subdivided, the stride merges them again: a shift of the image by less
    than their common stride gives another map.

    A map with one cell for the whole image is added to every cell.

    Returns:
        The sum, and the kernel of each part.

    Raises:
        NodeRefused: If the maps' cells cannot be aligned.
    """
    ranks = {len(part.source.extent) for part in parts}
    if len(ranks) > 1:
        ctx.refuse("misaligned", f"draws on maps of {sorted(ranks)} spatial axes")
    fields = [part.source.field for part in parts]
    alone = all(part.window == part.source.extent for part in parts)
    common = [
        lcm(*(f.stride * (f.repeats if alone else 1) for f in axis if f.stride))
        for axis in zip(*fields, strict=True)
    ]
    kernels: list[Kernel] = []
    maps: list[FeatureMap] = []
    for part in parts:
        source, kernel = part.source, layer_kernel(ctx, weight, part)
        strides = tuple(
            whole // f.stride if f.stride else 1
            for f, whole in zip(source.field, common, strict=True)
        )
        own = ctx.name if len(parts) == 1 else ctx.fresh(f"{ctx.name}.{source.name}")
        made = slid_map(ctx, part, kernel, own, strides=strides)
        operands = (source.base or source, kernel.operand, *(() if bias is None else (bias,)))
        maps.append(ctx.emit("Conv", operands, made, conv_attributes(part, kernel, strides)))
        kernels.append(kernel)
        bias = None
    total = maps[0]
    for number, summand in enumerate(maps[1:], 2):
        both = ctx.new_map(
            total,
            field=joined_field(ctx, (total, summand)),
            name=ctx.name if number == len(maps) else ctx.fresh(f"{ctx.name}.sum"),
            sources=(total, summand),
            one_per_window=total.one_per_window or summand.one_per_window,
        )
        total = ctx.emit("Add", (total, summand), both)
    return total, kernels


def slid_map(  # noqa: PLR0913 - a map before and after
    ctx: Context,
    part: Part,
    kernel: Kernel,
    name: str,
    *,
    strides: tuple[int, ...] | None = None,
    dtype: ir.DataType | None = None,
) -> FeatureMap:
    """Return the map of a Conv with the kernel of a part."""
    source, slides = part.source, _sliding(part, strides)
    field = slides.slide(source.field)
    whole = part.sliding is None and part.window == source.extent
    return ctx.new_map(
        source,
        name=name,
        channels=kernel.constant.shape[0],
        extent=slides.output_extent,
        field=field,
        dtype=dtype or source.dtype,
        one_per_window=any(axis.stride for axis in field) if whole else source.one_per_window,
        pads=describe(ctx.node) if any(slides.pads) else None,
    )


def _sliding(part: Part, strides: tuple[int, ...] | None) -> SlidingWindow:
    """Return the window of a part's Conv: that of its patches, or unpadded with these strides."""
    if part.sliding is not None:
        return part.sliding
    return SlidingWindow.resolve(part.source.extent, part.window, strides)


def conv_attributes(
    part: Part, kernel: Kernel, strides: tuple[int, ...] | None = None
) -> dict[str, AttributeValue]:
    """Return the attributes of a Conv, QLinearConv or ConvInteger."""
    slides = _sliding(part, strides)
    attributes: dict[str, AttributeValue] = {"kernel_shape": part.window}
    if kernel.groups > 1:
        attributes["group"] = kernel.groups
    if max(slides.strides, default=1) > 1:
        attributes["strides"] = slides.strides
    if max(slides.dilations, default=1) > 1:
        attributes["dilations"] = slides.dilations
    if any(slides.pads):
        attributes["pads"] = slides.pads
    return attributes
