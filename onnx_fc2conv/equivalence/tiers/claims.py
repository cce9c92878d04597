"""Tier *geometry*: the geometry that the converted model claims, against its behavior.

The geometry in a model's metadata is what users map cells to boxes with, so it is not believed:
window and number of cells are compared with the models, and a cell must not move when the pixels
outside its receptive field do. Strides and exact windows are what *image windows* is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.comparing.comparison import largest_magnitude
from onnx_fc2conv.equivalence.larger_runs import NATIVE
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_claims", "renamed", "wrong_window"]

_TIER = "geometry"
_FIELDS = 3
"""Images in which pixels outside a receptive field are changed."""


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


def check_claims(claim: Claim) -> list[TierResult]:
    """Hold the converted model to the geometry in its metadata."""
    pair, claimed = claim.pair, claim.stored
    if not any(pair.growing.values()):
        return []
    outputs = {value.name for value in pair.converted.graph.outputs}
    results: list[TierResult] = []
    for name, geometry in claimed.items():
        wrong = wrong_window(pair, geometry)
        if wrong is not None and claim.relation.kind == "any size":  # which fixes no window
            results.append(TierResult(_TIER, name, "skipped", wrong))
            continue
        if geometry.verdict == "misaligned":
            why = f"it claims no cell for each window: {geometry.why}"
            results.append(TierResult(_TIER, name, "skipped", why))
            continue
        if name not in outputs:
            wrong = "the metadata describes it, but the model has no such output"
        elements = 0
        if wrong is None:
            try:
                elements, wrong = _Claims(claim, name, geometry).measure()
            except RunError as error:
                wrong = str(error)
        said = f"{geometry.verdict}: number of cells and receptive field where cells are added"
        status: Status = "failed" if wrong else "passed"
        results.append(TierResult(_TIER, name, status, wrong or said, elements))
    return results


def wrong_window(pair: Pair, geometry: Geometry) -> str | None:
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

    claim: Claim
    output: str
    geometry: Geometry

    def measure(self) -> tuple[int, str | None]:
        """Return the number of compared elements, and the first claim that is false, if any."""
        try:
            own = self.geometry.output_size(self.geometry.window)
        except ValueError as error:
            return 0, f"it claims not to compute at the native size: {error}"
        larger, axes = self.claim.larger, self.claim.pair.growing[self.geometry.input]
        native, elements = larger.shapes(NATIVE)[self.output], 0
        for number, (image, got) in enumerate(zip(larger.images, larger.got, strict=True)):
            size = [image.feeds[self.geometry.input].shape[axis] for axis in axes]
            try:
                claimed = self.geometry.output_size(size)
            except ValueError:
                continue
            made = got[self.output]
            elements += made.size
            first = self._first_axis((native, own), (made.shape, claimed))
            if first is None:
                return elements, (
                    f"at {image} it claims {list(claimed)} cells, but its shape is "
                    f"{list(made.shape)}, and natively {list(native)}"
                )
            tried = self.geometry.receptive_field and number < _FIELDS
            if tried and not self._sees_no_more(image.feeds, made, first):
                why = f"a cell at {image} changes with pixels outside its receptive field"
                return elements, why
        return elements, None

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
        field, axes = self.geometry.receptive_field, self.claim.pair.growing[self.geometry.input]
        assert field is not None
        cell = [n // 2 for n in made.shape[first : first + len(axes)]]
        array = feeds[self.geometry.input]
        (own,) = (i for i in self.claim.pair.inputs if i.name == self.geometry.input)
        other = sample([own], {own.name: array.shape}, "image-like", self.claim.pair.rng(6))[
            own.name
        ]
        seen = [slice(None)] * array.ndim
        for n, axis in enumerate(axes):
            start = field.start[n] + cell[n] * self.geometry.stride[n]
            seen[axis] = slice(max(0, start), max(0, start + field.size[n]))
        other[tuple(seen)] = array[tuple(seen)]
        where = (slice(None),) * first + tuple(cell)
        again = self.claim.larger.converted.run({**feeds, own.name: other})[self.output]
        one, two = made[where], again[where]
        if not np.issubdtype(made.dtype, np.floating):
            return np.array_equal(one, two)
        rtol = self.claim.pair.tolerances[self.output].relative(made.dtype)
        return np.allclose(one, two, rtol, rtol * largest_magnitude(made), equal_nan=True)
