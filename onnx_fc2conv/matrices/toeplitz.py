"""A convolution of a whole input as one matrix, and the size of that matrix.

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

__all__ = ["Coordinates", "MatrixSize", "conv_coordinates", "conv_matrix_size"]


@dataclass(frozen=True)
class MatrixSize:
    """The size of a layer's matrix, known before anything is allocated.

    Attributes:
        rows: Number of outputs.
        columns: Number of inputs.
        nonzeros: Number of entries that come from the kernel; the others are zero.
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
        """Bytes of the nonzeros, each with its place as an int64."""
        return self.nonzeros * (self.itemsize + 8)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A sparse matrix as coordinates (COO), each of them once.

    Attributes:
        rows, columns: int64 [nonzeros].
        values: [nonzeros], in the kernel's dtype.
        shape: Rows and columns of the matrix.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: npt.NDArray[Any]
    shape: tuple[int, int]

    def dense(self) -> npt.NDArray[Any]:
        """The whole matrix."""
        matrix = np.zeros(self.shape, self.values.dtype)
        matrix[self.rows, self.columns] = self.values
        return matrix

    def ordered(self) -> Coordinates:
        """The same by ascending row, then column."""
        order = np.lexsort((self.columns, self.rows))
        return Coordinates(self.rows[order], self.columns[order], self.values[order], self.shape)


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
    shape = (layer.outputs * layer.cells, layer.channels * layer.positions)
    return Coordinates(rows.reshape(-1), columns.reshape(-1), values.reshape(-1), shape)
