"""The image inputs of a model: their native size, and which of their axes are spatial."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError

__all__ = ["fixed_images", "image_layouts", "model_inputs", "native_batch", "native_shapes"]

InputShapes = Mapping[str, tuple[int, ...]]

_SLIDING = {
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"),
    *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearConv", "ConvInteger"),
}
_FOLLOWED = {
    *("Identity", "Cast", "Dropout", "Add", "Sub", "Mul", "Div", "Pad", "Relu", "Clip"),
    *("BatchNormalization", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "QuantizeLinear"),
    *("DequantizeLinear", "DynamicQuantizeLinear"),
}


def model_inputs(graph: ir.Graph) -> list[ir.Value]:
    """The inputs that a caller must feed: those that no initializer backs."""
    return [value for value in graph.inputs if value.name not in graph.initializers]


def image_layouts(graph: ir.Graph) -> dict[ir.Value, tuple[int, ...]]:
    """For each input of rank 3 or more, the axes that are [N, C, *spatial], in that order.

    The first sliding operator tells: what it takes for channels are the channels. An input that
    reaches none (a plain Flatten→Gemm) is taken to be [N, C, *spatial] already.
    """
    layouts: dict[ir.Value, tuple[int, ...]] = {}
    for value in model_inputs(graph):
        if value.shape is None or len(value.shape) < 3 or not _is_numeric(value):
            continue
        plain = tuple(range(len(value.shape)))
        layouts[value] = _axes_at_first_slide(value, plain) or plain
    return layouts


def fixed_images(graph: ir.Graph) -> dict[ir.Value, tuple[int, ...]]:
    """Those of `image_layouts` whose size is fixed, tokens [N, T, D] not among them."""
    return {
        value: layout
        for value, layout in image_layouts(graph).items()
        if value.shape is not None
        and all(isinstance(value.shape[axis], int) for axis in layout[1:])
        and (len(layout) > 3 or _axes_at_first_slide(value, layout) is not None)
    }


def _is_numeric(value: ir.Value) -> bool:
    return value.dtype is not None and (value.dtype.is_floating_point() or value.dtype.is_integer())


def _axes_at_first_slide(start: ir.Value, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Axes of ``start`` as the first sliding operator downstream sees them."""
    queue, seen = [(start, axes)], {start}
    for value, seen_as in queue:
        for node in value.consumers():
            following = seen_as
            if node.op_type in _SLIDING:
                return seen_as
            if node.op_type == "Transpose":
                perm = node.attributes.get_ints("perm", None) or range(len(seen_as) - 1, -1, -1)
                if sorted(perm) != list(range(len(seen_as))):
                    continue
                following = tuple(seen_as[axis] for axis in perm)
            elif node.op_type not in _FOLLOWED:
                continue
            output = node.outputs[0]
            if output not in seen:
                seen.add(output)
                queue.append((output, following))
    return None


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
    layouts: Mapping[ir.Value, tuple[int, ...]],
    shapes: Mapping[str, tuple[int | None, ...]],
    given: InputShapes,
) -> int:
    """The model's own batch size: what its image inputs fix, 1 where it is symbolic.

    Raises:
        RefusedError: If two image inputs fix different ones.
    """
    found: dict[int, str] = {}
    for value, layout in layouts.items():
        name = value.name or ""
        dim = shapes[name][layout[0]]
        symbolic = value.shape is not None and not isinstance(value.shape[layout[0]], int)
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
