"""The one idea: a flattened tensor is a view of feature maps.

`FeatureMap` is a tensor [N, C, *spatial] made by sliding operators. `FeatureView` describes any
tensor V downstream of it, at the native input size: element d of sample n of V *is* one known
element of one known map, ``V[n, d] = M[n, index[d]]``. Tensors that do not depend on the image at
all are in `constant`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_fc2conv.views.maps.feature_map import Affine, FeatureMap, channels_first
from onnx_fc2conv.views.maps.labels import SAMPLE, IntArray, batch_axis

__all__ = [
    "Affine",
    "Batches",
    "FeatureMap",
    "FeatureView",
    "LabelSpace",
    "Labels",
    "Mixed",
    "channels_first",
]


@dataclass(frozen=True, slots=True)
class Batches:
    """The two batch sizes at which the head is interpreted.

    Attributes:
        native: The model's own batch size; 1 where it is symbolic.
        other: Another batch size, which tells batch and features apart.
    """

    native: int = 1

    @property
    def other(self) -> int:
        """One more sample than native."""
        return self.native + 1


class LabelSpace:
    """Hands out labels to maps, and says which map a label belongs to."""

    def __init__(self) -> None:
        self._maps: list[FeatureMap] = []
        self._firsts: list[int] = []
        self._next = 1

    def reserve(self, size: int) -> int:
        """Reserve ``size`` labels that no other map has; return the first."""
        first, self._next = self._next, self._next + size
        return first

    def add(self, feature_map: FeatureMap) -> FeatureMap:
        """Record the map under its labels, and return it."""
        self._maps.append(feature_map)
        self._firsts.append(feature_map.first_label)
        return feature_map

    def __iter__(self) -> Iterator[FeatureMap]:
        return iter(self._maps)

    def maps(self, index: IntArray) -> tuple[FeatureMap, ...]:
        """The maps that the element labels in ``index`` belong to, in label order."""
        found: list[FeatureMap] = []
        rest = np.unique(index)
        while rest.size:
            feature_map = self._maps[bisect_right(self._firsts, int(rest[0])) - 1]
            found.append(feature_map)
            rest = rest[rest >= feature_map.first_label + feature_map.size]
        return tuple(found)


class Mixed(ValueError):  # noqa: N818 - an outcome that becomes a refusal
    """No single axis separates the samples."""


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one tensor at the native batch size, and at another one.

    ``other`` is None once the model works at its native batch size only, as after
    ``Reshape([1, -1])``.
    """

    native: IntArray
    other: IntArray | None

    def moved(self, move: Callable[[IntArray], IntArray]) -> Labels:
        """The labels after a movement that is the same at every batch size."""
        return Labels(move(self.native), None if self.other is None else move(self.other))


class FeatureView:
    """A tensor each element of which is one known element of a known feature map.

    Attributes:
        space: Where the labels come from.
        batches: The batch sizes of the labels.
        layout: ``transpose(layout)`` brings the tensor itself to [N, C, *spatial], so that it may
            stay in the model as a map; None if the tensor is a map no longer.
        whole_map: The map that the tensor is, with nothing moved but axes; None otherwise.
    """

    def __init__(
        self,
        space: LabelSpace,
        batches: Batches,
        labels: Callable[[], Labels],
        *,
        layout: tuple[int, ...] | None = None,
        whole_map: FeatureMap | None = None,
    ) -> None:
        self.space = space
        self.batches = batches
        self._make_labels = labels
        self.layout = layout
        self.whole_map = whole_map

    @classmethod
    def of(cls, feature_map: FeatureMap, space: LabelSpace, batches: Batches) -> FeatureView:
        """Return the view of a whole map, in the map's own layout."""

        def labels() -> Labels:
            return Labels(feature_map.labels(batches.native), feature_map.labels(batches.other))

        return cls(space, batches, labels, layout=feature_map.layout, whole_map=feature_map)

    @classmethod
    def of_image(cls, image: FeatureMap, space: LabelSpace, batches: Batches) -> FeatureView:
        """Return the view of an image input, which may lack some axes of its map."""
        if not image.lacks:
            return cls.of(image, space, batches)

        def labels() -> Labels:
            native = image.labels(batches.native).squeeze(image.lacks)
            if image.axes[0] is None:
                return Labels(native, None)
            return Labels(native, image.labels(batches.other).squeeze(image.lacks))

        return cls(space, batches, labels)

    @classmethod
    def of_index(
        cls,
        space: LabelSpace,
        batches: Batches,
        index: IntArray,
        batch_axis: int | None,
        *,
        any_batch: bool,
    ) -> FeatureView:
        """Return the view whose samples show these elements, with samples along ``batch_axis``.

        Args:
            space: Where the labels come from.
            batches: The batch sizes of the labels.
            index: Element labels of one sample, of the tensor's shape without its batch axis.
            batch_axis: The axis of the samples in the tensor; None where the model dropped it.
            any_batch: Whether the model works at another batch size than its native one.
        """

        def at(batch: int) -> IntArray:
            if batch_axis is None:
                return index
            samples = np.arange(batch, dtype=np.int64) * SAMPLE
            shape = [1] * (index.ndim + 1)
            shape[batch_axis] = batch
            return np.expand_dims(index, batch_axis) + samples.reshape(shape)

        def labels() -> Labels:
            return Labels(at(batches.native), at(batches.other) if any_batch else None)

        return cls(space, batches, labels)

    @cached_property
    def labels(self) -> Labels:
        """The labels of the tensor, computed at their first use."""
        return self._make_labels()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape at the native batch size."""
        if self.layout is not None and self.whole_map is not None:
            shape = (self.batches.native, *self.whole_map.per_sample_shape)
            return tuple(shape[self.layout.index(axis)] for axis in range(len(shape)))
        return tuple(self.labels.native.shape)

    @property
    def channel_axis(self) -> int | None:
        """The axis of the channels if the tensor is a whole map; else None."""
        return None if self.layout is None else self.layout[1]

    @cached_property
    def batch_axis(self) -> int | None:
        """The axis of the samples; None where the model dropped it (batch 1 only).

        Raises:
            Mixed: If no axis separates the samples.
        """
        if self.layout is not None:
            return self.layout[0]
        if self.labels.other is not None:
            axis = batch_axis(self.labels.other, self.batches.other)
            if axis is not None:
                return axis
        if self.batches.native > 1:
            axis = batch_axis(self.labels.native, self.batches.native)
            if axis is None:
                raise Mixed
            return axis
        return 0 if self.shape[:1] == (1,) else None

    @cached_property
    def index(self) -> IntArray:
        """Element labels of one sample, of the tensor's shape without its batch axis.

        Raises:
            Mixed: If no axis separates the samples.
        """
        labels = self.labels.native
        axis = self.batch_axis
        return labels if axis is None else np.moveaxis(labels, axis, 0)[0]

    @cached_property
    def maps(self) -> tuple[FeatureMap, ...]:
        """The maps that the tensor draws on."""
        if self.whole_map is not None:
            return (self.whole_map,)
        return self.space.maps(self.index)

    @property
    def only_map(self) -> FeatureMap | None:
        """The map, if there is exactly one."""
        return self.maps[0] if len(self.maps) == 1 else None

    def local_index(self, feature_map: FeatureMap) -> IntArray:
        """`index` as positions in the row-major (C, *spatial) elements of the only map."""
        return self.index - feature_map.first_label

    def relabelled(self, old: FeatureMap, new: FeatureMap) -> FeatureView:
        """Return the same view of a map that replaces the only map, element for element."""
        shift = new.first_label - old.first_label
        return self.moved(lambda labels: labels + shift)

    def moved(
        self, move: Callable[[IntArray], IntArray], layout: tuple[int, ...] | None = None
    ) -> FeatureView:
        """Return the view whose labels are these, moved.

        Args:
            move: The movement, which is the same at every batch size.
            layout: The layout of the result, if it still is the whole map.
        """
        whole = None if layout is None else self.whole_map
        return FeatureView(
            self.space,
            self.batches,
            lambda: self.labels.moved(move),
            layout=layout,
            whole_map=whole,
        )

    def reindexed(self, index: IntArray) -> FeatureView:
        """Return a view of the same shape and samples that shows other elements."""
        return self.with_index(index, self.batch_axis)

    def with_index(self, index: IntArray, batch_axis: int | None) -> FeatureView:
        """Return a view of the same samples, along ``batch_axis``, that shows these elements."""
        any_batch = self.labels.other is not None
        return FeatureView.of_index(
            self.space, self.batches, index, batch_axis, any_batch=any_batch
        )

    def row_major_of(self, new: FeatureMap) -> FeatureView:
        """Return a view of the same shape whose elements, row-major, are those of ``new``."""
        order = np.arange(self.index.size, dtype=np.int64).reshape(self.index.shape)
        return self.reindexed(new.first_label + order)
