"""Data movement: a new index, no node emitted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

from onnx_fc2conv.views.growth import check_growth
from onnx_fc2conv.views.known import Known
from onnx_fc2conv.views.labels import AnyArray, batch_axis, evaluate
from onnx_fc2conv.views.plan import Emitted, Outcome, Step, Viewed
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.rules.sides import constant_map, with_sides
from onnx_fc2conv.views.view import FeatureView, Labels, Mixed

__all__ = ["concatenate", "move", "pad_features"]


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
def move(app: Application) -> Outcome:
    """Run the operator on labels: its output is a view of the same maps."""
    if app.view(0) is None:
        app.refuse("data-dependent", "selects elements by positions that depend on the image")
    return _moved(app, positions=(0,))


@rule("Unsqueeze")
def unsqueeze(app: Application) -> Outcome:
    """As `move`; an image input that has got the axes that it lacked is a map."""
    outcome = move(app)
    if not isinstance(outcome, Viewed):
        return outcome
    (view,) = outcome.outputs
    assert isinstance(view, FeatureView)
    source = view.only_map
    if source is None or not source.lacks or len(view.shape) != len(source.layout):
        return outcome
    labels = source.labels(app.batches.native).transpose(source.layout)
    for layout in permutations(range(len(view.shape))):
        if np.array_equal(view.labels.native.transpose(layout), labels):
            whole = FeatureView(
                app.space, app.batches, lambda: view.labels, layout=layout, whole_map=source
            )
            return Viewed((whole,))
    return outcome


@rule("Transpose")
def transpose(app: Application) -> Outcome:
    """As `move`; a map whose axes are permuted still is a map, in another layout."""
    view = app.view(0)
    assert view is not None
    if view.layout is None:
        return move(app)
    rank = len(view.layout)
    perm = app.ints_attribute("perm") or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        app.refuse("invalid-node", f"perm {list(perm)} does not fit a tensor of rank {rank}")

    def labels() -> Labels:
        other = view.labels.other
        return Labels(
            view.labels.native.transpose(perm), None if other is None else other.transpose(perm)
        )

    layout = tuple(perm.index(axis) for axis in view.layout)
    moved = FeatureView(app.space, app.batches, labels, layout=layout, whole_map=view.whole_map)
    return Viewed((moved,))


@rule("Identity")
def identity(app: Application) -> Outcome:
    """The same view."""
    view = app.view(0)
    assert view is not None
    return Viewed((view,))


@rule("Dropout")
def dropout(app: Application) -> Outcome:
    """The same view; at inference Dropout does nothing (Dropout-7 and later).

    Raises:
        NodeRefused: If ``training_mode`` is true, or the mask is used.
    """
    view = app.view(0)
    assert view is not None
    mode = app.operand(2)
    if mode is not None and not (isinstance(mode, Known) and not mode.array.any()):
        app.refuse("training-mode", "is in training mode: export the model for inference")
    if any(output.uses() or output.is_graph_output() for output in app.node.outputs[1:]):
        app.refuse("dropout-mask", "its mask output is used, which only training needs")
    return Viewed((view,))


def concatenate(app: Application) -> Outcome:
    """Concat as data movement, of features with others and with what is not from the image."""
    if any(isinstance(fact, FeatureView) and fact.layout is not None for fact in app.operands):
        if not all(isinstance(fact, FeatureView) for fact in app.operands):
            app.refuse(
                "constant-features", "joins a map with a tensor that is not made from the image"
            )
        return _moved(app, positions=tuple(range(len(app.operands))))
    steps, app = with_sides(app, constants=True)
    outcome = _moved(app, positions=tuple(range(len(app.operands))))
    if not steps or not isinstance(outcome, Viewed):
        return outcome
    (view,) = outcome.outputs
    assert isinstance(view, FeatureView)
    return Emitted(steps, view)


def pad_features(app: Application) -> Outcome:
    """Pad-2/11/13/18/19/21 of features: by a constant, or by features themselves."""
    view, known, axes = app.view(0), app.known(1), app.known(3)
    pads = app.ints_attribute("pads")
    if known is not None and not known.sized:
        pads = tuple(int(amount) for amount in known.array)
    constant = app.operand(2)
    if view is None or pads is None or not (constant is None or isinstance(constant, Known)):
        app.refuse("data-dependent", "pads by amounts or with values that are not constant")
    rank = len(view.shape)
    chosen = range(rank) if axes is None else [int(axis) % rank for axis in axes.array]
    if len(pads) != 2 * len(chosen) or min(pads) < 0:
        app.refuse("invalid-node", f"pads {list(pads)} do not fit {list(view.shape)}")
    amounts = [(0, 0)] * rank
    for number, axis in enumerate(chosen):
        amounts[axis] = (pads[number], pads[len(chosen) + number])
    batch_axis = view.batch_axis
    if batch_axis is not None and any(amounts.pop(batch_axis)):
        app.refuse("batch-mixing", f"pads axis {batch_axis}, which holds the samples")
    mode = app.node.attributes.get_string("mode", "constant")
    steps: tuple[Step, ...] = ()
    if mode == "constant":
        value = app.node.attributes.get_float("value", 0.0)
        if isinstance(constant, Known):
            value = float(constant.array.reshape(-1)[0])
        step, filler = constant_map(app, np.array([value], view.maps[0].dtype.numpy()))
        steps = (step,)
        index = np.pad(view.index, amounts, constant_values=filler.first_label)
    elif mode == "edge":
        index = np.pad(view.index, amounts, mode="edge")
    elif mode == "reflect":
        index = np.pad(view.index, amounts, mode="reflect")
    else:
        app.refuse("invalid-node", f"has the mode {mode!r}")
    any_batch = view.labels.other is not None
    made = FeatureView.of_index(app.space, app.batches, index, batch_axis, any_batch=any_batch)
    return Emitted(steps, made) if steps else Viewed((made,))


def _moved(app: Application, positions: tuple[int, ...]) -> Outcome:
    """The views that the outputs are when the operands at ``positions`` carry labels."""
    operands: list[Callable[[bool], AnyArray | None]] = []
    for position, operand in enumerate(app.operands):
        if isinstance(operand, FeatureView) and position in positions:
            operands.append(_labels_of(operand))
        elif isinstance(operand, Known):
            operands.append(_value_of(operand))
        elif operand is None:
            operands.append(lambda _: None)
        else:
            app.refuse("data-dependent", "moves elements to positions that depend on another input")

    try:
        arrays = [at(True) for at in operands]
        check_growth(app.node, arrays)
        native = evaluate(app.node, arrays, app.opset)
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        app.refuse("invalid-node", f"does not fit its input: {_one_line(error)}")
    try:
        other = evaluate(app.node, [at(False) for at in operands], app.opset)
    except Exception:
        other = None

    views = tuple(
        _separated(app, Labels(array, None if other is None else other[position]))
        for position, array in enumerate(native)
    )
    if None in views:
        app.refuse(
            "batch-mixing",
            f"mixes the {app.batches.native} samples of a batch: no axis of its output is theirs",
        )
    return Viewed(tuple(view for view in views if view is not None))


def _labels_of(view: FeatureView) -> Callable[[bool], AnyArray | None]:
    def at(native: bool) -> AnyArray | None:
        if native:
            return view.labels.native
        if view.labels.other is None:
            raise Mixed
        return view.labels.other

    return at


def _value_of(known: Known) -> Callable[[bool], AnyArray | None]:
    batches = known.batches
    return lambda native: known.at(batches.native if native else batches.other)


def _separated(app: Application, labels: Labels) -> FeatureView | None:
    """The view with these labels; None if it mixes the samples of the native batch.

    At another batch size only, mixing means that the model works at its native batch size alone.
    """
    batches, other = app.batches, labels.other
    if other is not None and batch_axis(other, batches.other) is None:
        other = None
    if other is None and batches.native > 1 and batch_axis(labels.native, batches.native) is None:
        return None
    return FeatureView(app.space, batches, lambda: Labels(labels.native, other))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
