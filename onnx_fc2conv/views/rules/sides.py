"""Tensors that are not made from the image, where they meet its features.

A vector [N, D] beside the image (a second input, or computed from one) is a map of D channels that
has one cell for the whole image, like a globally pooled one: it meets every cell of a larger map.
The nodes that compute it stay as they are. Constants that are joined with features are such a map
too.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.views.known import Known, Opaque
from onnx_fc2conv.views.labels import AnyArray
from onnx_fc2conv.views.plan import Constant, Step
from onnx_fc2conv.views.rules.registry import Application, Fact
from onnx_fc2conv.views.view import FeatureMap, FeatureView, channels_first

__all__ = ["constant_map", "with_sides"]


def with_sides(
    app: Application, *, constants: bool = False
) -> tuple[tuple[Step, ...], Application]:
    """The node with each operand that is not from the image as a view of a map of one cell.

    Args:
        app: The node.
        constants: Whether constant operands become maps as well.

    Raises:
        NodeRefused: Unless the operand's shape is known, with the samples on axis 0.
    """
    steps: tuple[Step, ...] = ()
    operands: list[Fact | None] = []
    for value, fact in zip(app.node.inputs, app.operands, strict=True):
        if isinstance(fact, Opaque) and value is not None:
            same = fact.uniform
            found = (
                _side(app, value, constants=constants)
                if same is None
                else _uniform(app, value, same)
            )
        elif isinstance(fact, Known) and constants:
            found = _constant(app, fact)
        else:
            operands.append(fact)
            continue
        more, view = found
        steps = (*steps, *more)
        operands.append(view)
    return steps, replace(app, operands=tuple(operands))


def constant_map(app: Application, values: AnyArray) -> tuple[Step, FeatureMap]:
    """A map of one cell with these values [C] for channels, whatever the image."""
    like = next(fact for fact in app.operands if isinstance(fact, FeatureView)).maps[0]
    name = app.names.fresh(f"{app.node.outputs[0].name}.constant")
    dtype = ir.DataType.from_numpy(values.dtype)
    made = _one_cell(app, name, values.size, len(like.extent), dtype)
    made = app.space.add(replace(made, constant=values))
    shape = (1, *made.per_sample_shape)
    stored = Constant(
        app.names.fresh(f"{name}.values"), shape, lambda: ir.Tensor(values.reshape(shape))
    )
    return Step("Identity", (stored,), made, app.node), made


def _one_cell(
    app: Application, name: str, channels: int, rank: int, dtype: ir.DataType
) -> FeatureMap:
    return FeatureMap(
        name=name,
        channels=channels,
        extent=(1,) * rank,
        dtype=dtype,
        field=(AxisField().pool_globally(1),) * rank,
        first_label=app.space.reserve(channels),
        layout=channels_first(2 + rank),
    )


def _side(
    app: Application, value: ir.Value, *, constants: bool
) -> tuple[tuple[Step, ...], FeatureView]:
    """A tensor [N, …] of the model."""
    shape, name = value.shape, value.name or ""
    if shape is None or value.dtype is None or len(shape) < 1:
        app.refuse("other-input", f"is given {name}, of which the shape is not known")
    features = tuple(dim for dim in shape[1:] if isinstance(dim, int))
    samples = shape[0]
    # One vector for all images is broadcast by what combines it with features, not by Concat.
    fits = (app.batches.native,) if constants else (app.batches.native, 1)
    if len(features) < len(shape) - 1 or (isinstance(samples, int) and samples not in fits):
        app.refuse(
            "other-input",
            f"combines features of the image with {name} [{', '.join(map(_dim, shape))}], which is "
            "not one vector for each image",
        )
    views = [fact for fact in app.operands if isinstance(fact, FeatureView)]
    rank = len(views[0].maps[0].extent)
    plain = channels_first(2 + rank)
    layout = next((view.layout for view in views if view.layout is not None), plain)
    if len(shape) == len(layout) and all(shape[axis] == 1 for axis in layout[2:]):
        made = _one_cell(app, name, prod(features), rank, value.dtype)
        made = app.space.add(replace(made, layout=layout, value=value))
        return (), FeatureView.of(made, app.space, app.batches)
    made = _one_cell(app, app.names.fresh(f"{name}.map"), prod(features), rank, value.dtype)
    app.space.add(made)
    target = np.array([0, *made.per_sample_shape], np.int64)
    stored = Constant(
        app.names.fresh(f"{made.name}.shape"), target.shape, lambda: ir.Tensor(target)
    )
    index = made.first_label + np.arange(made.size, dtype=np.int64).reshape(features)
    view = FeatureView.of_index(app.space, app.batches, index, 0, any_batch=True)
    return (Step("Reshape", (value, stored), made, app.node),), view


def _dim(dim: int | ir.SymbolicDim) -> str:
    return str(dim) if isinstance(dim, int) else dim.value or "?"


def _uniform(
    app: Application, value: ir.Value, shape: tuple[int, ...]
) -> tuple[tuple[Step, ...], FeatureView]:
    """Numbers that are the same for all samples, with the axes of the views that they meet."""
    view = next(fact for fact in app.operands if isinstance(fact, FeatureView))
    aligned = [1] * (len(view.shape) - len(shape)) + list(shape)
    batch = view.batch_axis
    if len(aligned) > len(view.shape) or (batch is not None and aligned.pop(batch) != 1):
        app.refuse("other-input", f"is given {value.name} {list(shape)}, with axes of its own")
    rank, name = len(view.maps[0].extent), app.names.fresh(f"{value.name}.map")
    made = _one_cell(app, name, prod(shape), rank, value.dtype or ir.DataType.FLOAT)
    app.space.add(made)
    target = np.array([1, *made.per_sample_shape], np.int64)
    stored = Constant(app.names.fresh(f"{name}.shape"), target.shape, lambda: ir.Tensor(target))
    index = made.first_label + np.arange(made.size, dtype=np.int64).reshape(aligned)
    of_all = FeatureView.of_index(
        app.space, app.batches, index, batch, any_batch=view.labels.other is not None
    )
    return (Step("Reshape", (value, stored), made, app.node),), of_all


def _constant(app: Application, known: Known) -> tuple[tuple[Step, ...], FeatureView]:
    """A constant with the axes of the views that it is joined with."""
    view = next(fact for fact in app.operands if isinstance(fact, FeatureView))
    axis = view.batch_axis
    array = known.array
    if array.ndim != len(view.shape):
        app.refuse("invalid-node", f"is given a constant of shape {list(array.shape)}")
    if axis is not None:
        if not (array == array.take([0], axis=axis)).all():
            app.refuse("batch-mixing", "its constant differs from sample to sample")
        array = array.take(0, axis=axis)
    step, made = constant_map(app, np.ascontiguousarray(array.reshape(-1)))
    index = made.first_label + np.arange(made.size, dtype=np.int64).reshape(array.shape)
    any_batch = known.sized and axis is not None and view.labels.other is not None
    return (step,), FeatureView.of_index(app.space, app.batches, index, axis, any_batch=any_batch)
