"""Tier *geometry*: the geometry that the converted model claims, against its behavior.

The geometry in a model's metadata is what users map cells to boxes with, so it is not believed:
window and number of cells are compared with the models, and a cell must not move when the pixels
outside its receptive field do. Strides and exact windows are what *image windows* is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_fc2conv.equivalence.comparing.comparison import largest_magnitude
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_claims", "renamed"]

_TIER = "geometry"


def renamed(claimed: Mapping[str, Geometry], names: Mapping[str, str]) -> dict[str, Geometry]:
    """The same claims of a model whose inputs and outputs have new names.

    Args:
        claimed: The claims, by output.
        names: New names by the old ones, of those that have one.
    """
    return {
        names.get(output, output): replace(claim, input=names.get(claim.input, claim.input))
        for output, claim in claimed.items()
    }


def check_claims(
    pair: Pair, claimed: Mapping[str, Geometry], *, any_size: bool = False
) -> list[TierResult]:
    """Hold the converted model to the geometry in its metadata.

    Args:
        pair: The models.
        claimed: The geometry in the metadata, by output; may be empty.
        any_size: Whether the reference takes any size too, so that it does not fix the size of the
            windows.
    """
    if not claimed or not any(pair.growing.values()):
        return []
    outputs = {value.name for value in pair.converted.graph.outputs}
    run = pair.compared(pair.converted)
    results: list[TierResult] = []
    for name, geometry in claimed.items():
        wrong = _wrong_window(pair, geometry)
        if wrong is not None and any_size:
            results.append(TierResult(_TIER, name, "skipped", wrong))
            continue
        if name not in outputs:
            wrong = "the metadata describes it, but the model has no such output"
        elements = 0
        if wrong is None:
            try:
                elements, wrong = _Claims(pair, run, name, geometry).measure()
            except RunError as error:
                wrong = str(error)
        said = f"{geometry.verdict}: number of cells and receptive field where cells are added"
        status: Status = "failed" if wrong else "passed"
        results.append(TierResult(_TIER, name, status, wrong or said, elements))
    return results


def _wrong_window(pair: Pair, geometry: Geometry) -> str | None:
    """Return how the claimed window differs from the native image input; None if it does not."""
    axes = pair.growing.get(geometry.input)
    if not axes:
        return f"it claims windows in {geometry.input!r}, which is no image input"
    native = tuple(pair.native[geometry.input][axis] for axis in axes)
    if geometry.window != native:
        return f"it claims a window of {geometry.window_text}, but it is {list(native)}"
    if any(geometry.offset):
        return f"it claims a first window at {list(geometry.offset)}, but it starts at 0"
    return None


@dataclass(frozen=True, eq=False)
class _Claims:
    """The claims about one output."""

    pair: Pair
    run: Session
    output: str
    geometry: Geometry

    def measure(self) -> tuple[int, str | None]:
        """Return the number of compared elements, and the first claim that is false, if any."""
        try:
            own = self.geometry.output_size(self.geometry.window)
        except ValueError as error:
            return 0, f"it claims not to compute at the native size: {error}"
        native = self._run(self._feeds(self.geometry.window)).shape
        elements = 0
        for size in self._sizes():
            try:
                claimed = self.geometry.output_size(size)
            except ValueError:
                continue
            feeds = self._feeds(size)
            made = self._run(feeds)
            elements += made.size
            first = self._first_axis((native, own), (made.shape, claimed))
            if first is None:
                return elements, (
                    f"at {list(size)} it claims {list(claimed)} cells, but its shape is "
                    f"{list(made.shape)}, and natively {list(native)}"
                )
            if self.geometry.receptive_field and not self._sees_no_more(feeds, made, first):
                why = f"a cell at {list(size)} changes with pixels outside its receptive field"
                return elements, why
        return elements, None

    def _sizes(self) -> list[tuple[int, ...]]:
        """The last size before another cell appears, the first with it, and a larger one."""
        axes = [
            *zip(self.geometry.window, self.geometry.stride, self.geometry.remainder, strict=True)
        ]
        whole = [(own, step or own, rest % (step or own)) for own, step, rest in axes]
        return [
            tuple(own + step - rest - 1 for own, step, rest in whole),
            tuple(own + step - rest for own, step, rest in whole),
            tuple(own + (2 + n % 2) * step + n for n, (own, step, _) in enumerate(whole)),
        ]

    def _feeds(self, size: Sequence[int]) -> dict[str, AnyArray]:
        """Images of this size; further images are larger by as many pixels."""
        grown = [n - own for n, own in zip(size, self.geometry.window, strict=True)]
        shapes = self.pair.batched(self.pair.fixed_batch or 1)
        for name, axes in self.pair.growing.items():
            shape = list(shapes[name])
            for axis, more in zip(axes, grown, strict=False):
                shape[axis] += more
            shapes[name] = tuple(shape)
        return sample(self.pair.inputs, shapes, "image-like", self.pair.rng(5))

    def _run(self, feeds: Mapping[str, AnyArray]) -> AnyArray:
        return self.run.run(feeds, [self.output])[self.output]

    def _first_axis(
        self,
        before: tuple[tuple[int, ...], tuple[int, ...]],
        after: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> int | None:
        """Return the first spatial axis of the output, or None if it has not the cells claimed.

        Args:
            before: Shape of the output at the native size, and the cells claimed for it.
            after: The same at a larger size.
        """
        (native, own), (shape, claimed) = before, after
        rank = len(claimed)
        if not any(self.geometry.stride):
            return 1 if native[1:] == shape[1:] else None
        for first in range(len(shape) - rank, 0, -1):
            axes = slice(first, first + rank)
            rest = native[1:first] + native[axes.stop :]
            if (native[axes], shape[axes]) == (own, claimed) and (
                rest == shape[1:first] + shape[axes.stop :]
            ):
                return first
        return None

    def _sees_no_more(self, feeds: Mapping[str, AnyArray], made: AnyArray, first: int) -> bool:
        """Whether the middle cell stays when all pixels outside its receptive field change."""
        field, axes = self.geometry.receptive_field, self.pair.growing[self.geometry.input]
        assert field is not None
        cell = [n // 2 for n in made.shape[first : first + len(axes)]]
        array = feeds[self.geometry.input]
        (own,) = (i for i in self.pair.inputs if i.name == self.geometry.input)
        other = sample([own], {own.name: array.shape}, "image-like", self.pair.rng(6))[own.name]
        seen = [slice(None)] * array.ndim
        for n, axis in enumerate(axes):
            start = field.start[n] + cell[n] * self.geometry.stride[n]
            seen[axis] = slice(max(0, start), max(0, start + field.size[n]))
        other[tuple(seen)] = array[tuple(seen)]
        where = (slice(None),) * first + tuple(cell)
        one, two = made[where], self._run({**feeds, own.name: other})[where]
        if not np.issubdtype(made.dtype, np.floating):
            return np.array_equal(one, two)
        rtol = self.pair.tolerances[self.output].relative(made.dtype)
        return np.allclose(one, two, rtol, rtol * largest_magnitude(made), equal_nan=True)
