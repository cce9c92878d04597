"""Tier *refined grid*: a denser map has the cells of the ordinary conversion among its own.

A model whose windows were brought closer together (`RefineStride`) has trunk and head dilated, so
that its feature maps are no longer the original's. It is proven in two steps: every tier compares
the original with its ordinary conversion; here every f-th cell of the denser map is compared with
that, at the native size and at larger ones. The cells between are what *image windows* compares
with crops, where windows are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx_fc2conv.equivalence.comparing.comparison import Arrays
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.refined import RefinedGrid
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.larger import enlarged, sizes_text
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_refined_grid"]

_TIER = "refined grid"
_KINDS = ("image-like", "normal", "uniform")


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
