"""What rounding alone does to the outputs of a model, measured: Monte Carlo arithmetic.

Every result of every operator is moved by a few units in its last place at random, and so is every
input (D. S. Parker, Monte Carlo Arithmetic, 1997). What that changes in an output, another order of
the same sums may change as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.tracing.structure import not_moving
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["moved_inputs", "rounding_otherwise"]

_UNITS = {
    **{ir.DataType.FLOAT: 16, ir.DataType.DOUBLE: 16},
    **{ir.DataType.FLOAT16: 2, ir.DataType.BFLOAT16: 0.5},
}
"""Units in the last place by which results move at most; halves have few digits."""

_EXACT = {
    *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather"),
    *("Split", "Concat", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Pad", "Dropout"),
    *("Relu", "Clip", "Abs", "Neg", "Sign", "Max", "Min", "MaxPool", "GlobalMaxPool", "ReduceMax"),
    *("ReduceMin", "TopK", "Where", "Cast", "Floor", "Ceil", "Round", "OneHot", "Hardmax"),
}
"""Operators that move, select or count: they round nothing, or to whole numbers."""

_ABSOLUTE = {
    *("Sigmoid", "Tanh", "Erf", "Elu", "Celu", "Selu", "Gelu", "Softplus", "Mish", "Swish"),
}
"""Functions whose small values onnxruntime computes with an error of about a unit of 1."""
_SHIFT = 1 / 8


def _reach(dtype: ir.DataType) -> float:
    """The share of a number by which it moves at most."""
    return _UNITS[dtype] * float(ml_dtypes.finfo(dtype.numpy()).eps)  # type: ignore[no-untyped-call]


def moved_inputs(feeds: Mapping[str, AnyArray], rng: np.random.Generator) -> dict[str, AnyArray]:
    """Move the floating-point numbers by some units in their last place; zeros and others stay."""
    return {name: _moved(array, rng) for name, array in feeds.items()}


def _moved(array: AnyArray, rng: np.random.Generator) -> AnyArray:
    dtype = ir.DataType.from_numpy(array.dtype)
    if dtype not in _UNITS:
        return array
    reach = _reach(dtype)
    with np.errstate(over="ignore"):
        return np.asarray(array * rng.uniform(1 - reach, 1 + reach, array.shape), array.dtype)


def rounding_otherwise(model: ir.Model) -> ir.Model:
    """Return a copy that moves its floating-point results at random, by roundings.

    Tensors keep their names. What an operator only moves, selects or counts stays, and what is
    computed from shapes alone.
    """
    copy = model.clone()
    exact = not_moving(copy.graph)
    for number, node in enumerate(list(copy.graph)):
        for value in () if node.op_type in _EXACT else node.outputs:
            if value not in exact and value.dtype in _UNITS:
                _round_otherwise(copy.graph, node, value, float(number))
    return copy


def _round_otherwise(graph: ir.Graph, node: ir.Node, value: ir.Value, seed: float) -> None:
    dtype = value.dtype
    assert dtype is not None
    uses, made = list(value.uses()), list[ir.Node]()

    def op(op_type: str, *inputs: ir.Value, **attributes: float | ir.TensorProtocol) -> ir.Value:
        made.append(ir.node(op_type, inputs, attributes))
        return made[-1].outputs[0]

    drawn = dtype if dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) else ir.DataType.FLOAT
    reach = _reach(dtype)
    factor = op("RandomUniformLike", value, low=1 - reach, high=1 + reach, dtype=drawn, seed=seed)
    factor = factor if drawn == dtype else op("Cast", factor, to=dtype)
    if node.op_type in _ABSOLUTE:
        shift = op("Constant", value=ir.tensor(np.array(_SHIFT, dtype.numpy())))
        moved = op("Sub", op("Mul", op("Add", value, shift), factor), shift)
    else:
        moved = op("Mul", value, factor)
    graph.insert_after(node, made)
    moved.type, moved.shape = value.type, value.shape
    moved.name, value.name = value.name, f"{value.name}.exact"
    for user, position in uses:
        user.replace_input_with(position, moved)
    graph.outputs[:] = [moved if output is value else output for output in graph.outputs]
