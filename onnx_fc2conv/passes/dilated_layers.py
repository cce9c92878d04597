"""A sliding operator on a denser grid: new stride, dilations and pads.

A map R is *denser* than a map U by factors f, one an axis, if R[f·i] = U[i] for all cells i of U.
Let

    U'[i] = Σ_k w_k · U[i·s + k·d - p]

be a layer of U, and R' denser than U' by f'. Then, with R for U,

    R'[j] = Σ_k w_k · R[j·(s·f/f') + k·(d·f) - p·f]

has R'[f'·i] = U'[i]: the stride loses the factor f'/f, dilation and pads gain f. (Holschneider et
al. 1989, *algorithme à trous*; Giusti et al. 2013; Li, Zhao, Wang 2014, arXiv:1412.4526.)

Padding: if L cells of U make R have at least (L-1)·f + 1 and at most L·f cells, then cell u < 0 or
u >= L of U is padding exactly where cell f·u of R is, and the output has that property again: with
A = L - 1 + pads - (k-1)·d, U' has floor(A/s) + 1 cells, and R' floor((A + e/f)·f'/s) + 1 for an e
from 0 to f - 1. So it holds at every image size, for zeros, for the lowest number of MaxPool, and
for the pixels that AveragePool counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.plan import AttributeValue

__all__ = ["DilatedLayer", "Grid", "dilated", "refuse_dilation"]

_SINCE = {"Conv": 1, "ConvInteger": 10, "QLinearConv": 10}
_POOLINGS_SINCE = {"MaxPool": 10, "LpPool": 18, "AveragePool": 19}
"""The opset in which a pooling got dilations."""
_KERNEL = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Index of the kernel among a convolution's inputs."""


@dataclass(frozen=True)
class Grid:
    """The grid of a map, one entry per spatial axis.

    Attributes:
        strides: Pixels between neighboring cells; 0 where there is one cell for the whole image.
        kept: The same after refinement: a divisor.
    """

    strides: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def factors(self) -> tuple[int, ...]:
        """Number of cells of the refined map per original cell."""
        pairs = zip(self.strides, self.kept, strict=True)
        return tuple(stride // kept if kept else 1 for stride, kept in pairs)

    @property
    def is_denser(self) -> bool:
        """Whether refinement changes it."""
        return self.strides != self.kept

    @property
    def text(self) -> str:
        """The factors as people write them: 2×2."""
        return "×".join(map(str, self.factors))


@dataclass(frozen=True, eq=False)
class DilatedLayer:
    """A sliding operator with new hyperparameters.

    Attributes:
        node: The operator.
        attributes: Attributes to write into it; None removes one.
        window: The window of an AveragePool that becomes a depthwise convolution, which can be
            dilated in any opset; empty for every other layer.
        channels: Number of its channels.
        padding: Pads of a Pad node in front of the layer; empty where the layer pads itself.
    """

    node: ir.Node
    attributes: Mapping[str, AttributeValue | None]
    window: tuple[int, ...] = ()
    channels: int = 0
    padding: tuple[int, ...] = ()

    def fill(self, dtype: ir.DataType) -> AnyArray:
        """Return the value of the padding: the lowest number for a maximum, else 0."""
        kind = dtype.numpy()
        if self.node.op_type != "MaxPool":
            return np.zeros((), kind)
        lowest = np.iinfo(kind).min if dtype.is_integer() else np.finfo(kind).min
        return np.array(lowest, kind)

    def mean_weights(self, dtype: ir.DataType) -> ir.TensorProtocol:
        """The kernel of the depthwise convolution: [C, 1, *window]."""
        share = np.full((self.channels, 1, *self.window), 1 / prod(self.window))
        return ir.Tensor(share.astype(dtype.numpy()), dtype=dtype)


@dataclass(frozen=True)
class _Layer:
    """A sliding operator as it is.

    Attributes:
        node: The operator.
        opset: Version of its operator set.
        frozen: Attributes that override those of the node (auto_pad and ceil_mode resolved).
    """

    node: ir.Node
    opset: int
    frozen: Mapping[str, AttributeValue | None] = field(default_factory=dict)

    def ints(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        if name in self.frozen:
            given = self.frozen[name]
            return tuple(int(n) for n in given) if isinstance(given, tuple) else tuple(default)
        return tuple(self.node.attributes.get_ints(name, default))

    def window(self, rank: int) -> tuple[int, ...] | None:
        """Size of the kernel; None where it is computed."""
        if "kernel_shape" in self.node.attributes:
            return self.ints("kernel_shape", ())
        kernel = self.node.inputs[_KERNEL[self.node.op_type]]
        if kernel is None or kernel.shape is None or len(kernel.shape) != rank + 2:
            return None
        return tuple(dim if isinstance(dim, int) else 0 for dim in kernel.shape[2:])


def dilated(  # noqa: PLR0913 - a layer between two grids
    node: ir.Node,
    opset: int,
    before: Grid,
    after: Grid,
    channels: int,
    frozen: Mapping[str, AttributeValue | None],
) -> DilatedLayer:
    """Return a convolution or pooling with hyperparameters for two new grids.

    Args:
        node: A node whose output has another grid or another receptive field than its input.
        opset: Version of its operator set.
        before: Grid of its input.
        after: Grid of its output.
        channels: Number of channels of its input.
        frozen: Attributes that override those of the node.

    Raises:
        RefusedError: If the node cannot be carried to a denser grid.
    """
    layer, rank = _Layer(node, opset, frozen), len(before.strides)
    op_type = node.op_type if node.domain == "" else f"{node.domain}.{node.op_type}"
    if op_type not in _SINCE and op_type not in _POOLINGS_SINCE:
        refuse_dilation(
            node, f"its input has {before.text} cells for each, and it has no dilations"
        )
    window = layer.window(rank)
    old = layer.ints("dilations", (1,) * rank)
    # A window of one cell has nothing to dilate, and stays as every opset and device knows it.
    reach = window or (2,) * rank
    new = tuple(d * f if k > 1 else d for d, f, k in zip(old, before.factors, reach, strict=True))
    pads = tuple(
        p * f for p, f in zip(layer.ints("pads", (0,) * 2 * rank), before.factors * 2, strict=True)
    )
    strides = tuple(
        two // one if one else step
        for one, two, step in zip(
            before.kept, after.kept, layer.ints("strides", (1,) * rank), strict=True
        )
    )
    attributes: dict[str, AttributeValue | None] = {**frozen, "strides": strides}
    if any(pads) or "pads" in node.attributes or "pads" in frozen:
        attributes["pads"] = pads
    since = _SINCE.get(op_type) or _POOLINGS_SINCE[op_type]
    if set(new) != {1} or "dilations" in node.attributes:
        attributes["dilations"] = new
    wanted = DilatedLayer(node, attributes, window or (), channels)
    if new != old and opset < since:
        why = (
            f"its input has {before.text} cells for each, and {node.op_type} has dilations since "
            f"opset {since}, while the model is of opset {opset}"
        )
        if op_type != "AveragePool":
            refuse_dilation(node, why)
        return _as_conv(wanted, why)
    if op_type not in _POOLINGS_SINCE or all(p < k for p, k in zip(pads, reach * 2, strict=True)):
        return replace(wanted, window=())
    # onnxruntime wants the pads of a pooling to be smaller than its kernel, however dilated.
    if op_type == "AveragePool":
        return _as_conv(wanted, "its pads would be larger than its kernel")
    return replace(
        wanted, window=(), attributes={**attributes, "pads": (0,) * 2 * rank}, padding=pads
    )


def _as_conv(layer: DilatedLayer, why: str) -> DilatedLayer:
    """Return a mean of windows as a depthwise convolution, which takes any dilations and pads."""
    pads = layer.attributes.get("pads")
    counted = bool(layer.node.attributes.get_int("count_include_pad", 0))
    if isinstance(pads, tuple) and any(pads) and not counted:
        refuse_dilation(layer.node, f"{why}; no convolution leaves its padding uncounted")
    kept = {"strides", "dilations", "pads", "auto_pad"}
    attributes = {name: value for name, value in layer.attributes.items() if name in kept}
    attributes |= {"kernel_shape": layer.window, "group": layer.channels}
    return replace(layer, attributes=attributes)


def refuse_dilation(node: ir.Node, why: str) -> NoReturn:
    """Refuse to carry a node to a denser grid."""
    raise RefusedError([Refusal("no-dilation", describe(node), f"--stride: {why}")])
