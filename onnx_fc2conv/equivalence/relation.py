"""How the converted model relates to the original: found by running it at a larger size.

A conversion may be a drop-in of one fixed size, take any size as the original does, or give a map
of windows. Many tools write a Gemm as Reshape → 1×1 Conv → Reshape: equal at the native size, and
at a larger one it cuts each image into several samples. The relation puts this in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import Relation, RelationKind
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.inputs import image_axes

__all__ = ["Expect", "is_ours", "outputs_of", "relation_of"]

Expect = Literal["map", "same"]
"""A user's demand: a map of windows, or the interface of the original."""

_WORDS: Mapping[RelationKind, str] = {
    "fixed size": "equal at the native size only: the input size is fixed",
    "any size": "the same interface, at any size that the original takes",
    "whole image": "one result for an image of any size",
    "map": "a map of windows at any size",
}
_TRIED = 8
"""Sizes tried for a model that fails at the first: heads on up to 8 positions a side."""

_NATIVE_ONLY = "equal at the native size only: at larger sizes it"


@dataclass(frozen=True)
class _Behavior:
    """How an output behaves at a larger size: ``one``, ``map``, or ``neither`` (see words)."""

    kind: Literal["one", "map", "neither"]
    words: str = ""


@dataclass(frozen=True, eq=False)
class _Probe:
    """Shapes at the native and at a larger size.

    Attributes:
        pair: The models.
        axes: The axes that grow, by input.
        strides: Pixels between neighboring cells, per growing axis of each input.
        batch: Number of images.
        windows: Number of windows beyond the first, along each axis.
    """

    pair: Pair
    axes: Mapping[str, Sequence[int]]
    strides: Mapping[str, Sequence[int]]
    batch: int = 1
    windows: Sequence[int] = (3, 4, 5)

    @cached_property
    def _native(self) -> dict[str, tuple[int, ...]]:
        return {
            name: (self.batch, *shape[1:]) if self.axes[name] else shape
            for name, shape in self.pair.native.items()
        }

    @cached_property
    def _larger(self) -> dict[str, tuple[int, ...]]:
        return {name: self._grown(name, shape) for name, shape in self._native.items()}

    def _grown(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        larger = list(shape)
        steps = self.strides.get(name, ())
        for number, axis in enumerate(self.axes[name]):
            step = steps[number] if number < len(steps) else shape[axis] // 2
            larger[axis] += self.windows[number % len(self.windows)] * max(1, step)
        return tuple(larger)

    @property
    def size(self) -> str:
        """The larger size of the first image input, as text."""
        name = next(name for name, axes in self.axes.items() if axes)
        return "×".join(str(self._larger[name][axis]) for axis in self.axes[name])

    def run(self, session: Session, *, larger: bool) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs.

        Raises:
            RunError: If the model does not run.
        """
        shapes = self._larger if larger else self._native
        feeds = sample(self.pair.inputs, shapes, "image-like", self.pair.rng(5))
        return {name: array.shape for name, array in session.run(feeds).items()}

    def _odd_words(self, session: Session, native: Mapping[str, tuple[int, ...]]) -> str:
        """Describe the output of a failing model at a size where its shapes happen to fit."""
        for more in range(1, _TRIED + 1):
            other = replace(self, windows=(0, more) if self._rank > 1 else (more,))
            try:
                larger = other.run(session, larger=True)
            except RunError:
                continue
            for name, shape in larger.items():
                if shape[:1] != native[name][:1]:
                    return _in_words(native[name], shape, other.size)
        return ""

    @property
    def _rank(self) -> int:
        return max(len(axes) for axes in self.axes.values())

    def behaviors(self, session: Session) -> dict[str, _Behavior]:
        """Return how each output behaves in the converted model at a larger size.

        Raises:
            RunError: If the model does not run at the native size.
        """
        names = [name for name in outputs_of(self.pair.reference) if name not in self.pair.missing]
        native = self.run(session, larger=False)
        try:
            larger = self.run(session, larger=True)
        except RunError as error:
            words = self._odd_words(session, native) or f"does not run ({self.size}: {error})"
            return dict.fromkeys(names, _Behavior("neither", words))
        ranks = {
            value.name: None if value.shape is None else len(value.shape)
            for value in self.pair.reference.graph.outputs
        }
        return {
            name: _behavior(native[name], larger[name], ranks[name], self._rank, self.size)
            for name in names
        }


def relation_of(pair: Pair, strides: Mapping[str, Sequence[int]]) -> Relation:
    """Find the relation by running the converted model at the native and at a larger size.

    Args:
        pair: The models.
        strides: By input, the distance in pixels between neighboring cells per growing axis, where
            it is known.
    """
    if not any(pair.growing.values()):
        return Relation("fixed size", _WORDS["fixed size"] + _if_freed(pair, strides))
    free = pair.converted_batch_is_free
    probe = _Probe(pair, pair.growing, strides, 2 if free else pair.fixed_batch or 1)
    session = pair.compared(pair.converted)
    try:
        behaviors = probe.behaviors(session)
    except RunError:  # the native tier says why
        return Relation("map", _WORDS["map"])
    if _reference_grows_alike(pair, probe, session):
        return Relation("any size", _WORDS["any size"])
    odd = next((b.words for b in behaviors.values() if b.kind == "neither"), "")
    if odd:
        return Relation("native size only", f"{_NATIVE_ONLY} {odd}")
    kind: RelationKind = "map" if "map" in {b.kind for b in behaviors.values()} else "whole image"
    return Relation(kind, _WORDS[kind])


def is_ours(model: ir.Model) -> bool:
    """Whether the model says that this package wrote it: it claims maps, and is held to them."""
    return any(ORIGIN in node.metadata_props for node in model.graph)


def _behavior(
    native: Sequence[int], larger: Sequence[int], rank_before: int | None, rank: int, size: str
) -> _Behavior:
    """Classify an output by its shapes; ``rank`` axes of the image grow."""
    if tuple(native) == tuple(larger):
        return _Behavior("one")
    grown = {
        axis
        for axis, (one, two) in enumerate(zip(native, larger, strict=False))
        if one != two and len(native) == len(larger)
    }
    new_axes = rank_before is None or len(larger) >= rank_before + rank
    if grown and min(grown) >= max(1, len(larger) - rank) and (new_axes or len(larger) >= 2 + rank):
        return _Behavior("map")
    return _Behavior("neither", _in_words(native, larger, size))


def _in_words(native: Sequence[int], larger: Sequence[int], size: str) -> str:
    """Describe an output that is not a map."""
    what = f"shape {list(larger)}"
    if larger and larger[0] > native[0] and tuple(larger[1:]) == tuple(native[1:]):
        times, rest = divmod(larger[0], native[0])
        what = f"{larger[0]} samples for {native[0]} images" if rest else f"N·{times} samples"
    return f"returns {what} instead of a map (at {size})"


def _reference_grows_alike(pair: Pair, probe: _Probe, session: Session) -> bool:
    """Whether the reference declares the same free axes and gives the same shapes."""
    declared = {i.name: i.shape for i in pair.inputs}
    if any(declared[n][axis] is not None for n, axes in probe.axes.items() for axis in axes):
        return False
    names = outputs_of(pair.reference)
    try:
        one = probe.run(pair.compared(pair.reference), larger=True)
        two = probe.run(session, larger=True)
    except RunError:
        return False
    return all(one[name] == two.get(name) for name in names)


def _if_freed(pair: Pair, strides: Mapping[str, Sequence[int]]) -> str:
    """Describe what a fixed-size model would return, if not a map, with symbolic input dims."""
    spatial = {
        value.name: tuple(axis for axis in found[2:] if axis is not None)
        for value, found in image_axes(pair.reference.graph).items()
    }
    axes = {name: spatial.get(name, ()) for name in pair.native}
    if not any(axes.values()):
        return ""
    freed = pair.converted.clone()
    grow = [value for value in freed.graph.inputs if axes.get(value.name or "")]
    for value in (*grow, *(made for node in freed.graph for made in node.outputs)):
        value.shape = None
    probe = _Probe(pair, axes, strides, pair.fixed_batch or 1)
    try:
        behaviors = probe.behaviors(pair.session(freed))
    except (RunError, InvalidModelError):
        return ""
    odd = (b.words for b in behaviors.values() if b.words.startswith("returns"))
    return next((f"; freed, it {words}" for words in odd), "")


def outputs_of(model: ir.Model) -> list[str]:
    """The names of a model's outputs."""
    return [value.name or "" for value in model.graph.outputs]
