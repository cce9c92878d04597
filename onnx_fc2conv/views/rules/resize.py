"""Resize and Upsample by constant factors, and DepthToSpace: maps on another grid.

A factor f makes f cells of each, so that neighboring cells lie stride/f pixels apart; but shifting
the image by one of these steps does not shift the map. Only every f-th cell has a crop to equal
(`AxisField.spread`), until a later stride picks just those. A factor 1/f is a window of f cells
with stride f.

Where the operator takes neighboring cells into account (linear, cubic, or nearest with another
rounding), it repeats the cells at its border: that is a kind of padding.
"""

from __future__ import annotations

from fractions import Fraction

from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.grids import subdivided
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.registry import Answer, rule
from onnx_fc2conv.views.rules.movement import move

__all__ = ["depth_to_space", "resize"]

_NEAREST_IN_PLACE = {
    "asymmetric": {"floor"},
    "half_pixel": {"round_prefer_floor", "round_prefer_ceil"},
    "half_pixel_symmetric": {"round_prefer_floor", "round_prefer_ceil"},
    "pytorch_half_pixel": {"round_prefer_floor", "round_prefer_ceil"},
    "tf_half_pixel_for_nn": {"floor"},
}
"""By coordinate mode, the roundings with which the f cells copy the cell that they lie in."""


@rule("Resize", "Upsample")
def resize(ctx: Context) -> FeatureView:
    """Resize-10/11/13/18/19, Upsample-7/9, by constant factors f or 1/f of the spatial axes."""
    view = ctx.operand(0)
    if not isinstance(view, FeatureView) or view.whole_map is None or view.layout is None:
        ctx.refuse("reshaped-map", "resizes a reshaped feature map")
    source, layout = view.whole_map, view.layout
    scales = _scales(ctx, len(layout))
    if scales[layout[0]] != 1 or scales[layout[1]] != 1:
        ctx.refuse("no-rule", f"resizes the batch or the channels, by {scales}")
    factors = [scales[axis] for axis in layout[2:]]
    if all(factor == 1 for factor in factors):
        return ctx.kept(source, layout=layout)
    mode = ctx.node.attributes.get_string("mode", "nearest")
    coordinates = "asymmetric"
    if ctx.node.op_type == "Resize" and ctx.opset >= 11:
        coordinates = ctx.node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if coordinates not in _NEAREST_IN_PLACE:
        ctx.refuse(
            "misaligned",
            f"has coordinates by the mode {coordinates}: its grid depends on the size of the image",
        )
    rounding = ctx.node.attributes.get_string("nearest_mode", "round_prefer_floor")
    beyond = _beyond(ctx, factors, mode, coordinates, rounding)
    moved = [
        _axis(ctx, source, axis, (factor, coordinates, beyond))
        for axis, factor in enumerate(factors)
    ]
    fields, extent = zip(*moved, strict=True)
    return ctx.kept(
        source,
        layout=layout,
        field=fields,
        extent=extent,
        pads=describe(ctx.node) if beyond else None,
        subdivides=describe(ctx.node) if max(factors) > 1 else None,
    )


def _scales(ctx: Context, rank: int) -> list[Fraction]:
    """The factor of each axis of the tensor."""
    sizes = ctx.operand(3)
    if sizes is not None and ctx.opset >= 11:
        target = sizes.array.tolist() if isinstance(sizes, Constant) else "computed sizes"
        ctx.refuse(
            "baked-size", f"resizes to {target}, not by a factor; export it with scale_factor"
        )
    if ctx.node.op_type == "Upsample" and ctx.opset < 9:
        floats = ctx.node.attributes.get_floats("scales", None)
        given = None if floats is None else list(floats)
    else:
        scales = ctx.operand(1 if ctx.opset < 11 or ctx.node.op_type == "Upsample" else 2)
        if not isinstance(scales, Constant) or scales.sized:
            ctx.refuse("data-dependent", "resizes by factors that are not constant")
        given = [float(scale) for scale in scales.array.reshape(-1)]
    axes = ctx.ints_attribute("axes") or tuple(range(rank))
    if given is None or len(given) != len(axes):
        ctx.refuse("invalid-node", f"has scales {given} for {len(axes)} axes")
    found = [Fraction(1)] * rank
    for axis, scale in zip(axes, given, strict=True):
        found[axis % rank] = Fraction(scale)
    return found


def _axis(
    ctx: Context, source: FeatureMap, axis: int, how: tuple[Fraction, str, int]
) -> tuple[AxisField, int]:
    """Return field and extent along one axis, by a factor and its reach (`_beyond`)."""
    field, length = source.field[axis], source.extent[axis]
    factor, coordinates, beyond = how
    if factor == 1:
        return field, length
    field = field.slide(1 + 2 * beyond, pad=beyond, end_pad=beyond)
    ctx.require_several_cells(source, "resizes")
    if factor.denominator == 1 and factor > 1:
        return subdivided(ctx, field, length, int(factor))
    if factor.numerator != 1 or coordinates == "half_pixel_symmetric":
        ctx.refuse(
            "misaligned",
            f"resizes by {float(factor):g}: its cells would lie between the cells of its input in "
            "ways that change from cell to cell; only factors f and 1/f keep a grid",
        )
    window = factor.denominator
    if length // window < 1 or (coordinates == "pytorch_half_pixel" and length // window == 1):
        ctx.refuse("shape-mismatch", f"leaves one cell or none of {length}")
    return field.slide(window, window), length // window


def _beyond(
    ctx: Context, factors: list[Fraction], mode: str, coordinates: str, rounding: str
) -> int:
    """Return how many cells the operator reads at most on either side of its own cell."""
    reach = 2 if mode == "cubic" else 1
    if ctx.int_attribute("antialias", 0):
        return reach * max(factor.denominator for factor in factors)
    if mode == "cubic":
        return reach
    if max(factors) <= 1:
        return 0
    if ctx.node.op_type == "Upsample" or ctx.opset < 11:
        return 0 if mode == "nearest" else reach
    in_place = mode == "nearest" and rounding in _NEAREST_IN_PLACE[coordinates]
    return 0 if in_place else reach


@rule("DepthToSpace")
def depth_to_space(ctx: Context) -> Answer:
    """DepthToSpace-1/11/13: b·b channels become a block of cells (Shi et al. 2016)."""
    view = ctx.operand(0)
    if not isinstance(view, FeatureView) or view.whole_map is None or view.layout is None:
        return move(ctx)
    source, block = view.whole_map, ctx.int_attribute("blocksize", 1)
    if view.layout != (0, 1, 2, 3):
        ctx.refuse("layout", "takes axis 1 for the channels, which it is not here")
    if block < 1 or source.channels % block**2:
        ctx.refuse("invalid-node", f"takes blocks of {block} from {source.channels} channels")
    if source.one_per_window:
        return move(ctx)
    moved = [
        subdivided(ctx, field, length, block)
        for field, length in zip(source.field, source.extent, strict=True)
    ]
    fields, extent = zip(*moved, strict=True)
    return ctx.kept(
        source,
        channels=source.channels // block**2,
        field=fields,
        extent=extent,
        subdivides=describe(ctx.node) if block > 1 else None,
    )
