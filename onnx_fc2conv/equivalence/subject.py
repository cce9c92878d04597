"""What is claimed of the two models of a check, by whom, and so has to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.recordings import Recordings
from onnx_fc2conv.equivalence.refined_grid import RefinedGrid
from onnx_fc2conv.equivalence.relation import Expect
from onnx_fc2conv.equivalence.report import Relation
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.pipeline import inspect

__all__ = ["Subject", "window_strides"]


@dataclass(frozen=True)
class Subject:
    """What is claimed of a pair, and so has to be shown on each provider.

    Attributes:
        relation: What the converted model is to the original.
        geometry: What the cells of the outputs mean.
        claims_sizes: Whether the converted model claims to be right at larger sizes: a conversion
            of ours, or one whose geometry is stated. Another may turn out to be equal at the
            native size only.
        expect: What the user demands.
        stored: What the converted model's metadata says that its cells mean.
        recordings: The user's samples.
        original: The original as it was given, where it is of an old opset and had to be lifted.
        denser: The converted model, where its windows lie closer together than those of the
            ordinary conversion, which stands in its place.
    """

    relation: Relation
    geometry: Mapping[str, Geometry]
    claims_sizes: bool
    expect: Expect | None
    stored: Mapping[str, Geometry] = field(default_factory=dict)
    recordings: tuple[Recordings, ...] = ()
    original: ir.Model | None = None
    denser: RefinedGrid | None = None

    def of_windows(
        self, reference: ir.Model, input_shapes: Mapping[str, tuple[int, ...]] | None
    ) -> Subject:
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
