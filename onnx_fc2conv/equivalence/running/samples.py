"""Seeded inputs of several kinds: an error that hides from one kind shows with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["INTEGERS", "KINDS", "POSITIVE", "ModelInput", "model_inputs", "sample"]

KINDS = ("normal", "uniform", "image-like", "large")
"""Standard normal; uniform in [0, 1); smooth fields in [0, 1] as photographs are; normal × 1000."""

POSITIVE = "positive"
"""Uniform in [1, 2), for models that are undefined on other numbers (a logarithm, a root)."""

INTEGERS = "integers"
"""Whole numbers of -2 to 2: sums of their products are exact in whatever order."""


@dataclass(frozen=True)
class ModelInput:
    """An input to feed.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: Its shape; None for a symbolic dim.
        largest: Its largest valid value, where it indexes the rows of a constant table.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    largest: int | None = None


def model_inputs(model: ir.Model) -> tuple[ModelInput, ...]:
    """Return the inputs of a model that have no initializer."""
    inputs: list[ModelInput] = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        if value.dtype is None or value.shape is None:
            raise ArgumentError(f"input {value.name!r} declares no type or shape")
        shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        inputs.append(
            ModelInput(value.name or "", np.dtype(value.dtype.numpy()), shape, _rows(value))
        )
    return tuple(inputs)


def _rows(value: ir.Value) -> int | None:
    """Return the largest valid index into the constant tables that a Gather reads by this value.

    A Cast may lie between the value and the Gather.
    """
    found: list[int] = []
    for node in value.consumers():
        if node.op_type == "Cast" and node.domain == "":
            found.extend(rows for rows in (_rows(node.outputs[0]),) if rows is not None)
        if node.op_type != "Gather" or node.inputs[1] is not value or node.inputs[0] is None:
            continue
        table = ir.convenience.get_const_tensor(node.inputs[0])
        if table is not None:
            axis = node.attributes.get_int("axis", 0)
            found.append(int(table.shape.numpy()[axis]) - 1)
    return min(found, default=None)


def sample(
    inputs: Sequence[ModelInput],
    shapes: Mapping[str, tuple[int, ...]],
    kind: str,
    rng: np.random.Generator,
) -> dict[str, AnyArray]:
    """One feed of the given kind; integer inputs take whole numbers of 0 to 255."""
    # NumPy gives a number where it is asked for an array of rank 0.
    return {
        i.name: np.asarray(_array(kind, shapes[i.name], i.dtype, rng))
        if i.largest is None
        else np.asarray(rng.integers(0, min(i.largest, 255), shapes[i.name], endpoint=True)).astype(
            i.dtype
        )
        for i in inputs
    }


def _array(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], rng: np.random.Generator
) -> AnyArray:
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.integer) and kind == INTEGERS:
        return rng.integers(0, 2, shape, endpoint=True).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        largest = 127 if dtype.itemsize == 1 and dtype.kind == "i" else 255
        return rng.integers(0, largest, shape, endpoint=True).astype(dtype)
    match kind:
        case "normal":
            values = rng.standard_normal(shape)
        case "uniform":
            values = rng.random(shape)
        case "image-like":
            values = _smooth(shape, rng)
        case "large":
            values = rng.standard_normal(shape) * (1e3 if dtype.itemsize > 2 else 8.0)
        case "positive":
            values = 1 + rng.random(shape)
        case "integers":
            values = rng.integers(-2, 2, shape, endpoint=True).astype(np.float64)
        case _:
            raise ValueError(kind)
    return values.astype(dtype)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> AnyArray:
    """A sum of random waves along every axis, rescaled to [0, 1], with a little noise."""
    field: AnyArray = np.zeros(shape)
    for _ in range(6):
        phase: AnyArray = np.asarray(rng.random() * 2 * np.pi)
        for axis, length in enumerate(shape):
            ramp = np.arange(length).reshape(-1, *[1] * (len(shape) - 1 - axis))
            phase = phase + ramp * rng.normal(scale=2 * np.pi / max(length, 2))
        field = field + np.cos(phase)
    low, high = field.min(), field.max()
    scaled = (field - low) / max(high - low, 1e-12)
    smooth: AnyArray = np.clip(scaled + rng.normal(scale=0.02, size=shape), 0, 1)
    return smooth
