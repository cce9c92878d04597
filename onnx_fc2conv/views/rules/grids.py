"""Whether cell i of one map belongs to cell i of another, at every input size."""

from __future__ import annotations

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.geometry import AxisField, Misaligned
from onnx_fc2conv.views.rules.registry import Application
from onnx_fc2conv.views.view import FeatureMap

__all__ = ["joined_field"]


def joined_field(
    app: Application, maps: tuple[FeatureMap, ...], *, broadcasts: bool = True
) -> tuple[AxisField, ...] | Refusal:
    """The receptive field of a layer that combines cell i of each map.

    Where the layer broadcasts, a map with one cell for the whole image may be combined with any
    (squeeze-and-excite).
    """
    field = maps[0].field
    extent = maps[0].extent
    for other in maps[1:]:
        if len(other.extent) != len(extent):
            return app.refuse("misaligned", "combines maps of different rank")
        for one, two, axis, axis_2 in zip(extent, other.extent, field, other.field, strict=True):
            spreads = (one == 1 and axis.stride == 0) or (two == 1 and axis_2.stride == 0)
            if one != two and not spreads:
                return app.refuse(
                    "misaligned",
                    f"combines maps of sizes {list(extent)} and {list(other.extent)}: at larger "
                    "input sizes their cells would not belong together",
                )
        if not broadcasts and any(
            a.stride != b.stride for a, b in zip(field, other.field, strict=True)
        ):
            return app.refuse(
                "misaligned",
                f"joins maps of different grids: {maps[0].name} and {other.name}",
            )
        if any(map(_grow_apart, field, other.field, extent)):
            spans = " and ".join(str([axis.span for axis in f]) for f in (field, other.field))
            return app.refuse(
                "misaligned",
                f"combines maps of which one has more cells than the other at some input sizes: "
                f"a first cell takes {spans} pixels",
            )
        try:
            field = tuple(a.join(b) for a, b in zip(field, other.field, strict=True))
        except Misaligned as error:
            return app.refuse("misaligned", f"combines maps of different grids: {error}")
        extent = tuple(max(pair) for pair in zip(extent, other.extent, strict=True))
    return field


def _grow_apart(one: AxisField, two: AxisField, length: int) -> bool:
    """Whether the numbers of cells, the same natively, differ at other sizes unnoticed.

    Where layers pad or make several cells of each, the number of cells may well differ at sizes
    whose remainder by the stride is not the native one; the converted model then fails there, as
    the original would. But two cells and one would be broadcast.
    """
    differ = one.stride == two.stride != 0 and one.cells != two.cells
    uneven = one.padded or two.padded or one.repeats > 1 or two.repeats > 1
    return differ and (length == 1 or not uneven)
