"""The geometry of an output, from the maps behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm, prod

from onnx_fc2conv.geometry import (
    AxisField,
    CleanCells,
    Geometry,
    ReceptiveField,
    SizeRule,
    TileCells,
    Verdict,
)
from onnx_fc2conv.views.maps.view import FeatureMap
from onnx_fc2conv.views.plan import ImageInput, OutputMap

__all__ = ["output_geometry"]


def output_geometry(output: OutputMap, inputs: Sequence[ImageInput]) -> Geometry:
    """Return window, stride and verdict of one output.

    Windows are exact if no layer on the way from the image lets a cell see padding or the whole
    image: each cell is then computed from the pixels of its window alone, by the operations that
    the original model does on the crop.
    """
    behind = _Behind.of(output.feature_map)
    image = next(image for image in inputs if image.feature_map in behind.maps)
    rank = len(image.feature_map.extent)
    own = [axis for axis in range(rank) if axis not in image.feature_map.lacks_spatial]
    window = tuple(image.feature_map.extent[axis] for axis in own)
    field, cells = output.feature_map.field, output.feature_map.extent
    if len(field) != rank:
        field, cells = (AxisField().pool_globally(1),) * rank, (1,) * rank
    field, cells = tuple(field[axis] for axis in own), tuple(cells[axis] for axis in own)
    rank = len(own)
    verdict: Verdict
    if behind.whole:
        verdict = "whole image"
    elif any(axis.repeats > 1 for axis in field):
        verdict = "misaligned"
    else:
        verdict = "border effect" if any(axis.padded for axis in field) else "windows exact"
    clean = None if behind.whole else _clean_cells(behind.read_by_head, image.feature_map)
    rules = tuple(map(_size_rule, field, window))
    starts, sizes = tuple(axis.start for axis in field), tuple(axis.size for axis in field)
    return Geometry(
        input=image.value.name or "",
        window=window,
        stride=tuple(axis.stride for axis in field),
        offset=(0,) * rank,
        verdict=verdict,
        why=_why(verdict, behind, clean, max((axis.repeats for axis in field), default=1))
        + _where_it_runs(rules, behind.parts),
        receptive_field=None if behind.whole else ReceptiveField(starts, sizes),
        cells=cells,
        remainder=tuple(map(_remainder, field, window, cells)),
        sizes=rules,
        tile_cells=None if behind.whole else _tile_cells(field),
        clean_cells=clean,
        padded_layers=behind.padded,
    )


@dataclass(frozen=True, eq=False)
class _Behind:
    """The maps and layers behind an output.

    Attributes:
        maps: The output's map and all that it is computed from.
        padded: The layers that pad.
        whole: The layers that see the whole image.
        divided: The layers that make several cells of each.
        parts: The layers that fail at some sizes of the image.
        read_by_head: The maps that the first fully connected layers read; the output's own map if
            there is none.
    """

    maps: frozenset[FeatureMap]
    padded: tuple[str, ...]
    whole: tuple[str, ...]
    divided: tuple[str, ...]
    parts: tuple[str, ...]
    read_by_head: frozenset[FeatureMap]

    @classmethod
    def of(cls, output: FeatureMap) -> _Behind:
        found = {output: None}
        queue = [output]
        for current in queue:
            for source in current.sources:
                if source not in found:
                    found[source] = None
                    queue.append(source)
        ordered = sorted(found, key=lambda feature_map: feature_map.first_label)
        read = {s for m in ordered if m.one_per_window for s in m.sources if not s.one_per_window}
        return cls(
            frozenset(ordered),
            tuple(dict.fromkeys(m.pads for m in ordered if m.pads is not None)),
            tuple(dict.fromkeys(m.mixes_positions for m in ordered if m.mixes_positions)),
            tuple(dict.fromkeys(m.subdivides for m in ordered if m.subdivides is not None)),
            tuple(dict.fromkeys(m.parts for m in ordered if m.parts is not None)),
            frozenset(read) or frozenset({output}),
        )


def _clean_cells(maps: frozenset[FeatureMap], image: FeatureMap) -> CleanCells:
    """Count the cells of these maps that see no padding inside a window.

    Padding along an axis that the image lacks is the same in a larger image.
    """
    clean = total = 0
    for feature_map in maps:
        if len(feature_map.field) != len(image.extent):
            continue
        ranges = [
            range(cells) if axis in image.lacks_spatial else field.clean(length)
            for axis, (field, cells, length) in enumerate(
                zip(feature_map.field, feature_map.extent, image.extent, strict=True)
            )
        ]
        clean += prod(len(cells) for cells in ranges)
        total += prod(feature_map.extent)
    return CleanCells(clean, total)


def _tile_cells(field: Sequence[AxisField]) -> TileCells:
    """Return the cells of a tile that see no padding: their values are those of the image."""
    return TileCells(tuple(axis.first_clean for axis in field), tuple(map(_reach, field)))


def _reach(field: AxisField) -> int:
    """Return the image length at which cell 0 is clean; cell i needs i strides more."""
    return max(
        end.shortest(cell + 1) - cell * field.stride
        for end in field.clean_ends
        for cell in range(end.period)
    )


def _remainder(field: AxisField, window: int, cells: int) -> int:
    """Return the pixels of the window beyond the shortest image with as many cells."""
    return window - field.cells.shortest(cells) if field.stride else 0


def _size_rule(field: AxisField, window: int) -> SizeRule:
    """Return the lengths at which combined branches have equally many cells."""
    period = lcm(*(count.period for pair in field.meets for count in pair))
    fitting = {
        grown
        for grown in range(period)
        if all(len({count(window + grown) for count in pair}) == 1 for pair in field.meets)
    }
    for modulo in range(1, period):
        shifted = {(grown + modulo) % period for grown in fitting}
        if period % modulo == 0 and shifted == fitting:
            return SizeRule(modulo, tuple(sorted(g for g in fitting if g < modulo)))
    return SizeRule(period, tuple(sorted(fitting)))


def _why(verdict: Verdict, behind: _Behind, clean: CleanCells | None, repeats: int) -> str:
    """Return one sentence that explains the verdict."""
    if verdict == "whole image":
        layers = _some(behind.whole, "sees", "see")
        return f"{layers} the whole image, so a cell depends on all of it"
    if verdict == "misaligned":
        layers = _some(behind.divided, "makes", "make")
        return (
            f"{layers} several cells of each: only one in {repeats} cells of the map has a crop of "
            "the image that it belongs to"
        )
    if not behind.padded:
        return "no layer pads or sees the whole image"
    layers = _some(behind.padded, "pads", "pad")
    if verdict == "windows exact":
        return f"{layers}, but no cell sees it"
    assert clean is not None
    if clean.clean == clean.total:
        return f"{layers}: a last window that reaches out of the image sees it, no other does"
    return (
        f"{layers}: a crop has padding where a larger image has neighboring pixels; {clean.clean} "
        f"of {clean.total} cells of the feature map inside each window do not see the border"
    )


def _where_it_runs(rules: Sequence[SizeRule], parts: Sequence[str]) -> str:
    """Return the second half of a sentence, if the model does not run at every size."""
    if not parts or all(rule.modulo == 1 for rule in rules):
        return ""
    step = "×".join(str(rule.modulo) for rule in rules)
    layers = _some(parts, "may be", "may be")
    return (
        f"; it runs at image sizes of the window plus multiples of {step} pixels (at others "
        f"{layers} given maps or blocks that do not fit)"
    )


def _some(names: Sequence[str], one: str, several: str) -> str:
    """Return the first of the names, the number of the others, and the verb."""
    if len(names) == 1:
        return f"{names[0]} {one}"
    return f"{names[0]} and {len(names) - 1} more {several}"
