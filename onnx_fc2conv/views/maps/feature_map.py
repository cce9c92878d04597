"""Feature maps: tensors [N, C, *spatial] made by sliding operators."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.views.maps.labels import AnyArray, IntArray, map_labels

__all__ = ["Affine", "FeatureMap", "channels_first"]


def channels_first(rank: int) -> tuple[int, ...]:
    """Return the layout of a tensor that already is [N, C, *spatial]."""
    return tuple(range(rank))


@dataclass(frozen=True, eq=False)
class Affine:
    """A scale and a shift per element of a map, [C, *spatial] float64, not yet carried out."""

    scale: AnyArray
    shift: AnyArray


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A tensor [N, C, *spatial] whose cells slide over the image.

    Attributes:
        name: Name of the tensor.
        channels: C.
        extent: Spatial size at the native input size.
        dtype: Element type.
        field: Receptive field per spatial axis.
        first_label: Label of element 0 (row-major C, *spatial) of sample 0.
        layout: ``transpose(layout)`` brings the tensor to [N, C, *spatial].
        lacks: Axes that an image input such as [N, H, W] lacks: the layout is that of
            the input unsqueezed at these axes.
        value: The tensor in the model, if it is there; None if a `Step` will make it.
        sources: The maps that it is computed from.
        one_per_window: Whether it has one cell for each window: the results of an FC layer, or of a
            pooling of the whole window.
        pads: The layer, if it pads: its cells at a border see other pixels than a crop does.
        mixes_positions: The layer, if each of its cells depends on the whole image.
        pooled_by: The node, if it is a pooling of the whole image.
        subdivides: The layer, if it makes several cells of each.
        parts: The layer, if it is sure to run only at image sizes that differ from the native one
            by multiples of the map's stride: it joins branches that grow apart, or takes whole
            blocks of cells.
        constant: Its channels, [C], if they are the same for every image and at every position.
        deferred: A scale and a shift of ``base`` by element, which the next linear layer takes in.
        base: The map that ``deferred`` applies to.
    """

    name: str
    channels: int
    extent: tuple[int, ...]
    dtype: ir.DataType
    field: tuple[AxisField, ...]
    first_label: int
    layout: tuple[int, ...]
    lacks: tuple[int, ...] = ()
    value: ir.Value | None = None
    sources: tuple[FeatureMap, ...] = ()
    one_per_window: bool = False
    pads: str | None = None
    mixes_positions: str | None = None
    pooled_by: ir.Node | None = None
    subdivides: str | None = None
    parts: str | None = None
    constant: AnyArray | None = None
    deferred: Affine | None = None
    base: FeatureMap | None = None

    def __str__(self) -> str:
        return f"{self.name} {list(self.per_sample_shape)}"

    @property
    def per_sample_shape(self) -> tuple[int, ...]:
        """(C, *spatial) at the native size."""
        return (self.channels, *self.extent)

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return prod(self.per_sample_shape)

    @property
    def is_single_cell(self) -> bool:
        """Whether the map is a single cell at the native size: it has one value per window."""
        return all(length == 1 for length in self.extent)

    @property
    def scales_by_channel(self) -> bool:
        """Whether the deferred scale and shift, if any, are the same at all positions."""
        if self.deferred is None:
            return True
        values = (a.reshape(self.channels, -1) for a in (self.deferred.scale, self.deferred.shift))
        return all(bool((array == array[:, :1]).all()) for array in values)

    @property
    def axes(self) -> tuple[int | None, ...]:
        """The axes of the tensor in the order [N, C, *spatial]; None for one that it lacks."""
        own = [axis for axis in range(len(self.layout)) if axis not in self.lacks]
        return tuple(own.index(axis) if axis in own else None for axis in self.layout)

    @property
    def lacks_spatial(self) -> tuple[int, ...]:
        """The spatial axes, from 0, that an image input lacks: it never grows along them."""
        return tuple(n for n, axis in enumerate(self.axes[2:]) if axis is None)

    def shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the tensor in its own layout, with all axes."""
        shape = [0] * len(self.layout)
        for axis, length in zip(self.layout, (batch, *self.per_sample_shape), strict=True):
            shape[axis] = length
        return tuple(shape)

    def stored_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the tensor as it is stored, without the axes that it lacks."""
        shape = self.shape(batch)
        return tuple(length for axis, length in enumerate(shape) if axis not in self.lacks)

    def labels(self, batch: int) -> IntArray:
        """Labels of all elements in the tensor's own layout, with all axes."""
        labels = map_labels(self.first_label, self.per_sample_shape, batch)
        return labels.transpose(np.argsort(self.layout))
