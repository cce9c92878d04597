"""Rows: the lists of elements that an operator along some axes of a view reads.

A layer along the last axis of [N, T, D] is applied T times per sample. Where every row reads its
channels at one position of a map, it is one operator along the channels of that map, carried out
at all positions at once: tokens are positions. Where rows read different channels of one position,
as [N, A, B] after an FC layer, they are groups of channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureView

__all__ = ["Rows", "distinct", "rows_along", "rows_at_positions", "sample_axes"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that each read a list of elements: ``V[n, r, d] = M[n, lists[which[r], d], at[r]]``.

    Attributes:
        lists: The distinct lists, [P, D], in the order of their first row.
        which: The list that each row reads, of the view's shape without the batch axis and the
            axes along which it is read.
        at: The position in the map where each row reads, of the same shape.
    """

    lists: IntArray
    which: IntArray
    at: IntArray


def sample_axes(view: FeatureView, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return axes of the view, without the batch axis, as axes of ``view.index``."""
    batch = view.batch_axis
    return tuple(axis - (batch is not None and batch < axis) for axis in axes)


def rows_along(index: IntArray, axes: tuple[int, ...]) -> IntArray:
    """Return the index with these axes merged at the end: [*rows, D]."""
    rest = [axis for axis in range(index.ndim) if axis not in axes]
    moved = index.transpose(*rest, *axes)
    return moved.reshape(*moved.shape[: len(rest)], prod(index.shape[axis] for axis in axes))


def rows_at_positions(local: IntArray, positions: int) -> Rows | None:
    """Return rows [*rows, D] of a map [C, positions]; None if one reads several positions."""
    at = local % positions
    if at.size and not (at == at[..., :1]).all():
        return None
    rows = distinct(local // positions)
    return Rows(rows.lists, rows.which, at[..., 0])


def distinct(rows: IntArray) -> Rows:
    """Return rows [*rows, D] in terms of the distinct ones."""
    flat = rows.reshape(-1, rows.shape[-1])
    shape = rows.shape[:-1]
    if (flat == flat[:1]).all():
        return Rows(flat[:1], np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    _, first, which = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.argsort(order)
    return Rows(
        flat[first[order]], rank[which.reshape(-1)].reshape(shape), np.zeros(shape, np.int64)
    )
