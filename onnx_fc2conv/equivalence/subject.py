"""What is claimed of a pair of models, and so has to be shown of it at larger sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from onnx_fc2conv.equivalence.other_sizes import same_interface
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.report import Relation
from onnx_fc2conv.geometry import OutputGeometry
from onnx_fc2conv.pipeline import inspect

__all__ = ["LargerSizes", "Subject", "of_windows", "strides_of"]

LargerSizes = Literal["none", "other", "same", "windows"]
"""What can be compared at other sizes than the native one: nothing; the same outputs where symbolic
dims of any meaning have other lengths; the same outputs on larger images; cells with windows."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A pair and what its converted model is taken to be.

    Attributes:
        pair: The models.
        relation: What the converted model is to the original.
        geometry: What the cells of the outputs mean.
        claims_sizes: Whether the converted model claims to be right at larger sizes. One of ours,
            or one whose geometry is stated, does; another may turn out to be equal at the native
            size only.
    """

    pair: Pair
    relation: Relation
    geometry: Mapping[str, OutputGeometry]
    claims_sizes: bool

    @cached_property
    def strides(self) -> dict[str, tuple[int, ...]]:
        """Pixels between neighboring windows per growing axis, by input."""
        return strides_of(self.pair, self.geometry)

    @cached_property
    def larger_sizes(self) -> LargerSizes:
        """What can be compared at other sizes."""
        growing = any(self.pair.growing.values())
        reductions = any(meaning.reduction is not None for meaning in self.geometry.values())
        keeps_sizes = growing and not reductions and same_interface(self.pair)
        if keeps_sizes and not self.geometry:  # no image: a transformer, say
            return "other"
        if self.relation.kind == "any size":
            return "same"
        if self.relation.kind == "native size only" and not self.claims_sizes:
            return "none"
        return "windows"


def of_windows(
    subject: Subject, reference: ir.Model, shapes: Mapping[str, tuple[int, ...]] | None
) -> Subject:
    """A map where the original pools the whole image: of each window, then, by its meaning."""
    meanings = subject.geometry.values()
    if subject.relation.kind != "map" or not meanings or any(0 not in m.stride for m in meanings):
        return subject
    geometry = inspect(reference, input_shapes=shapes, pool="window").geometry
    return replace(subject, geometry=geometry)


def strides_of(pair: Pair, geometry: Mapping[str, OutputGeometry]) -> dict[str, tuple[int, ...]]:
    """Pixels between neighboring windows by input; half the image where nobody knows."""
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
