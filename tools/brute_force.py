"""Whether two models differ, found by running both on many inputs: an oracle beside the check.

It takes nothing from the package. Sessions have no optimizations and one thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]

onnxruntime.set_default_logger_severity(4)


class Runner:
    """A model that takes feeds and gives outputs by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.session = _session(model, optimized=False)
        self.names = [output.name for output in self.session.get_outputs()]

    @cached_property
    def _others(self) -> list[onnxruntime.InferenceSession]:
        """The model with its sums in another order, and with weights that are off by an ulp."""
        nudged = [_session(_nudged(self.model, seed), optimized=False) for seed in range(3)]
        return [_session(self.model, optimized=True), *nudged]

    def rounding(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> float:
        """How far roundings move the outputs: of the inputs, the weights, and the sums."""
        rng = np.random.default_rng(0)
        near = [{name: _by_an_ulp(x, rng) for name, x in feeds.items()} for _ in range(2)]
        made = [self.session.run(self.names, each) for each in near]
        made += [session.run(self.names, dict(feeds)) for session in self._others]
        return max(
            relative(outputs[name], value)
            for values in made
            for name, value in zip(self.names, values, strict=True)
            if name in outputs
        )

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
        """The outputs; None if it does not run."""
        try:
            return dict(zip(self.names, self.session.run(self.names, dict(feeds)), strict=True))
        except Exception:  # whatever onnxruntime raises
            return None


def _session(model: onnx.ModelProto, *, optimized: bool) -> onnxruntime.InferenceSession:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = (
        levels.ORT_ENABLE_EXTENDED if optimized else levels.ORT_DISABLE_ALL
    )
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _by_an_ulp(array: Array, rng: np.random.Generator) -> Array:
    """Each number one up or down; zeros and integers stay."""
    if array.dtype.kind != "f":
        return array
    towards = array * rng.choice([0, 2], array.shape).astype(array.dtype)
    return np.nextafter(array, towards)


def _nudged(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    made, rng = onnx.ModelProto(), np.random.default_rng(seed)
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim and array.dtype.kind == "f":
            tensor.CopyFrom(numpy_helper.from_array(_by_an_ulp(array, rng), tensor.name))
    return made


def free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """The lengths of an input; None where they are symbolic."""
    return [
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    ]


def native_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]] | None:
    """The shapes of all inputs, the batch 1 where it is symbolic; None if a size is."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in free_inputs(model):
        first, *rest = dims(value) or [1]
        if None in rest:
            return None
        shapes[value.name] = (first or 1, *(length or 1 for length in rest))
    return shapes


def dtype_of(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    """The type of an input's numbers."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def images(rng: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int]) -> Iterator[Array]:
    """Inputs of many kinds: of the whole type, of usual ranges, negative, constant, one hot."""
    if dtype.kind == "b":
        yield rng.integers(0, 2, shape).astype(dtype)
        return
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        least, most = max(bounds.min, -(2**20)), min(bounds.max, 2**20)
        yield rng.integers(least, most, shape, np.int64, endpoint=True).astype(dtype)
        yield rng.integers(0, min(bounds.max, 256), shape).astype(dtype)
        yield np.zeros(shape, dtype)
        return
    normal = rng.standard_normal(shape)
    yield normal.astype(dtype)
    yield rng.random(shape).astype(dtype)
    yield (255 * rng.random(shape)).astype(dtype)
    yield rng.integers(0, 256, shape).astype(dtype)
    yield (1000 * normal).astype(dtype)
    if dtype.itemsize > 2:
        yield (30000 * normal).astype(dtype)
    yield (-np.abs(normal)).astype(dtype)
    yield np.where(rng.random(shape) < 0.5, 0, normal).astype(dtype)
    for constant in (0, 1, -1, 0.5):
        yield np.full(shape, constant, dtype)
    hot = np.zeros(shape, dtype)
    hot[tuple(rng.integers(0, n) for n in shape)] = 100
    yield hot


@dataclass(frozen=True)
class Difference:
    """The largest difference that was found: relative to its channel's largest value, and where."""

    size: float
    where: str

    def __bool__(self) -> bool:
        return self.size > 0


NONE = Difference(0.0, "")
ROUNDINGS = 30
"""A difference may be that many times what one rounding of all inputs makes."""


def between(
    one: onnx.ModelProto,
    two: onnx.ModelProto,
    native: Shapes,
    *,
    enough: float = 3e-4,
    with_nan: bool = False,
) -> Difference:
    """The largest difference between two models with the same interface that no rounding explains.

    Args:
        one: The model that is right.
        two: The other.
        native: Shapes of all inputs.
        enough: At a difference of this size the search ends.
        with_nan: Whether to try only images in which one pixel is NaN.
    """
    try:
        first, second = Runner(one), Runner(two)
    except Exception as error:  # whatever onnxruntime raises
        return Difference(np.inf, f"does not load: {str(error)[:80]}")
    types = {value.name: dtype_of(value) for value in free_inputs(one)}
    rng = np.random.default_rng(0)
    worst = NONE
    for shapes in _sizes(one, native):
        kinds = [list(images(rng, types[name], shapes[name])) for name in shapes]
        if with_nan:
            kinds = [[_one_nan(arrays[0], rng)] for arrays in kinds]
        for number in range(max(map(len, kinds), default=0)):
            feeds = {n: k[number % len(k)] for n, k in zip(shapes, kinds, strict=True)}
            where = f"at {shapes}, input {number}"
            found = _judged(first, feeds, first(feeds), second(feeds), where)
            worst = max(worst, found, key=lambda difference: difference.size)
            if worst.size > enough:
                return worst
    return worst


def _one_nan(array: Array, rng: np.random.Generator) -> Array:
    made = array.copy()
    if made.dtype.kind == "f":
        made[tuple(rng.integers(0, n) for n in made.shape)] = np.nan
    return made


def _sizes(model: onnx.ModelProto, native: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """The native size, others by one to four and by much, with batches of one to three."""
    free = {
        value.name: [axis for axis, n in enumerate(dims(value)) if n is None and axis]
        for value in free_inputs(model)
    }
    batches = {value.name: (dims(value) or [1])[0] is None for value in free_inputs(model)}
    growths = [(0, 0, 1), (0, 0, 3), (0, 0, 2), (1, 1, 1), (0, 2, 2), (3, 0, 1), (2, 3, 3)]
    growths += [(4, 4, 1), (5, 6, 1), (7, 7, 1), (17, 25, 1)]
    for first, other, batch in growths:
        yield {
            name: tuple(
                (batch if batches[name] else n) if axis == 0
                else n + (first if axis == free[name][0] else other) if axis in free[name]
                else n
                for axis, n in enumerate(shape)
            )
            for name, shape in native.items()
        }  # fmt: skip


def _judged(
    runner: Runner,
    feeds: Mapping[str, Array],
    right: Mapping[str, Array] | None,
    other: Mapping[str, Array] | None,
    where: str,
) -> Difference:
    """How two results differ; not at all, if roundings explain it."""
    found = _compared(right, other, where)
    if not found or right is None or other is None:
        return found
    return NONE if found.size <= ROUNDINGS * runner.rounding(feeds, right) else found


def _compared(
    right: Mapping[str, Array] | None, other: Mapping[str, Array] | None, where: str
) -> Difference:
    if right is None:
        return NONE
    if other is None:
        return Difference(np.inf, f"does not run {where}")
    worst = NONE
    for name, expected in right.items():
        actual = other.get(name)
        if actual is None or actual.shape != expected.shape or actual.dtype != expected.dtype:
            return Difference(np.inf, f"{name} has another type or shape {where}")
        size = relative(expected, actual)
        if size > worst.size:
            worst = Difference(size, f"{name} differs by {size:.2g} {where}")
    return worst


def relative(expected: Array, actual: Array) -> float:
    """The largest difference, in units of the largest value of its channel (axis 1)."""
    if expected.shape != actual.shape:
        return np.inf
    if expected.dtype.kind not in "fc":
        return np.inf if not np.array_equal(expected, actual) else 0.0
    one, two = expected.astype(np.float64), actual.astype(np.float64)
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    if same.all():
        return 0.0
    if not np.isfinite(one[~same]).all() or not np.isfinite(two[~same]).all():
        return np.inf
    finite = np.where(np.isfinite(one), np.abs(one), 0)
    axes = tuple(axis for axis in range(one.ndim) if axis != 1)
    scale = np.maximum(finite.max(axes, keepdims=True, initial=0), 1e-30)
    error = np.abs(np.where(same, 0, one) - np.where(same, 0, two))
    return float((error / scale).max())


def on_windows(
    original: onnx.ModelProto,
    converted: onnx.ModelProto,
    native: Shapes,
    geometry: Mapping[str, Mapping[str, Any]],
) -> Difference:
    """The largest difference at the native size, and of cells from the original on their crops.

    Args:
        original: The model of one size.
        converted: A map, perhaps, of its windows.
        native: The sizes of the original.
        geometry: Of outputs whose windows are exact: window, stride and offset.
    """
    first, second = Runner(original), Runner(converted)
    types = {value.name: dtype_of(value) for value in free_inputs(original)}
    rng, worst = np.random.default_rng(0), NONE
    kinds = [list(images(rng, types[name], shape)) for name, shape in native.items()]
    for number in range(max(map(len, kinds), default=0)):
        feeds = {n: k[number % len(k)] for n, k in zip(native, kinds, strict=True)}
        right, other = first(feeds), second(feeds)
        if right is not None and other is not None:
            other = {n: _first_cell(v, right[n].shape) for n, v in other.items() if n in right}
        found = _judged(first, feeds, right, other, f"at the native size, input {number}")
        worst = max(worst, found, key=lambda difference: difference.size)
    if len(native) == 1:
        (name,) = native
        for output, meaning in geometry.items():
            image = next(images(rng, types[name], _larger(converted, native[name], meaning)))
            found = _cells(first, second, name, image, output, meaning)
            worst = max(worst, found, key=lambda difference: difference.size)
    return worst


def _first_cell(value: Array, shape: tuple[int, ...]) -> Array:
    """A map as the original gives it; its first cell, where it has several."""
    size = int(np.prod(shape))
    while value.size > size > 0 and value.ndim > 1:
        value = value[..., 0]
    return value.reshape(shape) if value.size == size else value


def _larger(model: onnx.ModelProto, shape: Sequence[int], meaning: Mapping[str, Any]) -> list[int]:
    """A shape by five larger along the axes of the windows."""
    (image,) = free_inputs(model)
    free = [axis for axis, n in enumerate(dims(image)) if n is None and axis]
    return [n + 5 if axis in free[-len(meaning["window"]) :] else n for axis, n in enumerate(shape)]


def _cells(
    original: Runner,
    converted: Runner,
    name: str,
    image: Array,
    output: str,
    meaning: Mapping[str, Any],
) -> Difference:
    """The largest difference of the cells of one output from the original on its crops."""
    worst, given = NONE, converted({name: image})
    rank = len(meaning["window"])
    free = [axis for axis, n in enumerate(converted.session.get_inputs()[0].shape)
            if not isinstance(n, int) and axis][-rank:]  # fmt: skip
    if given is None or len(free) != rank:
        return worst
    cells = given[output]
    for cell in itertools.product(*map(range, cells.shape[cells.ndim - rank :])):
        cut = [slice(None)] * image.ndim
        for axis, i, step, start, length in zip(
            free, cell, meaning["stride"], meaning["offset"], meaning["window"], strict=True
        ):
            cut[axis] = slice(start + i * step, start + i * step + length)
        feeds = {name: np.ascontiguousarray(image[tuple(cut)])}
        right, own = original(feeds), cells[(..., *cell)]
        if right is not None and right[output].size == own.size:
            right = {output: right[output]}
            other = {output: own.reshape(right[output].shape)}
            found = _judged(original, feeds, right, other, f"in the window of cell {cell}")
            worst = max(worst, found, key=lambda difference: difference.size)
    return worst
