"""Tier *refined grid*: a denser map has the cells of the ordinary conversion among its own.

A model whose windows were brought closer together (`RefineStride`) has trunk and head dilated, so
that its feature maps are no longer the original's. It is proven in two steps: every tier compares
the original with its ordinary conversion; here every f-th cell of the denser map is compared with
that, at the native size and at larger ones. The cells between are what *image windows* compares
with crops, where windows are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.equivalence.comparison import Arrays
from onnx_fc2conv.equivalence.larger import enlarged, sizes_text
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.report import TierResult
from onnx_fc2conv.equivalence.runtime import RunError, Session
from onnx_fc2conv.equivalence.samples import sample
from onnx_fc2conv.equivalence.structure import with_outputs
from onnx_fc2conv.errors import RefusedError
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.pipeline import Conversion, convert, inspect
from onnx_fc2conv.views import Pool
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["RefinedGrid", "check_refined_grid", "refined_grid"]

_TIER = "refined grid"
_KINDS = ("image-like", "normal", "uniform")


@dataclass(frozen=True, eq=False)
class RefinedGrid:
    """A model whose windows lie closer together than those of the ordinary conversion.

    Attributes:
        model: The model.
        geometry: What its cells claim to mean.
        unrefined: The ordinary conversion of the original.
        unrefined_geometry: What the cells of that mean.
        axes: The spatial axes of each output.
    """

    model: ir.Model
    geometry: Mapping[str, Geometry]
    unrefined: ir.Model
    unrefined_geometry: Mapping[str, Geometry]
    axes: Mapping[str, tuple[int, ...]]

    def factors(self, output: str) -> tuple[int, ...]:
        """How many cells there are for each of the ordinary conversion, per spatial axis."""
        one, two = self.unrefined_geometry[output].stride, self.geometry[output].stride
        return tuple(a // b if b else 1 for a, b in zip(one, two, strict=True))

    def every_fth(self, output: str, dense: AnyArray) -> AnyArray:
        """The cells of the ordinary conversion, of an output or of its logits."""
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
    """The model, if it claims windows that lie closer together than the original's layers do."""
    if not claimed:
        return None
    own = inspect(reference, input_shapes=input_shapes).geometry
    pool: Pool = "keep"
    # A model that pools the whole image says nothing of windows, or that there is one.
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


def check_refined_grid(
    pair: Pair, grid: RefinedGrid, strides: Mapping[str, Sequence[int]]
) -> list[TierResult]:
    """Compare every f-th cell of every denser output with the ordinary conversion.

    Args:
        pair: The original and its ordinary conversion.
        grid: The denser model.
        strides: By input, the distance in pixels between neighboring windows of the ordinary
            conversion, per growing axis.
    """
    results = [_check_weights(grid)]
    for value in pair.converted.graph.outputs:
        output = value.name or ""
        if output in grid.geometry and output in grid.unrefined_geometry:
            results += _check_output(pair, grid, output, strides)
    return results


def _check_output(
    pair: Pair, grid: RefinedGrid, output: str, strides: Mapping[str, Sequence[int]]
) -> list[TierResult]:
    names = {output: output}
    if output in pair.logits:
        names[pair.logits[output][0]] = pair.logits[output][1]
    own = list(names.values())
    arrays: dict[str, list[Arrays]] = {name: [] for name in names}
    comparisons = {name: pair.comparison(name) for name in names}
    try:
        coarse = Session(with_outputs(pair.converted, own), pair.provider)
        fine = Session(with_outputs(grid.model, own), pair.provider)
        for label, feeds in _images(pair, strides):
            one, two = coarse.run(feeds, own), fine.run(feeds, own)
            for name, tensor in names.items():
                picked = grid.every_fth(output, two[tensor])
                arrays[name].append((f"{label} cell", one[tensor], picked))
        pair.compare(comparisons, arrays)
    except (RunError, ValueError, KeyError) as error:
        return [TierResult(_TIER, output, "failed", str(error))]
    factors = "×".join(map(str, grid.factors(output)))
    what = f"one in {factors} cells at the native size and {sizes_text(pair)}, as without --stride"
    return [as_result(_TIER, pair.subject(name), c, what) for name, c in comparisons.items()]


def _images(
    pair: Pair, strides: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, Mapping[str, AnyArray]]]:
    """Images at the native size and at larger ones."""
    yield "native", sample(pair.inputs, pair.batched(1), "uniform", pair.rng(8))
    for image in enlarged(pair, strides, _KINDS):
        yield str(image), image.feeds


def _check_weights(grid: RefinedGrid) -> TierResult:
    """Compare the bytes of all weights that both models have by the same name."""
    ours, theirs = grid.model.graph.initializers, grid.unrefined.graph.initializers
    common = [name for name in theirs if name in ours and theirs[name].const_value is not None]
    for name in common:
        one, two = theirs[name].const_value, ours[name].const_value
        if one is None or two is None or one.tobytes() != two.tobytes():
            return TierResult(_TIER, name, "failed", "its bytes are not those without --stride")
    detail = "the same bytes as without --stride"
    return TierResult(_TIER, f"{len(common)} weights", "passed", detail)
