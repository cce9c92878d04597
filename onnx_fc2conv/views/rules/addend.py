"""Gemm's third operand where it is no constant: Y = A'·B' + beta·C is a layer and a sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.plan import Constant, Emitted, Step
from onnx_fc2conv.views.rules.grids import joined_field, parting
from onnx_fc2conv.views.rules.registry import Application
from onnx_fc2conv.views.rules.restore import channels_as_map
from onnx_fc2conv.views.view import FeatureView, Mixed

__all__ = ["added"]


def added(app: Application, layer: Emitted, addend: FeatureView, beta: float) -> Emitted:
    """The layer [N, K] plus beta times a view [N, K] or [N, 1], cell by cell.

    Args:
        app: The Gemm.
        layer: What it is without its third operand.
        addend: The third operand.
        beta: Its factor.

    Raises:
        NodeRefused: If the third operand has other rows, or is no map of single cells.
    """
    product = layer.output
    made = product.only_map
    assert made is not None
    if not _fits(product, addend):
        app.refuse(
            "bias-not-constant",
            f"adds a view of shape {list(addend.shape)} to {list(product.shape)}, with other rows",
        )
    steps, summand = channels_as_map(app, addend)
    if beta != 1.0:
        factor = np.array(beta, summand.dtype.numpy())
        scaled = app.new_map(summand, name=app.names.fresh(f"{summand.name}.scaled"))
        by = Constant(app.names.fresh(f"{scaled.name}.factor"), (), lambda: ir.Tensor(factor))
        steps = (*steps, Step("Mul", (summand, by), scaled, app.node))
        summand = scaled
    maps = (made, summand)
    field = joined_field(app, maps)
    total = app.new_map(
        made,
        name=app.names.fresh(f"{made.name}.sum"),
        field=field,
        sources=maps,
        one_per_window=any(m.one_per_window for m in maps),
        parts=parting(app, maps),
    )
    step = Step("Add", maps, total, app.node)
    return replace(
        layer,
        steps=(*layer.steps, *steps, step),
        output=product.relabelled(made, total),
    )


def _fits(product: FeatureView, addend: FeatureView) -> bool:
    """Whether row n of both is made of sample n, and the product is one row of all channels."""
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
