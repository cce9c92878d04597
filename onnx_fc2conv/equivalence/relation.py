"""How the converted model relates to the original: found by running it at a larger size.

A conversion may be a drop-in of one fixed size, take any size as the original does, or give a map
of windows. Many tools write a Gemm as Reshape → 1×1 Conv → Reshape: equal at the native size, and
at a larger one it cuts each image into several samples. The relation puts this in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import onnx_ir as ir

from onnx_fc2conv.equivalence.larger_runs import NATIVE, LargerRuns
from onnx_fc2conv.equivalence.reporting.results import Relation, RelationKind
from onnx_fc2conv.equivalence.running.larger import remainders_text
from onnx_fc2conv.equivalence.tracing.seams import Seams
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.passes.apply import ORIGIN
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.inputs import image_axes

__all__ = ["Expect", "is_ours", "relation_of"]

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


def relation_of(larger: LargerRuns, seams: Seams) -> Relation:
    """Find the relation by running the converted model at the native and at a larger size."""
    pair = larger.pair
    if not any(pair.growing.values()):
        return Relation("fixed size", _WORDS["fixed size"] + _if_freed(larger))
    try:
        native = larger.shapes(NATIVE)
    except RunError:  # the native tier says why
        return Relation("map", _WORDS["map"])
    kinds, odd = _behaviors(larger, native)
    if seams.is_free and set(seams.alike) == set(larger.names):
        return Relation("any size", _WORDS["any size"])
    if odd:
        return Relation("native size only", f"{_NATIVE_ONLY} {odd}")
    if "map" not in kinds:
        return Relation("whole image", _WORDS["whole image"])
    rests = remainders_text(pair, larger.strides)
    if rests == "every remainder":
        return Relation("map", _WORDS["map"])
    return Relation("map", f"a map of windows at larger sizes, of which {rests} of the stride ran")


def is_ours(model: ir.Model) -> bool:
    """Whether the model says that this package wrote it: it claims maps, and is held to them."""
    return any(ORIGIN in node.metadata_props for node in model.graph)


def _behaviors(larger: LargerRuns, native: Mapping[str, tuple[int, ...]]) -> tuple[set[str], str]:
    """Whether the outputs are single or maps at a larger size, and how one is neither."""
    pair = larger.pair
    try:
        made, size = larger.shapes(), larger.size_text()
    except RunError as error:
        words = _where_it_fits(larger, native)
        return set(), words or f"does not run ({larger.size_text()}: {error})"
    rank = max(map(len, pair.growing.values()))
    kinds: set[str] = set()
    for value in pair.reference.graph.outputs:
        name = value.name or ""
        if name not in native:
            continue
        before = None if value.shape is None else len(value.shape)
        if made[name] == native[name]:
            kinds.add("one")
        elif _is_map(native[name], made[name], before, rank):
            kinds.add("map")
        else:
            return kinds, _in_words(native[name], made[name], size)
    return kinds, ""


def _where_it_fits(larger: LargerRuns, native: Mapping[str, tuple[int, ...]]) -> str:
    """Describe the output of a failing model at a size where its shapes happen to fit."""
    several = max(map(len, larger.pair.growing.values())) > 1
    for more in range(1, _TRIED + 1):
        cells = (0, more, 0) if several else (more, 0, 0)
        try:
            made = larger.shapes(cells)
        except RunError:
            continue
        for name, shape in made.items():
            if shape[:1] != native[name][:1]:
                return _in_words(native[name], shape, larger.size_text(cells))
    return ""


def _is_map(
    native: Sequence[int], larger: Sequence[int], rank_before: int | None, rank: int
) -> bool:
    """Whether the last axes of an output have grown, where ``rank`` axes of the image grow."""
    if len(native) != len(larger):
        return False
    grown = [n for n, (one, two) in enumerate(zip(native, larger, strict=True)) if one != two]
    new_axes = rank_before is None or len(larger) >= rank_before + rank
    return min(grown) >= max(1, len(larger) - rank) and (new_axes or len(larger) >= 2 + rank)


def _in_words(native: Sequence[int], larger: Sequence[int], size: str) -> str:
    """Describe an output that is not a map."""
    what = f"shape {list(larger)}"
    if larger and larger[0] > native[0] and tuple(larger[1:]) == tuple(native[1:]):
        times, rest = divmod(larger[0], native[0])
        what = f"{larger[0]} samples for {native[0]} images" if rest else f"N·{times} samples"
    return f"returns {what} instead of a map (at {size})"


def _if_freed(larger: LargerRuns) -> str:
    """Describe what a fixed-size model would return, if not a map, with symbolic input dims."""
    pair = larger.pair
    spatial = {
        value.name: [axis for axis in found[2:] if axis is not None]
        for value, found in image_axes(pair.reference.graph).items()
    }
    freed = pair.converted.clone()
    for value in freed.graph.inputs:
        if value.shape is not None and value.name in spatial:
            axes = spatial[value.name]
            dims = [f"d{n}" if n in axes else dim for n, dim in enumerate(value.shape)]
            value.shape = ir.Shape(dims)
    for value in (made for node in freed.graph for made in node.outputs):
        value.shape = None
    free = replace(pair, converted=freed)
    if not any(free.growing.values()):
        return ""
    runs = LargerRuns(free, {})
    try:
        _, odd = _behaviors(runs, runs.shapes(NATIVE))
    except (RunError, InvalidModelError):
        return ""
    return f"; freed, it {odd}" if odd.startswith("returns") else ""
