"""Every linear layer of one input as a matrix and a bias: y = A·x + b on flattened tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.matrices.layer import ConvLayer
from onnx_fc2conv.matrices.toeplitz import (
    Coordinates,
    MatrixSize,
    conv_coordinates,
    conv_matrix_size,
)

__all__ = ["LinearMap", "average_map", "convolution_map", "normalization_map"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A layer as a matrix, whose entries are made when they are needed.

    Attributes:
        size: Rows (outputs), columns (inputs) and nonzeros.
        coordinates: Makes the nonzeros.
        bias: [rows], None if it is zero.
        shape: Shape of the output without the batch axis.
        stored: Reads the entries [rows, columns] where the model holds them in this form already.
    """

    size: MatrixSize
    coordinates: Callable[[], Coordinates]
    bias: Array | None
    shape: tuple[int, ...]
    stored: Callable[[], Array] | None = None

    def matrix(self) -> Array:
        """The matrix [rows, columns]."""
        return self.coordinates().dense() if self.stored is None else self.stored()


def convolution_map(layer: ConvLayer, bias: Array | None) -> LinearMap:
    """A Conv with a constant kernel; ``bias`` is [K].

    Where the kernel covers the whole input, the matrix is the kernel's own bytes.
    """
    size = conv_matrix_size(layer)

    def kernel() -> Array:
        return layer.kernel.numpy().reshape(size.rows, size.columns)

    return LinearMap(
        size,
        lambda: conv_coordinates(layer),
        None if bias is None else np.repeat(bias, layer.cells),
        (layer.outputs, *layer.window.output_extent),
        kernel if layer.covers_input else None,
    )


def average_map(node: ir.Node, shape: tuple[int, ...], dtype: ir.DataType) -> LinearMap:
    """AveragePool-1/7/10/11/19/22 or GlobalAveragePool-1/22 of an input [C, *spatial]: 1/count.

    Raises:
        ValueError: If its attributes contradict each other, or it counts padding with ceil_mode.
    """
    channels, *extent = shape
    window, counts_padding = _averaging_window(node, extent)
    index, positions = window.positions(), prod(extent)
    cells, at = np.nonzero(index < positions)
    counts = np.full(len(index), index.shape[1]) if counts_padding else np.bincount(cells)

    def coordinates() -> Coordinates:
        channel = np.arange(channels)[:, None]
        rows, columns = channel * len(index) + cells, channel * positions + index[cells, at]
        values = np.broadcast_to(1 / counts[cells], rows.shape).astype(dtype.numpy())
        return Coordinates(rows.ravel(), columns.ravel(), values.ravel(), (size.rows, size.columns))

    nonzeros = channels * len(cells)
    size = MatrixSize(channels * len(index), channels * positions, nonzeros, int(dtype.itemsize))
    return LinearMap(size, coordinates, None, (channels, *window.output_extent))


def _averaging_window(node: ir.Node, extent: list[int]) -> tuple[SlidingWindow, bool]:
    """The window of a pooling, and whether it counts its padding."""
    if node.op_type == "GlobalAveragePool":
        return SlidingWindow.resolve(extent, extent), False
    counts_padding = bool(node.attributes.get_int("count_include_pad", 0))
    ceil_mode = bool(node.attributes.get_int("ceil_mode", 0))
    if counts_padding and ceil_mode:
        raise ValueError("it averages over padding with ceil_mode")
    window = SlidingWindow.resolve(
        extent,
        node.attributes.get_ints("kernel_shape", []),
        node.attributes.get_ints("strides", None),
        node.attributes.get_ints("dilations", None),
        node.attributes.get_ints("pads", None),
        node.attributes.get_string("auto_pad", "NOTSET"),
        ceil_mode=ceil_mode,
    )
    return window, counts_padding


def normalization_map(node: ir.Node, shape: tuple[int, ...], dtype: ir.DataType) -> LinearMap:
    """BatchNormalization-7/9/14/15 for inference, of an input [C, *spatial]: a diagonal.

    Raises:
        ValueError: If it trains, or its parameters are not constant.
    """
    tensors = [None if value is None else get_const_tensor(value) for value in node.inputs[1:5]]
    parameters = [tensor.numpy().astype(np.float64) for tensor in tensors if tensor is not None]
    training = node.attributes.get_int("training_mode", 0)
    if len(parameters) < 4 or training:
        raise ValueError("its parameters are not constant")
    scale, shift, mean, variance = parameters
    positions, features = prod(shape[1:]), prod(shape)
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))

    def coordinates() -> Coordinates:
        diagonal = np.arange(features)
        values = np.repeat(factor, positions).astype(dtype.numpy())
        return Coordinates(diagonal, diagonal, values, (features, features))

    bias = np.repeat(shift - factor * mean, positions).astype(dtype.numpy())
    size = MatrixSize(features, features, features, int(dtype.itemsize))
    return LinearMap(size, coordinates, bias, shape)
