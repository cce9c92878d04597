"""From the maps behind an output to what its cells mean in the image."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

from onnx_fc2conv.geometry import OutputGeometry
from onnx_fc2conv.views.plan import ImageInput, OutputMap
from onnx_fc2conv.views.view import FeatureMap

__all__ = ["output_geometry"]


def output_geometry(output: OutputMap, inputs: Sequence[ImageInput]) -> OutputGeometry:
    """Window, stride and verdict of one output.

    Windows are exact if no layer on the way from the image pads or sees the whole image: each
    cell is then computed from the pixels of its window alone, by the operations that the original
    model does on the crop.
    """
    ancestors = _ancestors(output.feature_map)
    image = next(image for image in inputs if image.feature_map in ancestors)
    padded = sorted({m.pads for m in ancestors if m.pads is not None})
    whole = sorted({m.mixes_positions for m in ancestors if m.mixes_positions is not None})
    rank = len(image.feature_map.extent)
    field = output.feature_map.field
    repeats = max((axis.repeats for axis in field), default=1)
    parts = sorted({m.parts for m in ancestors if m.parts is not None})
    step = tuple(
        lcm(*(m.field[axis].stride or 1 for m in ancestors if m.parts and len(m.field) == rank))
        for axis in range(rank)
    )
    divided = sorted({m.subdivides for m in ancestors if m.subdivides is not None})
    return OutputGeometry(
        input=image.value.name or "",
        window=image.feature_map.extent,
        stride=tuple(axis.stride for axis in field) if len(field) == rank else (0,) * rank,
        offset=(0,) * rank,
        windows_exact=not padded and not whole and repeats == 1,
        why=_why(padded, whole, divided if repeats > 1 else (), repeats) + _sizes(parts, step),
        size_step=step if parts else None,
    )


def _ancestors(feature_map: FeatureMap) -> set[FeatureMap]:
    found = {feature_map}
    queue = [feature_map]
    for current in queue:
        for source in current.sources:
            if source not in found:
                found.add(source)
                queue.append(source)
    return found


def _why(padded: Sequence[str], whole: Sequence[str], divided: Sequence[str], repeats: int) -> str:
    if whole:
        return f"{_some(whole)} sees the whole image, so a cell depends on all of it"
    if padded:
        return (
            f"{_some(padded)} pads: at the border of a crop it sees padding, inside a larger "
            "image the neighboring pixels"
        )
    if divided:
        return (
            f"{_some(divided)} makes several cells of each: only one in {repeats} cells of the map "
            "has a crop of the image that it belongs to"
        )
    return "no layer pads or sees the whole image"


def _sizes(parts: Sequence[str], step: Sequence[int]) -> str:
    if not parts:
        return ""
    return (
        f"; it runs at image sizes of the window plus multiples of {'×'.join(map(str, step))} "
        f"pixels (at others {_some(parts)} may be given maps or blocks that do not fit)"
    )


def _some(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0]}{more}"
