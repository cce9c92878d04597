"""Global poolings by what their result meets: larger maps, or features that slide."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_fc2conv.views.maps.view import FeatureMap

__all__ = ["beside_windows", "squeezes"]


def squeezes(maps: Iterable[FeatureMap]) -> frozenset[ir.Node]:
    """The global poolings whose result is combined with a larger map again: those of a gate.

    (Hu et al.: Squeeze-and-Excitation Networks, 2018.) Such a pooling cannot become a pooling of
    windows: cells of the larger map belong to many windows.

    Args:
        maps: All maps of a model in which every global pooling sees the whole image.
    """
    return _pooled(source for made in maps for source in made.sources if _is_spread(source, made))


def beside_windows(maps: Iterable[FeatureMap]) -> frozenset[ir.Node]:
    """The global poolings whose result is combined with features that slide.

    The flattened map may stand beside its own mean, or several poolings form a pyramid. The output
    is a map of windows then, and such a pooling has to pool each window.

    Args:
        maps: All maps of a model in which every global pooling sees the whole image.
    """
    every = list(maps)
    met = _pooled(
        source
        for made in every
        for source in made.sources
        if any(_slides_beside(source, other) for other in made.sources)
    )
    return met - squeezes(every)


def _pooled(of_image: Iterable[FeatureMap]) -> frozenset[ir.Node]:
    """The global poolings from which these maps of the whole image are computed."""
    queue = list(of_image)
    seen = set(queue)
    for made in queue:
        more = {s for s in made.sources if any(axis.stride == 0 for axis in s.field)} - seen
        seen |= more
        queue += more
    return frozenset(made.pooled_by for made in seen if made.pooled_by is not None)


def _is_spread(gate: FeatureMap, made: FeatureMap) -> bool:
    """Whether the map's only cell along an axis is combined with several of another map."""
    return len(gate.extent) == len(made.extent) and any(
        field.stride == 0 and one == 1 < several
        for field, one, several in zip(gate.field, gate.extent, made.extent, strict=True)
    )


def _slides_beside(pooled: FeatureMap, other: FeatureMap) -> bool:
    """Whether the other map slides along an axis that is pooled."""
    return len(pooled.field) == len(other.field) and any(
        one.stride == 0 < two.stride for one, two in zip(pooled.field, other.field, strict=True)
    )
