"""A converted model with a denser grid of windows than the original's strides give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.errors import RefusedError
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.pipeline import Conversion, convert, inspect
from onnx_fc2conv.views import Pool
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["RefinedGrid", "refined_grid"]


@dataclass(frozen=True, eq=False)
class RefinedGrid:
    """A model with a denser grid of windows than the ordinary conversion.

    Attributes:
        model: The model.
        geometry: Its claimed geometry, by output.
        unrefined: The ordinary conversion of the original.
        unrefined_geometry: Geometry of the ordinary conversion, by output.
        axes: The spatial axes of each output.
    """

    model: ir.Model
    geometry: Mapping[str, Geometry]
    unrefined: ir.Model
    unrefined_geometry: Mapping[str, Geometry]
    axes: Mapping[str, tuple[int, ...]]

    def factors(self, output: str) -> tuple[int, ...]:
        """Return the number of cells per cell of the ordinary conversion, per spatial axis."""
        one, two = self.unrefined_geometry[output].stride, self.geometry[output].stride
        return tuple(a // b if b else 1 for a, b in zip(one, two, strict=True))

    def every_fth(self, output: str, dense: AnyArray) -> AnyArray:
        """Pick the cells of the ordinary conversion from a dense output or its logits."""
        picked = [slice(None)] * dense.ndim
        rank = len(self.axes[output])
        ends = range(dense.ndim - rank, dense.ndim)
        axes = self.axes[output] if max(self.axes[output]) < dense.ndim else ends
        for axis, factor in zip(axes, self.factors(output), strict=True):
            picked[axis] = slice(None, None, factor)
        cells: AnyArray = dense[tuple(picked)]
        return cells


def refined_grid(
    reference: ir.Model,
    converted: ir.Model,
    claimed: Mapping[str, Geometry] | None,
    input_shapes: Mapping[str, tuple[int, ...]],
) -> RefinedGrid | None:
    """Return the model if it claims a denser grid than the original's strides give."""
    if not claimed:
        return None
    own = inspect(reference, input_shapes=input_shapes).geometry
    pool: Pool = "keep"
    # A model that pools the whole image claims no windows, or a single one.
    if any(0 not in claimed[n].stride and (n not in own or 0 in own[n].stride) for n in claimed):
        pool = "window"
        own = inspect(reference, input_shapes=input_shapes, pool=pool).geometry
    if not any(_divides(claimed[n].stride, own[n].stride) for n in own if n in claimed):
        return None
    try:
        ordinary = convert(reference, input_shapes=input_shapes, pool=pool)
    except RefusedError:
        return None
    assert ordinary.model is not None
    return RefinedGrid(converted, claimed, ordinary.model, own, _spatial_axes(ordinary))


def _divides(fine: Sequence[int], coarse: Sequence[int]) -> bool:
    """Whether one stride is a proper divisor of the other."""
    if len(fine) != len(coarse) or tuple(fine) == tuple(coarse):
        return False
    return all(a == b or (a and not b % a) for a, b in zip(fine, coarse, strict=True))


def _spatial_axes(conversion: Conversion) -> dict[str, tuple[int, ...]]:
    """The last axes of an output, or those that are symbolic where channels are last."""
    assert conversion.after is not None
    found: dict[str, tuple[int, ...]] = {}
    for name, meaning in conversion.geometry.items():
        shape, rank = conversion.after.outputs[name], len(meaning.stride)
        symbolic = tuple(a for a, dim in enumerate(shape) if a and not isinstance(dim, int))
        last = tuple(range(len(shape) - rank, len(shape)))
        found[name] = symbolic if len(symbolic) == rank else last
    return found
