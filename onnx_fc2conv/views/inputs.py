"""The image inputs of a model: their native size, and which of their axes are spatial."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import prod

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.graphs.operators import BROADCASTING, SLIDING, UNARY
from onnx_fc2conv.views.maps.view import FeatureMap, LabelSpace

__all__ = [
    "ImageAxes",
    "fixed_images",
    "image_axes",
    "image_map",
    "model_inputs",
    "native_batch",
    "native_shapes",
]

InputShapes = Mapping[str, tuple[int, ...]]
ImageAxes = tuple[int | None, ...]
"""The axes of an input in the order [N, C, *spatial]; None for one that it lacks."""

_KEEPING_AXES = {
    *(*UNARY, *BROADCASTING, "Identity", "Cast", "Dropout", "Pad", "BatchNormalization"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}
"""The axes of the output are those of the first input."""


def model_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Return the inputs that a caller must feed: those without an initializer."""
    return [value for value in graph.inputs if value.name not in graph.initializers]


def image_axes(graph: ir.Graph) -> dict[ir.Value, ImageAxes]:
    """Return the axes of each image input in the order [N, C, *spatial].

    The first sliding operator decides: its channel axis is the channel axis. An input may lack
    the axis of the channels or of the batch, which Unsqueeze then adds; or, if no operator slides
    along all of its axes, a spatial one (sound, for which Keras has a Conv of height 1). An input
    of rank 3 or more that reaches no sliding operator (a plain Flatten→Gemm) counts as
    [N, C, *spatial].
    """
    found: dict[ir.Value, ImageAxes] = {}
    for value in model_inputs(graph):
        if value.shape is None or not _is_numeric(value):
            continue
        plain = tuple(range(len(value.shape)))
        axes = _axes_at_first_slide(value, plain)
        if axes is None and len(plain) >= 3:
            axes = plain
        if axes is not None:
            found[value] = axes
    return found


def image_map(
    value: ir.Value, axes: ImageAxes, shape: tuple[int | None, ...], space: LabelSpace
) -> FeatureMap:
    """Make the map of an image input.

    Args:
        value: The input.
        axes: Its axes that are [N, C, *spatial].
        shape: Its native shape, None for symbolic dims.
        space: Gives labels to it.

    Raises:
        ArgumentError: If a size is symbolic.
    """
    sizes = [1 if axis is None else shape[axis] for axis in axes[1:]]
    if any(size is None for size in sizes):
        example = ",".join("1" if n == axes[0] else "…" for n in range(len(shape)))
        raise ArgumentError(
            f"input {value.name!r} has symbolic dims {value.shape}: give the native size that "
            f"the model was trained for with --input-shape {value.name}:{example}"
        )
    channels, *extent = (size for size in sizes if size is not None)
    layout, lacks = _with_all_axes(axes)
    return space.add(
        FeatureMap(
            name=value.name or "",
            channels=channels,
            extent=tuple(extent),
            dtype=value.dtype or ir.DataType.FLOAT,
            field=(AxisField(),) * len(extent),
            first_label=space.reserve(channels * prod(extent)),
            layout=layout,
            lacks=lacks,
            value=value,
        )
    )


def _with_all_axes(axes: ImageAxes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the layout of an image input with all axes, and the axes to unsqueeze."""
    lacks = tuple(position for position, axis in enumerate(axes) if axis is None)
    places = [position for position in range(len(axes)) if position not in lacks]
    layout = tuple(n if axis is None else places[axis] for n, axis in enumerate(axes))
    return layout, lacks


def fixed_images(graph: ir.Graph) -> dict[ir.Value, ImageAxes]:
    """Return the image inputs of `image_axes` with a fixed size, without tokens [N, T, D]."""
    return {
        value: axes
        for value, axes in image_axes(graph).items()
        if value.shape is not None
        and all(isinstance(value.shape[axis], int) for axis in axes[1:] if axis is not None)
        and (
            len(axes) > 3 or _axes_at_first_slide(value, tuple(range(len(value.shape)))) is not None
        )
    }


def _is_numeric(value: ir.Value) -> bool:
    return value.dtype is not None and (value.dtype.is_floating_point() or value.dtype.is_integer())


def _axes_at_first_slide(start: ir.Value, axes: ImageAxes) -> ImageAxes | None:
    """Axes of ``start`` as the first sliding operator downstream sees them.

    None if there is no such operator. An operator that slides along an axis which the input lacks
    counts if no other is found.
    """
    queue, seen = [(start, axes)], {start}
    lacking: ImageAxes | None = None
    for value, seen_as in queue:
        for node in value.consumers():
            if node.op_type in SLIDING:
                spatial = seen_as[2:]
                if spatial and None not in spatial:
                    return seen_as
                if lacking is None and any(axis is not None for axis in spatial):
                    lacking = seen_as
                continue
            following = _axes_after(node, seen_as, start)
            output = node.outputs[0]
            if following is not None and output not in seen:
                seen.add(output)
                queue.append((output, following))
    return lacking


def _axes_after(node: ir.Node, axes: ImageAxes, image: ir.Value) -> ImageAxes | None:
    """Return the axes after a node; None if they cannot be followed through it."""
    match node.op_type:
        case "Transpose":
            perm = node.attributes.get_ints("perm", None) or range(len(axes) - 1, -1, -1)
            fits = sorted(perm) == list(range(len(axes)))
            return tuple(axes[axis] for axis in perm) if fits else None
        case "Unsqueeze":
            given = _integers(node, "axes")
            rank = len(axes) + len(given or ())
            if given is None or len({axis % rank for axis in given}) < len(given):
                return None
            return _with_axes(axes, {axis % rank for axis in given}, rank)
        case "Reshape":
            return _axes_after_reshape(node, axes, image)
        case _:
            return axes if node.op_type in _KEEPING_AXES else None


def _axes_after_reshape(node: ir.Node, axes: ImageAxes, image: ir.Value) -> ImageAxes | None:
    """Return the axes after a Reshape that only adds axes of length 1, as an Unsqueeze does."""
    target = _integers(node, None)
    if target is None or image.shape is None or len(target) <= len(axes):
        return None
    own = [1 if axis is None else image.shape[axis] for axis in axes]
    ones = [position for position, length in enumerate(target) if length == 1]
    added = len(target) - len(axes)
    for places in reversed(list(combinations(ones, added))):
        rest = [length for position, length in enumerate(target) if position not in places]
        if all(a == b or a < 1 or not isinstance(b, int) for a, b in zip(rest, own, strict=True)):
            return _with_axes(axes, set(places), len(target))
    return None


def _with_axes(axes: ImageAxes, added: set[int], rank: int) -> ImageAxes:
    rest = iter(axes)
    return tuple(None if position in added else next(rest) for position in range(rank))


def _integers(node: ir.Node, attribute: str | None) -> list[int] | None:
    """Return the second input, an attribute in earlier opsets; None if it is not constant."""
    stored = None if attribute is None else node.attributes.get_ints(attribute, None)
    if stored is not None:
        return list(stored)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = None if given is None else ir.convenience.get_const_tensor(given)
    return None if tensor is None else [int(n) for n in tensor.numpy().reshape(-1)]


def native_shapes(graph: ir.Graph, given: InputShapes) -> dict[str, tuple[int | None, ...]]:
    """The native shape of each input; None for a dim that neither the model nor ``given`` fixes.

    Raises:
        ArgumentError: If ``given`` names no input, or contradicts the model.
    """
    inputs = {value.name or "": value for value in model_inputs(graph)}
    for name in given:
        if name not in inputs:
            raise ArgumentError(
                f"--input-shape names {name!r}, but the model's inputs are: "
                f"{', '.join(inputs) or '(none)'}"
            )
    shapes: dict[str, tuple[int | None, ...]] = {}
    for name, value in inputs.items():
        declared = None
        if value.shape is not None:
            declared = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        wanted = given.get(name)
        if wanted is None:
            if declared is not None:
                shapes[name] = declared
            continue
        fits = declared is None or (
            len(declared) == len(wanted)
            and all(d is None or d == w for d, w in zip(declared, wanted, strict=True))
        )
        if not fits or any(length < 1 for length in wanted):
            raise ArgumentError(
                f"--input-shape {name}:{','.join(map(str, wanted))} does not fit the model, which "
                f"declares {_declared(value)}"
            )
        shapes[name] = wanted
    return shapes


def native_batch(
    images: Mapping[ir.Value, ImageAxes],
    shapes: Mapping[str, tuple[int | None, ...]],
    given: InputShapes,
) -> int:
    """Return the model's own batch size: that of its image inputs, 1 where it is symbolic.

    Raises:
        RefusedError: If two image inputs fix different ones.
    """
    found: dict[int, str] = {}
    for value, (axis, *_) in images.items():
        name = value.name or ""
        if axis is None:
            found.setdefault(1, name)
            continue
        dim = shapes[name][axis]
        symbolic = value.shape is not None and not isinstance(value.shape[axis], int)
        if dim is not None and (not symbolic or name not in given or dim == 1):
            found.setdefault(dim, name)
    if len(found) > 1:
        listed = ", ".join(f"{name} has {batch}" for batch, name in found.items())
        reason = f"the inputs taken for images have different batch sizes: {listed}"
        raise RefusedError([Refusal("batch-sizes", "model", reason)])
    return next(iter(found), 1)


def _declared(value: ir.Value) -> str:
    if value.shape is None:
        return "no shape"
    return "[" + ", ".join(str(dim) for dim in value.shape) + "]"
