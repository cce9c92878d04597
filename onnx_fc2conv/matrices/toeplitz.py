"""The one matrix that a convolution of a whole input is, and how large it would be.

    y = A·x      A[(k, o), (c, p)] = K[k, c, s]  where cell o reads position p as element s, else 0

x is the flattened input [C·positions], y the flattened output [K·cells], both row-major: A is
block-Toeplitz, and nearly all of it is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.matrices.layer import ConvLayer

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Coordinates", "MatrixSize", "conv_coordinates", "conv_matrix", "conv_matrix_size"]


@dataclass(frozen=True)
class MatrixSize:
    """The size of a layer's matrix, known before anything is allocated.

    Attributes:
        rows: Number of outputs.
        columns: Number of inputs.
        nonzeros: Number of entries that the kernel decides; the others are zero.
        itemsize: Bytes of one entry.
    """

    rows: int
    columns: int
    nonzeros: int
    itemsize: int

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self.rows * self.columns

    @property
    def dense_bytes(self) -> int:
        """Bytes of the whole matrix."""
        return self.entries * self.itemsize

    @property
    def sparse_bytes(self) -> int:
        """Bytes of the nonzeros with their row and column, int64 each."""
        return self.nonzeros * (self.itemsize + 16)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A sparse matrix as coordinates (COO), ordered by row, then column.

    Attributes:
        rows, columns: int64 [nonzeros].
        values: [nonzeros], in the kernel's dtype.
        shape: Rows and columns of the matrix.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: npt.NDArray[Any]
    shape: tuple[int, int]


def conv_matrix_size(layer: ConvLayer) -> MatrixSize:
    """The size of the layer's matrix, in exact integers: nothing is allocated."""
    pairs = prod(_pairs(layer.window, axis) for axis in range(len(layer.window.extent)))
    return MatrixSize(
        rows=layer.outputs * layer.cells,
        columns=layer.channels * layer.positions,
        nonzeros=pairs * layer.outputs * (layer.channels // layer.groups),
        itemsize=int(layer.kernel.dtype.itemsize),
    )


def _pairs(window: SlidingWindow, axis: int) -> int:
    """Number of (cell, element of its window) along an axis that lie inside the input."""
    last = window.extent[axis] - 1
    found = 0
    for element in range(window.kernel[axis]):
        first = element * window.dilations[axis] - window.begins[axis]
        stride, cells = window.strides[axis], window.output_extent[axis]
        low = max(0, -(first // stride))  # the first cell at or after position 0
        high = min(cells - 1, (last - first) // stride)
        found += max(0, high - low + 1)
    return found


def conv_matrix(layer: ConvLayer) -> npt.NDArray[Any]:
    """The layer's matrix [K·cells, C·positions], in the kernel's dtype.

    Where the kernel covers the whole input it is the kernel's own bytes in another shape.
    """
    shape = (layer.outputs * layer.cells, layer.channels * layer.positions)
    kernel = layer.kernel.numpy()
    if layer.cells == 1 and layer.groups == 1 and kernel.shape[2:] == layer.window.extent:
        return kernel.reshape(shape)
    matrix = np.zeros((layer.outputs, layer.cells, layer.channels, layer.positions), kernel.dtype)
    weights, index = layer.by_position(), layer.window.positions()
    outputs, depth = weights.shape[1:3]
    for element in range(index.shape[1]):
        cells = np.flatnonzero(index[:, element] < layer.positions)
        at = index[cells, element]
        for group in range(layer.groups):
            block = matrix[
                group * outputs : (group + 1) * outputs, :, group * depth : (group + 1) * depth
            ]
            block[:, cells, :, at] = weights[group, :, :, element]
    return matrix.reshape(shape)


def conv_coordinates(layer: ConvLayer) -> Coordinates:
    """The nonzeros of the layer's matrix; entries where the kernel itself is zero are kept."""
    index, weights = layer.window.positions(), layer.by_position()
    groups, outputs, depth, _ = weights.shape
    cells, elements = np.nonzero(index < layer.positions)
    at = index[cells, elements]
    k = np.arange(groups * outputs)[:, None, None]
    c = (np.arange(groups * outputs) // outputs)[:, None] * depth + np.arange(depth)
    rows = np.broadcast_to(k * layer.cells + cells, (groups * outputs, depth, len(at)))
    columns = c[:, :, None] * layer.positions + at
    values = weights.reshape(groups * outputs, depth, -1)[:, :, elements]
    order = np.lexsort((columns.reshape(-1), rows.reshape(-1)))
    return Coordinates(
        rows.reshape(-1)[order],
        columns.reshape(-1)[order],
        values.reshape(-1)[order],
        (layer.outputs * layer.cells, layer.channels * layer.positions),
    )
