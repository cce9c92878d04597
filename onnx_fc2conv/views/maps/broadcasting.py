"""Broadcasting: the operands of an elementwise operator, all of the shape of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.labels import AnyArray, IntArray
from onnx_fc2conv.views.maps.view import FeatureView

__all__ = ["Broadcast", "broadcast"]


@dataclass(frozen=True, eq=False)
class Broadcast:
    """The operands as arrays of one shape: that of the result without its batch axis.

    Attributes:
        shape: That shape.
        batch_axis: The axis of the samples in the result; None where the model dropped it.
        any_batch: Whether the operator works at another batch size.
        indices: Element labels of each view, by operand position.
        constants: Values of each constant operand.
        shapes: Shapes of the constant operands themselves.
    """

    shape: tuple[int, ...]
    batch_axis: int | None
    any_batch: bool
    indices: Mapping[int, IntArray]
    constants: Mapping[int, AnyArray]
    shapes: Mapping[int, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of elements of one sample of the result."""
        return prod(self.shape)

    @property
    def arrays(self) -> Mapping[int, AnyArray]:
        """The constants that are not scalars."""
        return {n: array for n, array in self.constants.items() if self.shapes[n]}

    def view(self, ctx: Context, index: IntArray) -> FeatureView:
        """Return the result as a view that shows these elements."""
        return FeatureView.of_index(
            ctx.space,
            ctx.batches,
            index.reshape(self.shape),
            self.batch_axis,
            any_batch=self.any_batch,
        )


def broadcast(ctx: Context) -> Broadcast:
    """Broadcast views and constants together, as NumPy does.

    Raises:
        NodeRefused: If shapes do not fit, or constants or views mix samples.
    """
    views = {n: fact for n, fact in enumerate(ctx.operands) if isinstance(fact, FeatureView)}
    constants = {n: fact for n, fact in enumerate(ctx.operands) if isinstance(fact, Constant)}
    axes = {_from_the_end(view) for view in views.values()}
    if len(axes) > 1:
        ctx.refuse("batch-mixing", "its operands hold the samples on different axes")
    axis = axes.pop()
    any_batch = all(view.labels.other is not None for view in views.values())
    arrays: dict[int, AnyArray] = {}
    for position, view in views.items():
        index = view.index
        arrays[position] = index if axis is None else np.expand_dims(index, index.ndim + 1 + axis)
    for position, constant in constants.items():
        row = _one_sample(ctx, constant, axis, any_batch=any_batch)
        arrays[position] = row
    try:
        spread: dict[int, AnyArray] = dict(
            zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True)
        )
    except ValueError:
        given = [v.shape for v in views.values()] + [k.shape for k in constants.values()]
        listed = " and ".join(str(list(shape)) for shape in given)
        ctx.refuse("shape-mismatch", f"its operands of shapes {listed} do not fit")
    first: AnyArray = next(iter(spread.values()))
    batch_axis = None if axis is None else first.ndim + axis
    if batch_axis is not None:
        spread = {n: np.squeeze(array, axis=batch_axis) for n, array in spread.items()}
        first = next(iter(spread.values()))
    return Broadcast(
        shape=first.shape,
        batch_axis=batch_axis,
        any_batch=any_batch,
        indices={n: spread[n] for n in views},
        constants={n: spread[n] for n in constants},
        shapes={n: constant.shape for n, constant in constants.items()},
    )


def _from_the_end(view: FeatureView) -> int | None:
    """The batch axis counted from the end (negative); None if there is none."""
    axis = view.batch_axis
    return None if axis is None else axis - len(view.shape)


def _one_sample(ctx: Context, constant: Constant, axis: int | None, *, any_batch: bool) -> AnyArray:
    """What the constant holds for one sample, with a batch axis of length 1 where it has one."""
    array = constant.array
    if axis is None or array.ndim < -axis:
        row = array
    elif not (array == array.take([0], axis=axis)).all():
        ctx.refuse("batch-mixing", "its constant differs from sample to sample")
    elif array.shape[axis] not in (1, ctx.batches.native):
        ctx.refuse(
            "batch-mixing", f"its constant of shape {list(array.shape)} makes samples of its own"
        )
    else:
        row = array.take([0], axis=axis)
    if constant.sized and any_batch and axis is not None:
        other = constant.at(ctx.batches.other)
        if other.ndim >= -axis:
            other = other.take([0], axis=axis)
        if not np.array_equal(row, other):
            ctx.refuse("batch-mixing", "its constant is computed from the number of samples")
    return row
