"""Data movement: a new index, no node emitted."""

from __future__ import annotations

from collections.abc import Callable

from onnx_fc2conv.views.labels import AnyArray, batch_axis, evaluate
from onnx_fc2conv.views.plan import Outcome, Viewed
from onnx_fc2conv.views.rules.registry import Application, rule
from onnx_fc2conv.views.view import FeatureView, Known, Labels, Mixed

__all__ = ["concatenate", "move"]


@rule(
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Gather",
    "GatherElements",
    "GatherND",
    "Split",
    "Expand",
    "Tile",
    "DepthToSpace",
    "SpaceToDepth",
)
def move(app: Application) -> Outcome:
    """Run the operator on labels: its output is a view of the same maps."""
    if app.view(0) is None:
        return app.refuse(
            "data-dependent", "selects elements by positions that depend on the image"
        )
    return _moved(app, positions=(0,))


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
        return app.refuse("invalid-node", f"perm {list(perm)} does not fit a tensor of rank {rank}")

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

    Refused: ``training_mode`` true, and a mask that is used.
    """
    view = app.view(0)
    assert view is not None
    mode = app.operand(2)
    if mode is not None and not (isinstance(mode, Known) and not mode.array.any()):
        return app.refuse("training-mode", "is in training mode: export the model for inference")
    if any(output.uses() or output.is_graph_output() for output in app.node.outputs[1:]):
        return app.refuse("dropout-mask", "its mask output is used, which only training needs")
    return Viewed((view,))


def concatenate(app: Application) -> Outcome:
    """Concat as data movement: all of its operands are views."""
    if any(not isinstance(operand, FeatureView) for operand in app.operands):
        return app.refuse(
            "constant-features",
            "joins features of the image with a tensor that is not made from the image",
        )
    return _moved(app, positions=tuple(range(len(app.operands))))


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
            return app.refuse(
                "data-dependent", "moves elements to positions that depend on another input"
            )

    try:
        native = evaluate(app.node, [at(True) for at in operands], app.opset)
    except Exception as error:
        return app.refuse("invalid-node", f"does not fit its input: {_one_line(error)}")
    try:
        other = evaluate(app.node, [at(False) for at in operands], app.opset)
    except Exception:
        other = None

    views = tuple(
        _separated(app, Labels(array, None if other is None else other[position]))
        for position, array in enumerate(native)
    )
    if None in views:
        return app.refuse(
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
