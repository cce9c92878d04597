"""What is claimed of the two models of a check, by whom, and so has to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.recordings import Recordings
from onnx_fc2conv.equivalence.relation import Expect, is_ours, relation_of
from onnx_fc2conv.equivalence.report import Relation
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.pipeline import inspect

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """What is claimed of a pair, and so has to be shown on each provider.

    Attributes:
        relation: What the converted model is to the original.
        geometry: What the cells of the outputs mean.
        strides: By input, pixels between neighboring windows per growing axis.
        claims_sizes: Whether the converted model claims to be right at larger sizes.
        expect: What the user demands.
        stored: What the converted model's metadata says that its cells mean.
        recordings: The user's samples.
        original: The original as it was given, where it is of an old opset and had to be lifted.
    """

    relation: Relation
    geometry: Mapping[str, Geometry]
    strides: Mapping[str, tuple[int, ...]]
    claims_sizes: bool
    expect: Expect | None
    stored: Mapping[str, Geometry] = field(default_factory=dict)
    recordings: tuple[Recordings, ...] = ()
    original: ir.Model | None = None

    @classmethod
    def of(
        cls,
        pair: Pair,
        stored: Mapping[str, Geometry],
        given: Mapping[str, Geometry] | None = None,
        expect: Expect | None = None,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Subject:
        """Find out what the pair is.

        A conversion of ours, or one whose geometry is stated, is held to what it claims at larger
        sizes. One that claims nothing may turn out to be equal at the native size only.

        Args:
            pair: The models.
            stored: What the converted model's metadata says that its cells mean.
            given: What the caller says instead.
            expect: What the user demands.
            input_shapes: Native shape by input name where the reference's own is symbolic.
        """
        geometry = given
        if geometry is None:
            geometry = stored or inspect(pair.reference, input_shapes=input_shapes).geometry
        claims = given is not None or bool(stored)
        relation = relation_of(pair, _strides(pair, geometry))
        cells = bool(geometry) and all(0 in meaning.stride for meaning in geometry.values())
        if not claims and relation.kind == "map" and cells:
            geometry = inspect(pair.reference, input_shapes=input_shapes, pool="window").geometry
        claims = claims or is_ours(pair.converted)
        return cls(relation, geometry, _strides(pair, geometry), claims, expect, stored)


def _strides(pair: Pair, geometry: Mapping[str, Geometry]) -> dict[str, tuple[int, ...]]:
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
