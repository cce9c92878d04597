"""Data movement: a new index, no node emitted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.growth import check_growth
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray, batch_axis, evaluate
from onnx_fc2conv.views.maps.side_inputs import constant_map, with_side_inputs
from onnx_fc2conv.views.maps.view import FeatureView, Labels, Mixed
from onnx_fc2conv.views.registry import Answer, rule

__all__ = ["concatenate", "move", "pad_amounts", "pad_features"]


@rule(
    "Flatten",
    "Reshape",
    "Squeeze",
    "GatherElements",
    "GatherND",
    "Expand",
    "Tile",
    "SpaceToDepth",
)
def move(ctx: Context) -> tuple[FeatureView, ...]:
    """Run the operator on labels: its output is a view of the same maps."""
    if ctx.view(0) is None:
        ctx.refuse("data-dependent", "selects elements by positions that depend on the image")
    return _moved(ctx, positions=(0,))


@rule("Unsqueeze")
def unsqueeze(ctx: Context) -> FeatureView:
    """Apply `move`; an image input becomes a map once it has all axes."""
    (view,) = move(ctx)
    source = view.only_map
    if source is None or not source.lacks or len(view.shape) != len(source.layout):
        return view
    labels = source.labels(ctx.batches.native).transpose(source.layout)
    for layout in permutations(range(len(view.shape))):
        if np.array_equal(view.labels.native.transpose(layout), labels):
            return FeatureView(
                ctx.space, ctx.batches, lambda: view.labels, layout=layout, whole_map=source
            )
    return view


@rule("Transpose")
def transpose(ctx: Context) -> Answer:
    """Apply `move`; a map whose axes are permuted stays a map, in another layout."""
    view = ctx.first_view()
    if view.layout is None:
        return move(ctx)
    rank = len(view.layout)
    perm = ctx.ints_attribute("perm") or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        ctx.refuse("invalid-node", f"perm {list(perm)} does not fit a tensor of rank {rank}")

    layout = tuple(perm.index(axis) for axis in view.layout)
    return view.moved(lambda labels: labels.transpose(perm), layout)


@rule("Identity")
def identity(ctx: Context) -> FeatureView:
    """The same view."""
    return ctx.first_view()


@rule("Dropout")
def dropout(ctx: Context) -> FeatureView:
    """The same view; at inference Dropout does nothing (Dropout-7 and later).

    Raises:
        NodeRefused: If ``training_mode`` is true, or the mask is used.
    """
    view = ctx.first_view()
    mode = ctx.operand(2)
    if mode is not None and not (isinstance(mode, Constant) and not mode.array.any()):
        ctx.refuse("training-mode", "is in training mode: export the model for inference")
    if any(output.uses() or output.is_graph_output() for output in ctx.node.outputs[1:]):
        ctx.refuse("dropout-mask", "its mask output is used, which only training needs")
    return view


def concatenate(ctx: Context) -> tuple[FeatureView, ...]:
    """Concat as data movement, of features with others and with tensors beside the image."""
    if any(isinstance(fact, FeatureView) and fact.layout is not None for fact in ctx.operands):
        if not all(isinstance(fact, FeatureView) for fact in ctx.operands):
            ctx.refuse(
                "constant-features", "joins a map with a tensor that is not made from the image"
            )
        return _moved(ctx, positions=tuple(range(len(ctx.operands))))
    ready = with_side_inputs(ctx, constants=True)
    return _moved(ready, positions=tuple(range(len(ctx.operands))))


def pad_amounts(ctx: Context, rank: int) -> list[tuple[int, int]]:
    """The elements that a Pad puts before and after each axis; a negative number crops.

    Raises:
        NodeRefused: If they are not constant.
    """
    pads = ctx.ints_operand(1) or ctx.ints_attribute("pads")
    axes = range(rank) if ctx.operand(3) is None else ctx.ints_operand(3)
    if pads is None or axes is None:
        ctx.refuse("data-dependent", "pads by amounts that are not constant for all axes")
    if len(pads) != 2 * len(axes):
        ctx.refuse("invalid-node", f"pads {list(pads)} are not for {len(axes)} axes")
    amounts = [(0, 0)] * rank
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        amounts[axis % rank] = (before, after)
    return amounts


def pad_features(ctx: Context, view: FeatureView) -> FeatureView:
    """Pad-2/11/13/18/19/21 of features: by a constant, or by features themselves."""
    constant = ctx.operand(2)
    if not isinstance(constant, Constant | None):
        ctx.refuse("data-dependent", "pads with values that are not constant")
    amounts = pad_amounts(ctx, len(view.shape))
    if min(map(min, amounts), default=0) < 0:
        ctx.refuse("invalid-node", f"pads {amounts} do not fit {list(view.shape)}")
    batch_axis = view.batch_axis
    if batch_axis is not None and any(amounts.pop(batch_axis)):
        ctx.refuse("batch-mixing", f"pads axis {batch_axis}, which holds the samples")
    mode = ctx.node.attributes.get_string("mode", "constant")
    if mode == "constant":
        value = ctx.node.attributes.get_float("value", 0.0)
        if constant is not None:
            value = float(constant.array.reshape(-1)[0])
        filler = constant_map(ctx, np.array([value], view.maps[0].dtype.numpy()))
        index = np.pad(view.index, amounts, constant_values=filler.first_label)
    elif mode == "edge":
        index = np.pad(view.index, amounts, mode="edge")
    elif mode == "reflect":
        index = np.pad(view.index, amounts, mode="reflect")
    else:
        ctx.refuse("invalid-node", f"has the mode {mode!r}")
    return view.with_index(index, batch_axis)


def _moved(ctx: Context, positions: tuple[int, ...]) -> tuple[FeatureView, ...]:
    """Return the outputs as views, where the operands at ``positions`` carry labels."""
    operands: list[Callable[[bool], AnyArray | None]] = []
    for position, operand in enumerate(ctx.operands):
        if isinstance(operand, FeatureView) and position in positions:
            operands.append(_labels_of(operand))
        elif isinstance(operand, Constant):
            operands.append(_value_of(operand))
        elif operand is None:
            operands.append(lambda _: None)
        else:
            ctx.refuse("data-dependent", "moves elements to positions that depend on another input")

    try:
        arrays = [at(True) for at in operands]
        check_growth(ctx.node, arrays)
        native = evaluate(ctx.node, arrays, ctx.opset)
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        ctx.refuse("invalid-node", f"does not fit its input: {_one_line(error)}")
    try:
        other = evaluate(ctx.node, [at(False) for at in operands], ctx.opset)
    except Exception:
        other = None

    views = tuple(
        _separated(ctx, Labels(array, None if other is None else other[position]))
        for position, array in enumerate(native)
    )
    if None in views:
        ctx.refuse(
            "batch-mixing",
            f"mixes the {ctx.batches.native} samples of a batch: no axis of its output is theirs",
        )
    return tuple(view for view in views if view is not None)


def _labels_of(view: FeatureView) -> Callable[[bool], AnyArray | None]:
    def at(native: bool) -> AnyArray | None:
        if native:
            return view.labels.native
        if view.labels.other is None:
            raise Mixed
        return view.labels.other

    return at


def _value_of(constant: Constant) -> Callable[[bool], AnyArray | None]:
    batches = constant.batches
    return lambda native: constant.at(batches.native if native else batches.other)


def _separated(ctx: Context, labels: Labels) -> FeatureView | None:
    """Return the view with these labels; None if it mixes the samples of the native batch.

    At another batch size only, mixing means that the model works at its native batch size alone.
    """
    batches, other = ctx.batches, labels.other
    if other is not None and batch_axis(other, batches.other) is None:
        other = None
    if other is None and batches.native > 1 and batch_axis(labels.native, batches.native) is None:
        return None
    return FeatureView(ctx.space, batches, lambda: Labels(labels.native, other))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
