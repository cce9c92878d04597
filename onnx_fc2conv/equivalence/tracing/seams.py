"""The seams of all outputs: the original, freed of its size, runs on larger images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.larger_runs import NATIVE, LargerRuns
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.batches import to_reference_shape
from onnx_fc2conv.equivalence.tracing.correspondence import corresponding
from onnx_fc2conv.equivalence.tracing.freed import Freed
from onnx_fc2conv.equivalence.tracing.seam import Growth, Seam, SlidingMap, find_seam
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Seams"]

_MOVED = 0.3
"""The share of a map that must have moved with the image: near its edges, pads show."""

_DENSER = (2, 3, 4, 6, 8, 16, 32)
"""Cells of a denser grid for a cell of the original's: the factors that are tried."""


@dataclass(eq=False)
class Seams:
    """What the outputs of the original are made of on larger images.

    Attributes:
        runs: The converted model there.
        like: The same models with other weights: their seams are the same.
    """

    runs: LargerRuns
    like: Seams | None = None
    _first: dict[str, list[Seam]] = field(init=False, default_factory=dict)

    @property
    def pair(self) -> Pair:
        """The models."""
        return self.runs.pair

    @cached_property
    def freed(self) -> Freed:
        """The original, freed of its size."""
        return Freed(self.pair, self.pair.reference)

    @cached_property
    def freed_otherwise(self) -> Freed:
        """The same, rounded otherwise."""
        return Freed(self.pair, self.pair.jittery)

    @cached_property
    def alike(self) -> list[str]:
        """The outputs that the freed original computes in the same shape."""
        if self.like is not None:
            return self.like.alike
        free = self.is_free
        names = [name for name in self.runs.names if free or not self._is_map_of_windows(name)]
        try:
            feeds, larger = self.runs.feeds(self.runs.more), self.runs.shapes()
        except RunError:
            return []
        if not names or not self._native:  # which is found first: there all of them run
            return []
        return [
            name
            for name, array in self.freed.run(feeds, names).items()
            if to_reference_shape(np.empty(larger[name]), array.shape).shape == array.shape
        ]

    @cached_property
    def is_free(self) -> bool:
        """Whether the reference declares the same free axes as the converted model."""
        declared = {i.name: i.shape for i in self.pair.inputs}
        growing = self.pair.growing.items()
        return all(declared[name][axis] is None for name, axes in growing for axis in axes)

    def _is_map_of_windows(self, output: str) -> bool:
        """Whether an output has a cell for each window, or the mean of them, by what is claimed."""
        meaning = self.runs.geometry.get(output)
        if meaning is None:
            return False
        return output in self.runs.reduced or (
            0 not in meaning.stride and set(meaning.cells) == {1}
        )

    def of(self, output: str) -> Iterator[Seam]:
        """The seams of an output: those whose maps the original computes itself come first.

        Further ones draw on maps of the converted model, where the original's trunk has its size
        written in, on earlier maps (a Pad may pad the image or each window), or have fewer windows
        than the output has cells.
        """
        if self.like is not None:
            yield from self.like.of(output)
            return
        if output not in self._first:
            self._first[output] = self._found(output, self.runs.more)
        found = list(self._first[output])
        yield from found
        for more in self._further(output):
            if more not in found:
                found.append(more)
                yield more

    def _further(self, output: str) -> Iterator[Seam]:
        yield from self._found(output, self.runs.more, self.twins)
        for seam in self._first[output]:
            yield from self._found(output, self.runs.more, before=[m.name for m in seam.maps])
        for factor in _DENSER:
            yield from self._found(output, (2 * factor,) * len(self.runs.more), denser=True)

    def _found(
        self,
        output: str,
        cells: Sequence[int],
        twins: Mapping[str, str] | None = None,
        *,
        before: Sequence[str] = (),
        denser: bool = False,
    ) -> list[Seam]:
        """The seam that shows on an image larger by so many cells, if there is one."""
        value = next(v for v in self.pair.reference.graph.outputs if v.name == output)
        try:
            further = self.runs.further(output, cells)
        except RunError:
            return []
        native, feeds = self._native, self.runs.feeds(cells)
        made = feeds | self.maps(feeds, [n for n in self._candidates if n not in before], {})
        growth = Growth(native, self._grown(made), further)
        lacking = {n: twin for n, twin in (twins or {}).items() if growth.map_of(n) is None}
        if lacking:
            made |= self.maps(feeds, list(lacking), lacking)
            growth = replace(growth, larger=self._grown(made))
        still: set[str] = set()
        while True:
            larger = {name: shape for name, shape in growth.larger.items() if name not in still}
            growth = replace(growth, larger=larger)
            seam = find_seam(self.pair.reference, value, growth, denser=denser)
            if seam is None:
                return []
            leaping = [m for m in seam.maps if set(m.steps) != {1}]
            still = {m.name for m in leaping if not self._leaps(m, lacking)}
            if not still:
                return [replace(seam, twins=lacking)]

    def _grown(self, made: Mapping[str, AnyArray]) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that are larger than at the native size."""
        native = self._native
        return {n: array.shape for n, array in made.items() if array.shape != native.get(n)}

    def _leaps(self, leaping: SlidingMap, twins: Mapping[str, str]) -> bool:
        """Whether a map moves by its steps where the image moves by a cell.

        Features laid out otherwise may grow by several for each cell, and do not.
        """
        wide = self.runs.feeds([more + 1 for more in self.runs.more], "normal")
        moved: list[AnyArray] = []
        for start in (0, 1):
            feeds = dict(wide)
            for name, axes in self.pair.growing.items():
                view = [slice(None)] * wide[name].ndim
                for axis, step in zip(axes, self.runs.strides.get(name, ()), strict=False):
                    view[axis] = slice(start * step, wide[name].shape[axis] - (1 - start) * step)
                feeds[name] = np.ascontiguousarray(wide[name][tuple(view)])
            moved.append(self.maps(feeds, [leaping.name], twins)[leaping.name])
        still, other = moved
        where = still
        for axis, step in zip(leaping.axes, leaping.steps, strict=True):
            length = still.shape[axis + 1]
            where = np.take(where, range(length - step), axis + 1)
            still = np.take(still, range(step, length), axis + 1)
            other = np.take(other, range(length - step), axis + 1)
        told = still != where  # elsewhere it does not show
        return bool(told.any() and np.isclose(still, other, 1e-3)[told].mean() > _MOVED)

    def maps(
        self, feeds: Mapping[str, AnyArray], names: Sequence[str], twins: Mapping[str, str]
    ) -> dict[str, AnyArray]:
        """Tensors of the original on a larger image, as far as they can be computed.

        Args:
            feeds: The image.
            names: The tensors.
            twins: Tensors of the converted model that stand for some of them.
        """
        own = [name for name in names if name not in feeds and name not in twins]
        found = {name: feeds[name] for name in names if name in feeds} | self.freed.run(feeds, own)
        others = {name: twins[name] for name in names if name in twins}
        if not others:
            return found
        model = with_outputs(self.pair.converted, others.values())
        made = self.pair.session(model).run(feeds, list(dict.fromkeys(others.values())))
        return found | {
            name: made[twin]
            for name, twin in others.items()
            if made[twin].ndim == len(self._native[name])
        }

    @cached_property
    def twins(self) -> dict[str, str]:
        """Maps of several cells, with the tensors of the converted model that hold the same."""
        rank = max(map(len, self.pair.growing.values()))
        return {
            one: two
            for one, two in corresponding(self.pair).items()
            if one in self._native and sum(length > 1 for length in self._native[one][1:]) > rank
        }

    @cached_property
    def _native(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the candidates and inputs at the native size, for as many samples as run."""
        if self.like is not None:
            return self.like._native
        feeds = self.runs.feeds(NATIVE)
        made = feeds | self.freed.run(feeds, self._candidates)
        return {name: array.shape for name, array in made.items()}

    @cached_property
    def _candidates(self) -> list[str]:
        """The tensors of the original that may be maps: they have the axes of an image."""
        pair, rank = self.pair, max(map(len, self.pair.growing.values()))
        found: list[str] = []
        for value in (made for node in pair.reference.graph for made in node.outputs):
            shape = pair.native_shape(pair.reference, value.name or "")
            several = shape is None or (len(shape) > max(rank, 2) and shape[0] == self._one)
            if several and value.name and isinstance(value.type, ir.TensorType | None):
                found.append(value.name)
        return found

    @property
    def _one(self) -> int:
        """The samples of one run of the original."""
        return self.pair.fixed_batch or 1
