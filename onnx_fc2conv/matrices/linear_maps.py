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
from onnx_fc2conv.matrices.toeplitz import MatrixSize, conv_matrix, conv_matrix_size

__all__ = ["LinearMap", "average_map", "convolution_map", "normalization_map"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A layer as a matrix, which is not made before it is needed.

    Attributes:
        size: Rows (outputs), columns (inputs) and nonzeros.
        matrix: Makes the matrix [rows, columns].
        bias: [rows], None if it is zero.
        shape: Shape of the output without the batch axis.
    """

    size: MatrixSize
    matrix: Callable[[], Array]
    bias: Array | None
    shape: tuple[int, ...]


def convolution_map(layer: ConvLayer, bias: Array | None) -> LinearMap:
    """A Conv with a constant kernel; ``bias`` is [K]."""
    shape = (layer.outputs, *layer.window.output_extent)
    spread = None if bias is None else np.repeat(bias, layer.cells)
    return LinearMap(conv_matrix_size(layer), lambda: conv_matrix(layer), spread, shape)


def average_map(node: ir.Node, shape: tuple[int, ...], dtype: ir.DataType) -> LinearMap:
    """AveragePool-1/7/10/11/19/22 or GlobalAveragePool-1/22 of an input [C, *spatial]: 1/count.

    Raises:
        ValueError: If its attributes contradict each other, or it pads what ceil_mode adds.
    """
    channels, *extent = shape
    counts_padding = bool(node.attributes.get_int("count_include_pad", 0))
    ceil_mode = bool(node.attributes.get_int("ceil_mode", 0))
    if node.op_type == "GlobalAveragePool":
        window = SlidingWindow.resolve(extent, extent)
    elif counts_padding and ceil_mode:
        raise ValueError("it averages over padding with ceil_mode")
    else:
        window = SlidingWindow.resolve(
            extent,
            node.attributes.get_ints("kernel_shape", []),
            node.attributes.get_ints("strides", None),
            node.attributes.get_ints("dilations", None),
            node.attributes.get_ints("pads", None),
            node.attributes.get_string("auto_pad", "NOTSET"),
            ceil_mode=ceil_mode,
        )
    index, positions = window.positions(), prod(extent)
    inside = index < positions
    cells = len(index)

    def matrix() -> Array:
        one = np.zeros((cells, positions + 1), dtype.numpy())
        counts = np.full(cells, index.shape[1]) if counts_padding else inside.sum(1)
        one[np.arange(cells)[:, None], index] = (1 / counts)[:, None]
        every = np.zeros((channels, cells, channels, positions), one.dtype)
        every[np.arange(channels), :, np.arange(channels)] = one[:, :positions]
        return every.reshape(channels * cells, channels * positions)

    rows, columns = channels * cells, channels * positions
    size = MatrixSize(rows, columns, channels * int(inside.sum()), int(dtype.itemsize))
    return LinearMap(size, matrix, None, (channels, *window.output_extent))


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
    bias = np.repeat(shift - factor * mean, positions).astype(dtype.numpy())
    size = MatrixSize(features, features, features, int(dtype.itemsize))
    return LinearMap(
        size, lambda: np.diag(np.repeat(factor, positions)).astype(dtype.numpy()), bias, shape
    )
