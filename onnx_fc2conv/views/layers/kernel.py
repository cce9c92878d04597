"""Kernels: the weight W [K, D] of a layer, arranged for a Conv of a map.

    K[p·K + k, elements[p, d]] = W[k, columns[d]],  0 elsewhere

with one block of K outputs for each list ``elements[p]`` that the layer is applied to (one for a
fully connected layer). Where the only list is all elements in order, the kernel is W in another
shape, byte for byte; nothing is copied, in memory or on disk. A deferred scale of the elements
(`FeatureMap.deferred`) goes into the kernel, a shift into the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.files.embedded import MappedTensor
from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.graphs.names import NameScope
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray, IntArray
from onnx_fc2conv.views.maps.view import FeatureMap
from onnx_fc2conv.views.plan import ConstantTensor, Intermediate

__all__ = [
    "Kernel",
    "Part",
    "Weight",
    "deferred_shift",
    "lazily",
    "make_kernel",
    "placed",
    "pointwise_kernel",
    "scaled",
]


@dataclass(frozen=True, eq=False)
class Weight:
    """The constant operand of a layer.

    Attributes:
        value: The operand as it is stored.
        transposed: Whether it is stored as [D, K] rather than [K, D].
        alpha: Factor of the product.
        name: Name of the tensor.
        fill: Values of the kernel where the layer reads nothing, [K] in the type of the weight:
            the zero points of integers. None for 0.
        stacked: Whether it is a stack [*groups, D, K] of matrices, each for rows of its own.
    """

    value: Constant
    transposed: bool
    alpha: float
    name: str
    fill: AnyArray | None = None
    stacked: bool = False

    @property
    def shape(self) -> tuple[int, int] | None:
        """(K, D), without leading axes of length 1; a vector has K = 1. None if it is no matrix."""
        shape = self.value.shape
        if len(shape) == 1:
            return 1, shape[0]
        if len(shape) < 1 or (any(length != 1 for length in shape[:-2]) and not self.stacked):
            return None
        rows, columns = shape[-2:]
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def row_major(self) -> bool:
        """Whether the stored bytes are those of [K, D]."""
        return not self.transposed or 1 in self.value.shape[-2:]

    def matrix(self) -> AnyArray:
        """The weight as [K, D]."""
        return self.as_matrix(self.value.array)

    def as_matrix(self, array: AnyArray) -> AnyArray:
        """Return an array of the stored weight's shape as [K, D]."""
        if array.ndim == 1:
            return array[None, :]
        matrix = array.reshape(array.shape[-2:])
        return matrix.T if self.transposed else matrix


@dataclass(frozen=True, eq=False)
class Part:
    """The part of one map that a layer reads.

    Attributes:
        source: The map [N, C, *S].
        window: Extent of the kernel: S, or 1 along every axis for a layer at each position.
        elements: For each list that the layer is applied to, the row-major positions of its
            elements in (C, *window), [P, D'].
        columns: The columns of W that multiply them, [D']; None for all, in order.
        sliding: The sliding window at the native size, if the layer is applied to patches.
    """

    source: FeatureMap
    window: tuple[int, ...]
    elements: IntArray
    columns: IntArray | None = None
    sliding: SlidingWindow | None = None

    @cached_property
    def groups(self) -> int:
        """Number of groups of a grouped Conv: P if list p is in block p of the channels, else 1."""
        lists, channels = len(self.elements), self.source.channels
        if lists == 1 or channels % lists or self.source.deferred is not None:
            return 1
        block = channels // lists * prod(self.window)
        inside = self.elements - np.arange(lists)[:, None] * block
        fits = (inside == inside[:1]).all() and inside.min() >= 0 and inside.max() < block
        return lists if fits else 1

    @cached_property
    def repeats(self) -> bool:
        """Whether the layer reads an element twice."""
        return any(np.unique(elements).size != elements.size for elements in self.elements)

    def of_lists(self, affine: AnyArray) -> AnyArray:
        """Pick a scale or shift [C, *S] of the map for the elements of each list: [P, D']."""
        per_window = affine.reshape(self.source.channels, -1)
        if prod(self.window) == 1:
            per_window = per_window[:, :1]
        chosen: AnyArray = per_window.reshape(-1)[self.elements]
        return chosen


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel [P·K, C / groups, *window], and the relation of its bytes to the weight's.

    ``dequantized`` is the tensor that the Conv reads, if it is dequantized from the stored kernel.
    """

    constant: ConstantTensor
    groups: int
    bytes_kept: str
    dequantized: Intermediate | None = None

    @property
    def operand(self) -> ConstantTensor | Intermediate:
        """What the Conv reads."""
        return self.dequantized or self.constant


def make_kernel(ctx: Context, weight: Weight, part: Part) -> Kernel:
    """Return the kernel of a part's Conv; its elements are read only when it is written."""
    assert weight.shape is not None
    outputs, source = weight.shape[0], part.source
    lists, groups = len(part.elements), part.groups
    size = source.channels // groups * prod(part.window)
    shape = (lists * outputs, source.channels // groups, *part.window)
    blocks = part.elements[:1] if groups > 1 else part.elements
    identity = (
        lists == 1
        and part.columns is None
        and blocks.size == size
        and bool((blocks[0] == np.arange(size)).all())
    )
    name = ctx.fresh(f"{weight.name}.kernel")
    folds = weight.alpha != 1.0 or source.deferred is not None
    if identity and weight.row_major and not folds:
        return Kernel(
            ConstantTensor(name, shape, lambda: _reshaped(weight.value, shape)), 1, "same"
        )
    scale = None if source.deferred is None else part.of_lists(source.deferred.scale)

    def build() -> AnyArray:
        matrix = weight.matrix() if part.columns is None else weight.matrix()[:, part.columns]
        made: list[AnyArray] = []
        for number, elements in enumerate(blocks):
            block = matrix
            if scale is not None:
                block = (matrix.astype(np.float64) * scale[number] * weight.alpha).astype(
                    matrix.dtype
                )
            elif weight.alpha != 1.0:
                block = scaled(matrix, weight.alpha)
            made.append(
                np.ascontiguousarray(block)
                if identity
                else placed(block, elements, size, weight.fill)
            )
        together = made[0] if lists == 1 else np.concatenate(made * (lists // len(made)))
        return together.reshape(shape)

    constant = ConstantTensor(name, shape, lazily(build, weight.value, shape))
    return Kernel(constant, groups, "folded" if folds or part.repeats else "permuted")


def pointwise_kernel(names: NameScope, weight: Weight) -> Kernel:
    """Return the kernel [K, D, 1, 1] of a Conv that applies the layer at every position."""
    assert weight.shape is not None
    shape = (*weight.shape, 1, 1)
    name = names.fresh(f"{weight.name}.kernel")
    if weight.row_major and weight.alpha == 1.0:
        return Kernel(
            ConstantTensor(name, shape, lambda: _reshaped(weight.value, shape)), 1, "same"
        )

    def build() -> AnyArray:
        matrix = weight.matrix()
        if weight.alpha != 1.0:
            matrix = scaled(matrix, weight.alpha)
        return np.ascontiguousarray(matrix).reshape(shape)

    constant = ConstantTensor(name, shape, lazily(build, weight.value, shape))
    return Kernel(constant, 1, "permuted" if weight.alpha == 1.0 else "folded")


def placed(weight: AnyArray, elements: IntArray, size: int, fill: AnyArray | None) -> AnyArray:
    """Put the columns of [K, D] at these places of [K, size]; columns of one place add up."""
    if np.unique(elements).size == elements.size:
        placed = np.zeros((len(weight), size), weight.dtype)
        if fill is not None:
            placed[:] = fill[:, None]
        placed[:, elements] = weight
        return placed
    total = np.zeros((size, len(weight)), np.float64)
    np.add.at(total, elements, weight.T.astype(np.float64))
    return total.T.astype(weight.dtype)


def lazily(
    build: Callable[[], AnyArray], weight: Constant, shape: tuple[int, ...]
) -> Callable[[], ir.TensorProtocol]:
    """Return a maker of a tensor whose elements are ordered only when it is written."""
    dtype = weight.tensor.dtype if weight.tensor is not None else None

    def make() -> ir.TensorProtocol:
        actual = dtype if dtype is not None else ir.DataType.from_numpy(weight.array.dtype)
        return ir.LazyTensor(lambda: ir.Tensor(build(), dtype=actual), actual, ir.Shape(shape))

    return make


def _reshaped(weight: Constant, shape: tuple[int, ...]) -> ir.TensorProtocol:
    """The same bytes under another shape: nothing is copied, in memory or on disk."""
    stored = weight.tensor
    if isinstance(stored, ir.ExternalTensor):
        return ir.ExternalTensor(
            stored.location,
            stored.offset,
            stored.length,
            stored.dtype,
            shape=ir.Shape(shape),
            name=stored.name,
            base_dir=stored.base_dir,
        )
    if isinstance(stored, MappedTensor):
        return stored.reshaped(shape)
    dtype = stored.dtype if stored is not None else None
    return ir.Tensor(weight.array.reshape(shape), dtype=dtype)


def deferred_shift(weight: Weight, part: Part) -> AnyArray | None:
    """What a constant map, or the deferred shift of one, adds to each output: [P·K] float64."""
    source = part.source
    if source.constant is not None:
        shift = source.constant.astype(np.float64)[part.elements]
    elif source.deferred is not None:
        shift = part.of_lists(source.deferred.shift)
    else:
        return None
    if not shift.any():
        return None
    matrix = weight.matrix() if part.columns is None else weight.matrix()[:, part.columns]
    total: AnyArray = weight.alpha * (shift @ matrix.astype(np.float64).T)
    return total.reshape(-1)


def scaled(array: AnyArray, factor: float) -> AnyArray:
    """Return the array times a factor, rounded once to the array's dtype."""
    product: AnyArray = (array.astype(np.float64) * np.float64(np.float32(factor))).astype(
        array.dtype
    )
    return product
