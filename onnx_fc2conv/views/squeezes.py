"""Squeezes: poolings that summarize the whole image for a gate, not for the head."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_fc2conv.views.maps.view import FeatureMap

__all__ = ["squeezes"]


def squeezes(maps: Iterable[FeatureMap]) -> frozenset[ir.Node]:
    """Return the global poolings whose result is combined with a larger map again.

    (Hu et al.: Squeeze-and-Excitation Networks, 2018.) Such a pooling cannot become a pooling of
    windows: cells of the larger map belong to many windows.

    Args:
        maps: All maps of a model in which every global pooling sees the whole image.
    """
    gates = [gate for made in maps for gate in made.sources if _is_spread(gate, made)]
    found: set[ir.Node] = set()
    seen = set(gates)
    for gate in gates:
        if gate.pooled_by is not None:
            found.add(gate.pooled_by)
        for source in gate.sources:
            if source not in seen and any(axis.stride == 0 for axis in source.field):
                seen.add(source)
                gates.append(source)
    return frozenset(found)


def _is_spread(gate: FeatureMap, made: FeatureMap) -> bool:
    """Whether the map's only cell along an axis is combined with several of another map."""
    return len(gate.extent) == len(made.extent) and any(
        field.stride == 0 and one == 1 < several
        for field, one, several in zip(gate.field, gate.extent, made.extent, strict=True)
    )
