"""Comparing cells with windows of the image, for the outputs whose geometry has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnx_fc2conv.equivalence.claim import window_strides
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.refined import RefinedGrid
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.image_windows import check_image_windows
from onnx_fc2conv.geometry import Geometry

__all__ = ["check_claimed_windows", "check_denser_windows", "unverified", "without_windows"]


def check_claimed_windows(
    pair: Pair, geometry: Mapping[str, Geometry], strides: Mapping[str, Sequence[int]]
) -> list[TierResult]:
    """Compare the image windows of every output with a known geometry."""
    if not any(pair.growing.values()):
        return []
    results: list[TierResult] = []
    for value in pair.reference.graph.outputs:
        output = value.name or ""
        meaning = geometry.get(output)
        if meaning is None:
            why = "where its cells lie in the image is not known"
            results.append(TierResult("image windows", output, "skipped", why))
        elif why := without_windows(pair, output, meaning):
            results.append(TierResult("image windows", output, "skipped", why))
        elif false := _false_claim(pair, meaning):
            results.append(TierResult("image windows", output, "failed", false))
        else:
            own = {**strides, meaning.input: meaning.stride}
            asserted, extent = meaning.windows_exact, meaning.cells
            results.extend(check_image_windows(pair, output, own, asserted=asserted, extent=extent))
    return results


def check_denser_windows(pair: Pair, grid: RefinedGrid) -> list[TierResult]:
    """Compare the image windows of the refined outputs whose cells must equal crops.

    Args:
        pair: The original and the denser model.
        grid: The denser model and its geometry.
    """
    results: list[TierResult] = []
    for output, meaning in grid.geometry.items():
        if not meaning.windows_exact or output not in grid.unrefined_geometry:
            continue
        strides = {**window_strides(pair, grid.geometry), meaning.input: meaning.stride}
        reach = grid.unrefined_geometry[output].stride
        results += check_image_windows(pair, output, strides, asserted=True, reach=reach)
    return [replace(result, tier="refined image windows") for result in results]


def without_windows(pair: Pair, output: str, meaning: Geometry) -> str:
    """Return why the cells of an output are no windows; empty if they are."""
    value = next(v for v in pair.reference.graph.outputs if v.name == output)
    if _is_feature_map(value) and pair.shared.get(output) == output:
        return "a map at the native size already, which both models compute alike: no windows"
    if 0 in meaning.stride:
        return f"one cell for an image of any size: {meaning.why}"
    return ""


def _false_claim(pair: Pair, meaning: Geometry) -> str:
    """Return why the claimed windows cannot be right; empty if they may be.

    Crops have the native size, and the crop of cell 0 starts in the corner.
    """
    axes = pair.growing.get(meaning.input)
    if axes is None:
        return f"claims windows of {meaning.input!r}, which is no input"
    native = tuple(pair.native[meaning.input][axis] for axis in axes)
    if axes and meaning.window != native:
        size = "×".join(map(str, native))
        return f"claims windows of {meaning.window_text}, the native size is {size}"
    if any(meaning.offset):
        return (
            f"claims that the window of cell 0 starts at {list(meaning.offset)}, not in the corner"
        )
    return ""


def _is_feature_map(value: ir.Value) -> bool:
    """Whether a tensor has several positions at the native size."""
    return value.shape is not None and sum(dim != 1 for dim in list(value.shape)[1:]) > 1


def unverified(pair: Pair, results: Sequence[TierResult]) -> list[TierResult]:
    """Return a failure if the converted model takes other sizes but was compared at none."""
    tiers = ("feature windows", "image windows")
    if not any(pair.growing.values()):
        return []
    if any(r.tier in tiers and r.status in ("passed", "failed") for r in results):
        return []
    why = "the converted model takes any size, but no output could be compared at a larger one"
    return [TierResult("feature windows", "all outputs", "failed", why)]
