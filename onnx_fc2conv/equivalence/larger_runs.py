"""The converted model on larger images: run once, for every tier that compares there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.larger import Enlarged, enlarged, remainders_text
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.seam import SlidingMap, grown_axes
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["NATIVE", "LargerRuns"]

_KINDS = ("image-like", "normal", "uniform")
NATIVE = (0, 0, 0)
"""No cells more than at the native size."""

_ENOUGH = 4
"""Sizes for models with other weights."""

_CELLS = (3, 4, 5)
_FEW_CELLS = (1, 2, 1)
"""Further cells, along each axis, of the image on which the growth of tensors is measured; fewer
where the models are slow."""

_MOVED = 0.3
"""The share of a map that must have moved with the image: near its edges, pads show."""

_DENSER = (2, 3, 4, 6, 8, 16, 32)
"""Cells of a denser grid for a cell of the original's: the factors that are tried."""


@dataclass(eq=False)
class LargerRuns:
    """The converted model on larger images.

    Attributes:
        pair: The models.
        geometry: What is claimed of the outputs, by name.
        unreduced: Geometry of the outputs that are reduced over all windows, as if they were not.
        like: The same models with other weights: what grows there, grows here.
    """

    pair: Pair
    geometry: Mapping[str, Geometry]
    unreduced: Mapping[str, Geometry] = field(default_factory=dict)
    like: LargerRuns | None = None
    _probed: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = field(
        init=False, default_factory=dict
    )

    @cached_property
    def strides(self) -> dict[str, tuple[int, ...]]:
        """Pixels between neighboring windows by input; half the image where unknown."""
        pair = self.pair
        strides = {
            name: tuple(max(1, pair.native[name][axis] // 2) for axis in axes)
            for name, axes in pair.growing.items()
        }
        found: dict[str, tuple[int, ...]] = {}
        for meaning in (*self.geometry.values(), *self.unreduced.values()):
            if 0 in meaning.stride:
                continue
            for name, axes in pair.growing.items():
                native = tuple(pair.native[name][axis] for axis in axes)
                if name == meaning.input or native == meaning.window:
                    steps = meaning.stride[: len(axes)]
                    found[name] = tuple(map(max, found.get(name, steps), steps))
        return strides | found

    @cached_property
    def reduced(self) -> frozenset[str]:
        """The outputs that are reduced over all windows."""
        return frozenset(o for o, m in self.geometry.items() if m.reduction is not None)

    @property
    def more(self) -> tuple[int, int, int]:
        """Further cells of the image on which the growth of tensors is measured."""
        return _FEW_CELLS if self.pair.is_heavy else _CELLS

    @cached_property
    def names(self) -> list[str]:
        """The outputs that both models have."""
        return [name for name in self.pair.outputs if name not in self.pair.missing]

    @cached_property
    def images(self) -> list[Enlarged]:
        """The larger images."""
        found = list(enlarged(self.pair, self.strides, self.pair.kinds_of(_KINDS)))
        return found if self.like is None else found[:_ENOUGH]

    @cached_property
    def sizes_text(self) -> str:
        """The larger sizes in a few words."""
        if self.like is not None:
            return self.count_text
        return f"{self.count_text} ({remainders_text(self.pair, self.strides)} of the stride)"

    @property
    def count_text(self) -> str:
        """How many larger sizes there are."""
        return f"{len(self.images)} larger size{'s' if len(self.images) > 1 else ''}"

    @cached_property
    def got(self) -> list[dict[str, AnyArray]]:
        """The converted outputs on each of them.

        Raises:
            RunError: If the model does not run.
        """
        made = [self.converted.run(image.feeds, self.names) for image in self.images]
        if self.pair.is_large:  # only one model may be in memory
            del self.converted
        return made

    @cached_property
    def converted(self) -> Session:
        """The converted model."""
        return self.pair.compared(self.pair.converted)

    @cached_property
    def axes(self) -> dict[str, tuple[int, ...]]:
        """By output, the axes along which it grows in the converted model."""
        if self.like is not None:
            return self.like.axes
        native, larger = self.shapes(NATIVE), self.shapes()
        return {name: grown_axes(native[name], larger[name]) for name in native}

    def cells(self, output: str, image: Enlarged, shape: Sequence[int]) -> tuple[int, ...]:
        """The cells along each axis of an output that has this shape on a larger image.

        Where the original's output has several cells at the native size already, they overlap.

        Raises:
            RunError: If it has not as many as are claimed.
        """
        own, meaning = self._extent(output), self.geometry.get(output)
        made = tuple(shape[axis] - own[n] + 1 for n, axis in enumerate(self.axes[output]))
        if meaning is None or 0 in meaning.stride or meaning.input not in image.feeds:
            return made
        axes = self.pair.growing[meaning.input]
        try:
            size = meaning.output_size([image.feeds[meaning.input].shape[axis] for axis in axes])
        except ValueError:  # it is not claimed to run there
            return made
        if made != tuple(n - own + 1 for n, own in zip(size, meaning.cells, strict=True)):
            raise RunError(
                f"at {image} the output has shape {list(shape)}, which is not a cell for each crop"
            )
        return made

    def rows(
        self,
        output: str,
        array: AnyArray,
        cells: Sequence[int],
        chosen: AnyArray | None = None,
        every: Sequence[int] = (),
    ) -> AnyArray:
        """The cells of a converted output: [batch·cells, numbers of a cell].

        Args:
            output: The output.
            array: It, on a larger image.
            cells: The cells along each axis.
            chosen: Indices of those wanted; None for all.
            every: Along each axis, the distance of one wanted cell to the next; 1 by default.
        """
        axes = self.axes[output]
        native = [1, *array.shape[1:]]
        for axis, length in zip(axes, self._extent(output), strict=True):
            native[axis] = length
        steps = tuple(every) or (1,) * len(axes)
        sliding = SlidingMap(output, tuple(native[1:]), tuple(a - 1 for a in axes), steps, steps)
        rows = sliding.windows(array, cells).reshape(len(array), prod(cells), -1)
        kept = rows if chosen is None else rows[:, chosen]
        return kept.reshape(-1, rows.shape[-1])

    def _extent(self, output: str) -> tuple[int, ...]:
        """The cells of one window along each axis: 1, if the original has no map there."""
        if self.like is not None:
            return self.like._extent(output)
        shape = self.shapes(NATIVE)[output]
        own = self.pair.native_shape(self.pair.reference, output) or ()
        several = prod(shape[1:]) == prod(own[1:])
        return tuple(shape[axis] if several else 1 for axis in self.axes[output])

    def further(self, output: str, cells: Sequence[int]) -> tuple[int, ...] | None:
        """Further cells of an output on an image larger by so many; None if it is no map.

        Where its stride is claimed, so are they.
        """
        axes, meaning = self.axes[output], self.unreduced.get(output, self.geometry.get(output))
        if not axes and output not in self.reduced:
            return None
        if meaning is not None and 0 not in meaning.stride and meaning.input in self.pair.native:
            native = self.pair.native[meaning.input]
            grown = self._shape(meaning.input, native, cells)
            image = self.pair.growing[meaning.input]
            return tuple(
                (grown[axis] - native[axis]) // step
                for axis, step in zip(image, meaning.stride, strict=False)
            )
        before, after = self.shapes(NATIVE)[output], self.shapes(cells)[output]
        return tuple(after[axis] - before[axis] for axis in axes)

    def shapes(self, cells: Sequence[int] = ()) -> dict[str, tuple[int, ...]]:
        """Shapes of the converted outputs on an image that is larger by so many cells."""
        key = tuple(cells) or self.more
        if key not in self._probed:
            made = self.converted.run(self.feeds(key), self.names)
            self._probed[key] = {name: array.shape for name, array in made.items()}
        return self._probed[key]

    def size_text(self, cells: Sequence[int] = ()) -> str:
        """The size of the first image that is larger by so many cells."""
        name = next(name for name, axes in self.pair.growing.items() if axes)
        shape = self._shape(name, self.pair.native[name], tuple(cells) or self.more)
        return "×".join(str(shape[axis]) for axis in self.pair.growing[name])

    def feeds(self, cells: Sequence[int], kind: str = "uniform") -> dict[str, AnyArray]:
        """Images that are larger than native by so many cells."""
        native = self.pair.batched(self.batch)
        shapes = {name: self._shape(name, shape, cells) for name, shape in native.items()}
        return sample(self.pair.inputs, shapes, kind, self.pair.rng(5))

    @cached_property
    def batch(self) -> int:
        """Two images, if the converted model takes any number: it must not mix them."""
        several = self.pair.converted_batch_is_free and not self.pair.is_heavy
        return 2 if several else self.pair.fixed_batch or 1

    def _shape(self, name: str, native: Sequence[int], cells: Sequence[int]) -> tuple[int, ...]:
        """The shape of an input that is larger by so many cells."""
        shape, axes = list(native), self.pair.growing[name]
        by = self.pair.size_steps.get(name, (1,) * len(axes))
        for axis, more, stride, step in zip(axes, cells, self.strides[name], by, strict=False):
            shape[axis] += -(-more * stride // step) * step
        return tuple(shape)
