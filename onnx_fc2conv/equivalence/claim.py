"""The claims about the two models that a check has to test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from onnx_fc2conv.equivalence.larger_runs import LargerRuns
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.relation import Expect, relation_of
from onnx_fc2conv.equivalence.reporting.results import Relation
from onnx_fc2conv.equivalence.running.recordings import Recordings
from onnx_fc2conv.equivalence.tracing.interface import same_interface
from onnx_fc2conv.equivalence.tracing.seams import Seams
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.pipeline import inspect

__all__ = ["Claim", "LargerSizes"]

LargerSizes = Literal["none", "other", "same", "windows"]
"""Possible comparisons at other sizes: none; the same outputs where any symbolic dims have
other lengths; the same outputs on larger images; cells with windows."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A pair and what its converted model is taken to be.

    Attributes:
        pair: The models.
        geometry: Geometry of the outputs, by name.
        claims_sizes: Whether the converted model claims to be right at larger sizes: a conversion
            of ours, or one whose geometry is stated. Another may turn out to be equal at the
            native size only.
        stored: Geometry in the converted model's metadata, by output.
        original: The reference as it was given, of an old opset perhaps.
        recordings: The user's own samples.
        expect: The relation that the user demands.
        unreduced: Geometry of the outputs that are reduced over all windows, as if they were not.
        like: The claim of the same models with other weights: what was found of them holds here.
    """

    pair: Pair
    geometry: Mapping[str, Geometry]
    claims_sizes: bool
    original: ir.Model
    stored: Mapping[str, Geometry] = field(default_factory=dict)
    recordings: Sequence[Recordings] = ()
    expect: Expect | None = None
    unreduced: Mapping[str, Geometry] = field(default_factory=dict)
    like: Claim | None = None

    @property
    def is_upgraded(self) -> bool:
        """Whether the reference is the original's upgrade from an old opset."""
        opset, now = (m.opset_imports.get("", 0) for m in (self.original, self.pair.reference))
        return opset < now

    @cached_property
    def larger(self) -> LargerRuns:
        """The models on larger images."""
        like = None if self.like is None else self.like.larger
        return LargerRuns(self.pair, self.geometry, self.unreduced, like)

    @cached_property
    def seams(self) -> Seams:
        """What the outputs of the original are made of on larger images."""
        return Seams(self.larger, None if self.like is None else self.like.seams)

    @cached_property
    def relation(self) -> Relation:
        """How the converted model relates to the original."""
        return relation_of(self.larger, self.seams) if self.like is None else self.like.relation

    @cached_property
    def larger_sizes(self) -> LargerSizes:
        """The comparisons possible at other sizes."""
        growing = any(self.pair.growing.values())
        if growing and not self.geometry and same_interface(*self.pair.models):
            return "other"  # no image: a transformer, say
        if self.relation.kind == "any size":
            return "same"
        refused = self.relation.kind == "native size only" and not self.claims_sizes
        if refused or not growing:
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
