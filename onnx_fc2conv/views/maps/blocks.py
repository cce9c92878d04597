"""Views that are maps on another grid: blocks of cells as channels, or channels as blocks of cells.

SpaceToDepth and DepthToSpace (Shi et al. 2016), in whatever spelling: exporters write them as
Reshape → Transpose → Reshape too, with the size of the map in the constants. Where a node needs a
map, the operator itself is emitted, which fits any size.
"""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.channels import picked_channels
from onnx_fc2conv.views.maps.grids import subdivided
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureMap

__all__ = ["regridded"]


def regridded(ctx: Context, source: FeatureMap, local: IntArray) -> FeatureMap | None:
    """Return the map [C', *extent] of the elements ``local`` of a map of two spatial axes.

    None if its cells are neither whole blocks of the map's cells, nor made of its channels.

    Args:
        ctx: The node that needs it.
        source: The map, without a deferred affine.
        local: Row-major positions in its elements.

    Raises:
        NodeRefused: If cells would lie at fractions of pixels.
    """
    if len(source.extent) != 2 or local.ndim != 3:
        return None
    height, width = local.shape[1:]
    rows, columns = source.extent
    if height and rows % height == 0 and rows // height == columns / width:
        return _blocks_as_channels(ctx, source, local, rows // height)
    if height % rows == 0 and height // rows == width / columns:
        return _channels_as_blocks(ctx, source, local, height // rows)
    return None


def _blocks_as_channels(
    ctx: Context, source: FeatureMap, local: IntArray, block: int
) -> FeatureMap | None:
    """SpaceToDepth-1/13: channel (i·b + j)·C + c is channel c of the cell i, j of each block."""
    channel, row, column = np.unravel_index(local, source.per_sample_shape)
    i, j = np.indices(local.shape[1:])
    down, right = row - block * i, column - block * j
    inside = (down >= 0) & (down < block) & (right >= 0) & (right < block)
    wanted = (down * block + right) * source.channels + channel
    if not inside.all() or not (wanted == wanted[:, :1, :1]).all():
        return None
    made = ctx.new_map(
        source,
        name=ctx.fresh(f"{ctx.name}.blocks"),
        channels=source.channels * block**2,
        extent=local.shape[1:],
        field=tuple(axis.take_blocks(block) for axis in source.field),
        parts=describe(ctx.node),
    )
    ctx.emit("SpaceToDepth", (source,), made, {"blocksize": block})
    return picked_channels(ctx, made, wanted[:, 0, 0])


def _channels_as_blocks(
    ctx: Context, source: FeatureMap, local: IntArray, block: int
) -> FeatureMap | None:
    """DepthToSpace-1/11/13 (DCR): cell i, j of each block is channel (i·b + j)·C' + c."""
    channel, row, column = np.unravel_index(local, source.per_sample_shape)
    i, j = np.indices(local.shape[1:])
    if not ((row == i // block) & (column == j // block)).all():
        return None
    height, width = source.extent
    by_phase = channel.reshape(-1, height, block, width, block).transpose(0, 2, 4, 1, 3)
    if not (by_phase == by_phase[..., :1, :1]).all():
        return None
    field = tuple(
        subdivided(ctx, axis, length, block)[0]
        for axis, length in zip(source.field, source.extent, strict=True)
    )
    deep = picked_channels(ctx, source, by_phase[..., 0, 0].transpose(1, 2, 0).reshape(-1))
    made = ctx.new_map(
        deep,
        name=ctx.fresh(f"{ctx.name}.cells"),
        channels=len(local),
        extent=local.shape[1:],
        field=field,
        subdivides=describe(ctx.node),
    )
    return ctx.emit("DepthToSpace", (deep,), made, {"blocksize": block})
