"""Seeded inputs of several kinds: an error that hides from one kind shows with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["EXTREME", "INTEGERS", "KINDS", "POSITIVE", "ModelInput", "model_inputs", "sample"]

KINDS = (
    *("normal", "uniform", "image-like", "large", "0 to 255", "negative"),
    *("dark", "bright", "one bright pixel"),
)
"""Standard normal; uniform in [0, 1); smooth fields in [0, 1] as photographs are; normal × 1000;
whole numbers of 0 to 255, and of -255 to 0; constants; one bright pixel in the dark.

Integer inputs take whole numbers of 0 to 255 for the first three, and then: the whole range of the
type with both ends, 0 to 255, the negative half (if there is one), 0, the largest number, and one
pixel of that.
"""

EXTREME = frozenset(KINDS[3:])
"""Numbers that not every model is made for: it may overflow on them, and be right."""

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
    """One feed of the given kind."""
    # NumPy gives a number where it is asked for an array of rank 0.
    return {i.name: np.asarray(_array(i, kind, shapes[i.name], rng)) for i in inputs}


def _array(
    an_input: ModelInput, kind: str, shape: tuple[int, ...], rng: np.random.Generator
) -> AnyArray:
    dtype = an_input.dtype
    if an_input.largest is not None:
        return rng.integers(0, min(an_input.largest, 255), shape, endpoint=True).astype(dtype)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.integer):
        return _whole_numbers(kind, shape, dtype, rng)
    return _real_numbers(kind, shape, rng).astype(dtype)


def _real_numbers(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> AnyArray:
    match kind:
        case "normal":
            values = rng.standard_normal(shape)
        case "uniform":
            values = rng.random(shape)
        case "image-like":
            values = _smooth(shape, rng)
        case "large":
            values = rng.standard_normal(shape) * 1e3
        case "positive":
            values = 1 + rng.random(shape)
        case "integers":
            values = rng.integers(-2, 2, shape, endpoint=True).astype(np.float64)
        case "0 to 255" | "negative":
            values = rng.integers(0, 255, shape, endpoint=True).astype(np.float64)
            values = -values if kind == "negative" else values
        case "dark" | "bright":
            values = np.full(shape, 0.0 if kind == "dark" else 255.0)
        case "one bright pixel":
            values = _one_pixel(shape, 255, rng)
        case _:
            raise ValueError(kind)
    return values


def _whole_numbers(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], rng: np.random.Generator
) -> AnyArray:
    ends = np.iinfo(dtype.name)
    match kind:
        case "large":
            values = rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
            values.reshape(-1)[:2] = (ends.min, ends.max)[: values.size]
            return values
        case "negative" if ends.min < 0:
            return rng.integers(ends.min, 0, shape, dtype)
        case "dark" | "bright":
            return np.full(shape, 0 if kind == "dark" else ends.max, dtype)
        case "one bright pixel":
            return _one_pixel(shape, ends.max, rng).astype(dtype)
        case _:
            largest = 1 if kind == INTEGERS else min(255, ends.max)
            return rng.integers(0, largest, shape, dtype, endpoint=True)


def _one_pixel(shape: tuple[int, ...], value: int, rng: np.random.Generator) -> AnyArray:
    """Zeros, and in every image one pixel of this value in all channels."""
    values: AnyArray = np.zeros(shape, np.min_scalar_type(value))
    for image in values if len(shape) > 1 else ():
        place = tuple(int(rng.integers(length)) for length in shape[2:])
        image[(..., *place)] = value
    return values


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
