"""The claims about the two models that a check has to test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.refined import RefinedGrid
from onnx_fc2conv.equivalence.relation import Expect
from onnx_fc2conv.equivalence.reporting.results import Relation
from onnx_fc2conv.equivalence.running.recordings import Recordings
from onnx_fc2conv.equivalence.tracing.interface import same_interface
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.pipeline import inspect

__all__ = ["Claim", "LargerSizes", "window_strides"]

LargerSizes = Literal["none", "other", "same", "windows"]
"""Possible comparisons at other sizes: none; the same outputs where any symbolic dims have
other lengths; the same outputs on larger images; cells with windows."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A pair and what its converted model is taken to be.

    Attributes:
        pair: The models.
        relation: How the converted model relates to the original.
        geometry: Geometry of the outputs, by name.
        claims_sizes: Whether the converted model claims to be right at larger sizes: a conversion
            of ours, or one whose geometry is stated. Another may turn out to be equal at the
            native size only.
        stored: Geometry in the converted model's metadata, by output.
        denser: The converted model if its grid is refined; the pair then has the ordinary
            conversion in its place.
        original: The reference as it was given, of an old opset perhaps.
        recordings: The user's own samples.
        expect: The relation that the user demands.
    """

    pair: Pair
    relation: Relation
    geometry: Mapping[str, Geometry]
    claims_sizes: bool
    original: ir.Model
    stored: Mapping[str, Geometry] = field(default_factory=dict)
    denser: RefinedGrid | None = None
    recordings: Sequence[Recordings] = ()
    expect: Expect | None = None

    @property
    def is_upgraded(self) -> bool:
        """Whether the reference is the original's upgrade from an old opset."""
        opset, now = (m.opset_imports.get("", 0) for m in (self.original, self.pair.reference))
        return opset < now

    @cached_property
    def strides(self) -> dict[str, tuple[int, ...]]:
        """Pixels between neighboring windows per growing axis, by input."""
        return window_strides(self.pair, self.geometry)

    @cached_property
    def described(self) -> Pair:
        """The pair with the converted model that the metadata describes."""
        return self.pair if self.denser is None else replace(self.pair, converted=self.denser.model)

    @cached_property
    def larger_sizes(self) -> LargerSizes:
        """The comparisons possible at other sizes."""
        growing = any(self.pair.growing.values())
        reductions = any(meaning.reduction is not None for meaning in self.geometry.values())
        keeps_sizes = (
            growing and not reductions and same_interface(self.pair.reference, self.pair.converted)
        )
        if keeps_sizes and not self.geometry:  # no image: a transformer, say
            return "other"
        if self.relation.kind == "any size":
            return "same"
        if self.relation.kind == "native size only" and not self.claims_sizes:
            return "none"
        return "windows"

    def of_windows(
        self, reference: ir.Model, input_shapes: Mapping[str, tuple[int, ...]] | None
    ) -> Claim:
        """A map where the original pools the whole image: of each window, then, by its meaning.

        Args:
            reference: The original.
            input_shapes: Native shape by input name where the reference's own is symbolic.
        """
        cells = bool(self.geometry) and all(0 in m.stride for m in self.geometry.values())
        if self.relation.kind != "map" or not cells:
            return self
        geometry = inspect(reference, input_shapes=input_shapes, pool="window").geometry
        return replace(self, geometry=geometry)


def window_strides(pair: Pair, geometry: Mapping[str, Geometry]) -> dict[str, tuple[int, ...]]:
    """Pixels between neighboring windows by input; half the image where unknown."""
    strides = {
        name: tuple(max(1, pair.native[name][axis] // 2) for axis in axes)
        for name, axes in pair.growing.items()
    }
    found: dict[str, tuple[int, ...]] = {}
    for meaning in geometry.values():
        if 0 in meaning.stride:
            continue
        for name, axes in pair.growing.items():
            native = tuple(pair.native[name][axis] for axis in axes)
            if name == meaning.input or native == meaning.window:
                steps = meaning.stride[: len(axes)]
                found[name] = tuple(map(max, found.get(name, steps), steps))
    return strides | found
