"""Slice, Split and Gather: part of a map, or part of a flattened tensor.

A selection of channels is a map again, and so is a map with cells cut off at its sides; the node
stays. Any other selection (from a flattened tensor, or cells of the native size) is a view like any
other data movement.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.registry import Answer, rule
from onnx_fc2conv.views.rules.movement import move

__all__ = ["gather", "slice_", "split"]

_TO_THE_END = (1 << 31) - 1
"""Ends from here on mean "to the end": exporters write the largest int32 or int64."""


@rule("Gather")
def gather(ctx: Context) -> Answer:
    """Gather-1/11/13: channels by constant indices, each once.

    A channel that is gathered twice is read twice later: a layer adds the two weights up.
    """
    found, indices = _map_of(ctx), ctx.constant_operand(1)
    if found is None or indices is None or indices.sized or len(indices.shape) != 1:
        return move(ctx)
    source, layout = found
    if ctx.int_attribute("axis", 0) % len(layout) != layout[1] or 0 in indices.shape:
        return move(ctx)
    (count,) = indices.shape
    if len({int(index) % source.channels for index in indices.array}) < count:
        return move(ctx)
    return ctx.kept(source, layout=layout, channels=count)


@rule("Split")
def split(ctx: Context) -> Answer:
    """Split-2/11/13/18 of the channels."""
    found = _map_of(ctx)
    if found is None:
        return move(ctx)
    source, layout = found
    if ctx.int_attribute("axis", 0) % len(layout) != layout[1]:
        return move(ctx)
    outputs = len(ctx.node.outputs)
    lengths = ctx.ints_operand(1) or ctx.ints_attribute("split")
    if lengths is None and ctx.operand(1) is not None:
        return move(ctx)
    if lengths is None:  # opset 18: the last one may be smaller
        each = -(-source.channels // outputs)
        lengths = (*[each] * (outputs - 1), source.channels - each * (outputs - 1))
    if len(lengths) != outputs or sum(lengths) != source.channels or min(lengths) < 1:
        ctx.refuse("invalid-node", f"splits {source.channels} channels into {list(lengths)}")
    return tuple(
        ctx.kept(source, name=value.name or "", value=value, layout=layout, channels=length)
        for value, length in zip(ctx.node.outputs, lengths, strict=True)
    )


@rule("Slice")
def slice_(ctx: Context) -> Answer:
    """Slice-1/10/11/13 of channels, or of positions up to one counted from the end.

    A slice that ends at a position of the native size selects cells of that size: a view.
    """
    found = _map_of(ctx)
    cuts = _cuts(ctx) if found is not None else None
    if found is None or cuts is None:
        return move(ctx)
    source, layout = found
    channels, field, extent = source.channels, list(source.field), list(source.extent)
    for cut in cuts:
        axis = layout.index(cut.axis % len(layout)) - 2
        if axis == -2 or cut.step < 1:
            return move(ctx)
        if axis == -1:
            channels = len(range(source.channels)[cut.start : cut.end : cut.step])
            continue
        left = cut.left(extent[axis])
        if left is None:
            return move(ctx)
        begin, end = left
        extent[axis] = -(-(extent[axis] - begin - end) // cut.step)
        field[axis] = field[axis].slide(1, pad=-begin, end_pad=-end).slide(1, cut.step)
    if channels < 1 or min(extent) < 1:
        return move(ctx)
    if tuple(field) != source.field:
        ctx.require_several_cells(source, "cuts positions off")
    changes = {"channels": channels, "extent": tuple(extent), "field": tuple(field)}
    return ctx.kept(source, layout=layout, **changes)


@dataclass(frozen=True)
class _Cut:
    """A Slice along one axis of the tensor: ``[start:end:step]``."""

    axis: int
    start: int
    end: int
    step: int

    def left(self, length: int) -> tuple[int, int] | None:
        """Return the cells cut off at both ends, if their numbers are the same at every length."""
        if self.start < 0 or self.start >= length:
            return None
        if self.end >= _TO_THE_END:
            return self.start, 0
        return (self.start, -self.end) if -length < self.end < 0 else None


def _cuts(ctx: Context) -> list[_Cut] | None:
    """The slices by axis; None if they are not constant."""
    if len(ctx.operands) > 1:  # from opset 10 on: starts, ends, axes, steps
        starts, ends, axes, steps = map(ctx.ints_operand, range(1, 5))
        given = zip((axes, steps), map(ctx.operand, (3, 4)), strict=True)
        if any(numbers is None and fact is not None for numbers, fact in given):
            return None
    else:
        starts, ends, axes = map(ctx.ints_attribute, ("starts", "ends", "axes"))
        steps = None
    if starts is None or ends is None:
        return None
    axes = axes if axes is not None else tuple(range(len(starts)))
    steps = steps if steps is not None else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) == len(set(axes)):
        return None
    return [_Cut(*parts) for parts in zip(axes, starts, ends, steps, strict=True)]


def _map_of(ctx: Context) -> tuple[FeatureMap, tuple[int, ...]] | None:
    """Return the first operand's map and layout; None if it is no map any more."""
    view = ctx.operand(0)
    if not isinstance(view, FeatureView) or view.whole_map is None or view.layout is None:
        return None
    return view.whole_map, view.layout
