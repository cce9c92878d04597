"""Gemm's third operand where it is not constant: Y = A'·B' + beta·C is a layer and a sum."""

from __future__ import annotations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import channels_as_map
from onnx_fc2conv.views.maps.grids import joined_field, parting
from onnx_fc2conv.views.maps.view import FeatureView, Mixed

__all__ = ["added"]


def added(ctx: Context, product: FeatureView, addend: FeatureView, beta: float) -> FeatureView:
    """Add beta times a view [N, K] or [N, 1] to a layer [N, K], cell by cell.

    Args:
        ctx: The Gemm.
        product: The Gemm without its third operand.
        addend: The third operand.
        beta: Its factor.

    Raises:
        NodeRefused: If the third operand has other rows, or is no map of single cells.
    """
    made = product.only_map
    assert made is not None
    if not _fits(product, addend):
        ctx.refuse(
            "bias-not-constant",
            f"adds a view of shape {list(addend.shape)} to {list(product.shape)}, with other rows",
        )
    summand = channels_as_map(ctx, addend)
    if beta != 1.0:
        scaled = ctx.new_map(summand, name=ctx.fresh(f"{summand.name}.scaled"))
        factor = ctx.constant(f"{scaled.name}.factor", np.array(beta, summand.dtype.numpy()))
        summand = ctx.emit("Mul", (summand, factor), scaled)
    maps = (made, summand)
    total = ctx.new_map(
        made,
        field=joined_field(ctx, maps),
        name=ctx.fresh(f"{made.name}.sum"),
        sources=maps,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(ctx, maps),
    )
    return product.relabelled(made, ctx.emit("Add", maps, total))


def _fits(product: FeatureView, addend: FeatureView) -> bool:
    """Whether row n of both belongs to sample n, and the product is one row of all channels."""
    try:
        axes = product.batch_axis, addend.batch_axis
    except Mixed:
        return False
    made = product.only_map
    one_row = made is not None and np.array_equal(
        product.local_index(made).reshape(-1), np.arange(made.channels)
    )
    return (
        one_row
        and axes == (0, 0)
        and len(product.shape) == len(addend.shape) == 2
        and addend.shape[1] in (1, product.shape[1])
    )
