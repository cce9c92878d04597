"""Grids: whether cell i of one map belongs to cell i of another, and where its parts lie."""

from __future__ import annotations

from onnx_fc2conv.geometry import AxisField, Misaligned
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.view import FeatureMap

__all__ = ["joined_field", "parting", "subdivided"]


def joined_field(
    ctx: Context, maps: tuple[FeatureMap, ...], *, broadcasts: bool = True
) -> tuple[AxisField, ...]:
    """Return the receptive field of a layer that combines cell i of each map.

    Where the layer broadcasts, a map with one cell for the whole image may be combined with any
    (squeeze-and-excite).

    Raises:
        NodeRefused: If the cells do not belong together at every size of the image.
    """
    field = maps[0].field
    extent = maps[0].extent
    for other in maps[1:]:
        if len(other.extent) != len(extent):
            ctx.refuse("misaligned", "combines maps of different rank")
        for one, two, axis, axis_2 in zip(extent, other.extent, field, other.field, strict=True):
            spreads = (one == 1 and axis.stride == 0) or (two == 1 and axis_2.stride == 0)
            if one != two and not spreads:
                ctx.refuse(
                    "misaligned",
                    f"combines maps of sizes {list(extent)} and {list(other.extent)}: at larger "
                    "input sizes their cells would not belong together",
                )
        if not broadcasts and any(
            a.stride != b.stride for a, b in zip(field, other.field, strict=True)
        ):
            ctx.refuse(
                "misaligned",
                f"joins maps of different grids: {maps[0].name} and {other.name}",
            )
        if broadcasts and any(
            one == 1 and _grow_apart(*axes)
            for one, axes in zip(extent, zip(field, other.field, strict=True), strict=True)
        ):
            spans = " and ".join(str([axis.span for axis in f]) for f in (field, other.field))
            ctx.refuse(
                "misaligned",
                "combines single cells of maps of which one has two cells sooner than the other, "
                f"and would be broadcast: a first cell takes {spans} pixels",
            )
        try:
            field = tuple(a.join(b) for a, b in zip(field, other.field, strict=True))
        except Misaligned as error:
            ctx.refuse("misaligned", f"combines maps of different grids: {error}")
        extent = tuple(max(pair) for pair in zip(extent, other.extent, strict=True))
    return field


def parting(ctx: Context, maps: tuple[FeatureMap, ...]) -> str | None:
    """Return the node, if it joins maps whose numbers of cells differ at some image sizes.

    The model, converted or not, does not run there. A map of stride S whose first cell takes r
    pixels has floor((L - r) / S) + 1 cells: two maps that agree at the native size also do so at
    multiples of S from it. (Of n·S where one has n cells for each of an earlier map.)
    """
    apart = any(
        _grow_apart(*axes)
        for other in maps[1:]
        for axes in zip(maps[0].field, other.field, strict=True)
    )
    return describe(ctx.node) if apart else None


def _grow_apart(one: AxisField, two: AxisField) -> bool:
    """Whether numbers of cells that agree at the native size differ at others."""
    return one.stride == two.stride != 0 and one.cells != two.cells


def subdivided(ctx: Context, field: AxisField, length: int, factor: int) -> tuple[AxisField, int]:
    """Return field and extent of a map with ``factor`` cells for each cell.

    Raises:
        NodeRefused: If these would lie at fractions of pixels.
    """
    if factor == 1:
        return field, length
    if field.stride == 0 or field.stride % factor:
        ctx.refuse(
            "misaligned",
            f"makes {factor} cells of each, where cells lie {field.stride} pixels apart: they "
            "would lie at fractions of pixels",
        )
    return field.spread(factor), length * factor
