"""A Conv node as numbers, and as the product of two matrices.

    Y[n, o, k] = Σ_(p,c) X[n, index[o, p], c] · F[(p, c), k]

X [N, positions, C] is the input with its channels last, index the positions of the patches, F the
stretched filters (Ma & Lu: An Equivalence of Fully Connected Layer and Convolutional Layer,
arXiv 1712.01252, section 4 and Algorithm 1; Conv-1/11/22).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.geometry import SlidingWindow

__all__ = ["ConvLayer", "filter_matrix", "patch_index"]


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """A Conv with a constant kernel at one input size.

    Attributes:
        kernel: [K, C/groups, *kernel], not read before it is needed.
        groups: Number of groups of channels.
        window: The sliding window.
    """

    kernel: ir.TensorProtocol
    groups: int
    window: SlidingWindow

    @classmethod
    def of(cls, node: ir.Node, input_shape: Sequence[int | None]) -> ConvLayer:
        """Read the layer from a Conv node with an input [N, C, *spatial]; N is ignored.

        Raises:
            ValueError: If it is not such a layer; the message says why.
        """
        weight = None if len(node.inputs) < 2 else node.inputs[1]
        kernel = None if weight is None else get_const_tensor(weight)
        if kernel is None:
            raise ValueError("its kernel is not a constant")
        _, channels, *extent = input_shape
        sizes = [length for length in extent if length is not None]
        if len(sizes) < len(extent):
            raise ValueError("the size of its input is not known; give it with --input-shape")
        shape, groups = tuple(kernel.shape.numpy()), node.attributes.get_int("group", 1)
        outputs, depth, *window = shape
        if len(window) != len(extent) or depth * groups != channels or outputs % groups:
            raise ValueError(f"its kernel {list(shape)} does not fit an input {list(input_shape)}")
        if 0 in shape:
            raise ValueError("its kernel is empty")
        get = node.attributes.get_ints
        return cls(
            kernel,
            groups,
            SlidingWindow.resolve(
                sizes,
                window,
                get("strides", None),
                get("dilations", None),
                get("pads", None),
                node.attributes.get_string("auto_pad", "NOTSET"),
            ),
        )

    @property
    def outputs(self) -> int:
        """Number of output channels K."""
        return self.kernel.shape.numpy()[0]

    @property
    def channels(self) -> int:
        """Number of input channels C."""
        return self.kernel.shape.numpy()[1] * self.groups

    @property
    def positions(self) -> int:
        """Number of input positions."""
        return prod(self.window.extent)

    @property
    def cells(self) -> int:
        """Number of output positions."""
        return prod(self.window.output_extent)

    @property
    def elements(self) -> int:
        """Number of positions of the kernel."""
        return prod(self.window.kernel)

    @property
    def covers_input(self) -> bool:
        """Whether the kernel covers the whole input, so that it is the layer's matrix itself."""
        window = self.window
        fits = window.kernel == window.extent and not any(window.begins)
        return fits and self.groups == 1 and self.cells == 1 and max(window.dilations) == 1

    def by_position(self) -> npt.NDArray[Any]:
        """The kernel as [groups, K/groups, C/groups, kernel positions], a view of its bytes."""
        return self.kernel.numpy().reshape(
            self.groups, self.outputs // self.groups, self.channels // self.groups, -1
        )

    def filters(self) -> npt.NDArray[Any]:
        """The stretched filters: [groups, kernel positions · C/groups, K/groups]."""
        stretched = self.by_position().transpose(0, 3, 2, 1)
        groups, positions, depth, outputs = stretched.shape
        return np.ascontiguousarray(stretched).reshape(groups, positions * depth, outputs)


def filter_matrix(conv: ir.Node) -> npt.NDArray[Any]:
    """The filters of a Conv node as the columns of a matrix.

    Args:
        conv: A Conv node with a constant kernel [K, C, *kernel] (with groups: [K, C/groups, …]).

    Returns:
        [kernel positions · C, K] in the kernel's dtype, row-major over (*kernel, C), with a leading
        axis [groups, …] where there are several groups.

    Raises:
        ArgumentError: If it is not such a node.

    Example:
        >>> import onnx_ir as ir
        >>> model = ir.load("models/face25.onnx")
        >>> conv = next(node for node in model.graph if node.op_type == "Conv")
        >>> conv.inputs[1].shape, filter_matrix(conv).shape
        (Shape([12, 1, 3, 3]), (9, 12))
    """
    weight = conv.inputs[1] if conv.op_type == "Conv" and len(conv.inputs) > 1 else None
    kernel = None if weight is None else get_const_tensor(weight)
    if kernel is None:
        raise ArgumentError(f"{conv.op_type} {conv.name!r} is not a Conv with a constant kernel")
    groups = conv.attributes.get_int("group", 1)
    extent = tuple(kernel.shape.numpy())[2:]
    layer = ConvLayer(kernel, groups, SlidingWindow.resolve(extent, extent))
    filters = layer.filters()
    return filters[0] if groups == 1 else filters


def patch_index(conv: ir.Node, input_shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the input position of each element of each patch.

    Args:
        conv: A Conv node with a constant kernel.
        input_shape: Shape [N, C, *spatial] of its input.

    Returns:
        int64 [output positions, kernel positions], both row-major; the number of input positions
        means padding. With X [positions + 1, C], whose last row is zero, and
        F = filter_matrix(conv): ``X[index].reshape(len(index), -1) @ F`` is the output
        [output positions, K].

    Raises:
        ArgumentError: If the node is not such a Conv, or the shape does not fit.
    """
    try:
        if conv.op_type != "Conv":
            raise ValueError("it is no Conv")
        return ConvLayer.of(conv, input_shape).window.positions()
    except ValueError as error:
        raise ArgumentError(f"{conv.op_type} {conv.name!r}: {error}") from error
