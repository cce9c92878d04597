"""The geometry of a conversion, measured: no formula, only pixels that change and cells that move.

Each function raises AssertionError where a measurement contradicts what the geometry claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnx_fc2conv import Conversion, Geometry
from tests.nets import Array, Run, session

_LARGE = 1e4
_MOVED = 1e-5


@dataclass(frozen=True, eq=False)
class Measurement:
    """An original of one image input and one fully connected head, and its conversion.

    Attributes:
        original: The model; its outputs are the scores and the map that the head reads.
        conversion: Its conversion.
        seed: Of the images.
    """

    original: onnx.ModelProto
    conversion: Conversion
    seed: int = 0

    @cached_property
    def run_original(self) -> Run:
        return session(self.original)

    @cached_property
    def run_dense(self) -> Run:
        assert self.conversion.model is not None
        return session(self.conversion.model)

    @cached_property
    def run_signed(self) -> list[Run]:
        """The conversion, and the same with other signs of its weights.

        A maximum hides a pixel from which all weights on the way lead to small numbers.
        """
        assert self.conversion.model is not None
        runs = [self.run_dense]
        for trial in range(2):
            rng = np.random.default_rng((self.seed, trial))
            model = ir.to_proto(self.conversion.model)
            for tensor in model.graph.initializer:
                array = onnx.numpy_helper.to_array(tensor)
                if array.dtype == np.float32 and array.ndim > 1:
                    signs = rng.choice(np.array([-1, 1], np.float32), array.shape)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array * signs, tensor.name))
            runs.append(session(model))
        return runs

    @property
    def scores(self) -> Geometry:
        return next(iter(self.conversion.geometry.values()))

    @property
    def channels(self) -> int:
        channels = self.conversion.before.inputs[self.scores.input][1]
        assert isinstance(channels, int)
        return channels

    def image(self, size: tuple[int, ...], batch: int = 1) -> Array:
        rng = np.random.default_rng((self.seed, *size))
        array: Array = rng.normal(size=(batch, self.channels, *size)).astype(np.float32)
        return array

    def original_on(self, crops: Array) -> dict[str, Array]:
        """The original's outputs, one crop at a time where its batch is fixed."""
        batch = self.conversion.before.inputs[self.scores.input][0]
        if not isinstance(batch, int):
            return self.run_original({self.scores.input: crops})
        single = [self.run_original({self.scores.input: crop[None]}) for crop in crops]
        return {name: np.concatenate([one[name] for one in single]) for name in single[0]}

    def dense(self, image: Array) -> dict[str, Array]:
        return self.run_dense({self.scores.input: image})

    def sizes(self) -> Iterator[tuple[int, ...]]:
        """Every length from the native one to two strides more along some axis, others mixed."""
        window, stride = self.scores.window, [max(1, s) for s in self.scores.stride]
        for grown in range(2 * max(stride) + 1):
            yield tuple(
                own + (grown * (axis + 1)) % (2 * step + 1)
                for axis, (own, step) in enumerate(zip(window, stride, strict=True))
            )

    def working_size(self, atleast: tuple[int, ...]) -> tuple[int, ...]:
        """The smallest size above this one at which the branches fit together."""
        found = []
        for own, length, rules in zip(
            self.scores.window,
            atleast,
            zip(*(g.sizes for g in self.conversion.geometry.values()), strict=True),
            strict=True,
        ):
            while any((length - own) % rule.modulo not in rule.remainders for rule in rules):
                length += 1  # noqa: PLW2901 - it grows until it fits
            found.append(length)
        return tuple(found)


def measure_output_size(it: Measurement) -> int:
    """`output_size` is what onnxruntime gives, or refuses where the model does not run."""
    count = 0
    for size in it.sizes():
        try:
            shapes = {name: array.shape[2:] for name, array in it.dense(it.image(size)).items()}
        except ort.capi.onnxruntime_pybind11_state.Fail:
            shapes = None
        except ort.capi.onnxruntime_pybind11_state.RuntimeException:
            shapes = None
        claimed: dict[str, tuple[int, ...]] | None = {}
        try:
            for name, geometry in it.conversion.geometry.items():
                assert claimed is not None
                claimed[name] = geometry.output_size(size)
        except ValueError:
            claimed = None
        assert claimed == shapes, f"at {size} onnxruntime gives {shapes}, not {claimed}"
        count += 1
    return count


def measure_receptive_field(it: Measurement) -> int:
    """No pixel outside the receptive field moves a cell; its first and its last one do."""
    count = 0
    for axis in range(len(it.scores.window)):
        count += sum(_along(it, axis, name) for name in it.conversion.geometry)
    return count


def _along(it: Measurement, axis: int, output: str) -> int:
    geometry = it.conversion.geometry[output]
    field, stride = geometry.receptive_field, geometry.stride[axis]
    assert field is not None
    wide = [n + size for n, size in zip(it.scores.window, field.size, strict=True)]
    wide[axis] += 2 * it.scores.window[axis] + 2 * stride
    size = it.working_size(tuple(wide))
    length = size[axis]
    base = it.image(size)
    moved = np.zeros((length, *it.dense(base)[output].shape[2:]), bool)
    for run, sign in product(it.run_signed, (1, -1)):
        changed = np.repeat(base, length, axis=0)
        pixels = np.moveaxis(changed, 2 + axis, 1)  # [length, pixels along the axis, …]
        pixels[np.arange(length), np.arange(length)] += np.float32(sign * _LARGE)
        before, after = (run({it.scores.input: x})[output] for x in (base, changed))
        moved |= np.abs(after - before).max(axis=1) > _MOVED * _LARGE * 1e-2
    others = tuple(a + 1 for a in range(len(size)) if a != axis)
    by_cell = moved.any(axis=others).T  # [cells, pixels]
    for cell, pixels in enumerate(by_cell):
        first = field.start[axis] + cell * stride
        end = first + field.size[axis]
        reached = np.flatnonzero(pixels)
        if reached.size:
            assert first <= reached[0], f"{output} cell {cell}: pixel {reached[0]} before {first}"
            assert reached[-1] < end, f"{output} cell {cell}: pixel {reached[-1]} not before {end}"
        # Cells that see no padding, cropped images that are padded again included.
        if first >= it.scores.window[axis] and end <= length - it.scores.window[axis]:
            assert reached.size
            assert reached[0] == first, f"{output} cell {cell}: first {reached[0]}, not {first}"
            assert reached[-1] == end - 1, f"{output} cell {cell}: last {reached[-1]}, not {end}"
    return len(by_cell)


def measure_verdict(it: Measurement) -> int:
    """Cells equal the original on their crops if windows are exact; otherwise some do not.

    Pixels beyond the image, where a last window reaches out of it, are noise.
    """
    worst, count = 0.0, 0
    name = next(iter(it.conversion.geometry))
    scale = max(float(np.abs(array).max()) for array in _natively(it).values())
    for grown in it.sizes():
        size = it.working_size(tuple(n + s for n, s in zip(grown, it.scores.stride, strict=True)))
        image = it.image(size)
        dense = it.dense(image)[name]
        wider = it.image(tuple(n + s for n, s in zip(size, it.scores.stride, strict=True)))
        wider[(..., *map(slice, size))] = image
        cells = list(product(*map(range, dense.shape[2:])))
        crops = [wider[:, :, *it.scores.cell_to_window(cell)] for cell in cells]
        expected = it.original_on(np.concatenate(crops))[name]
        actual = np.stack([dense[0, :, *cell] for cell in cells])
        worst = max(worst, float(np.abs(actual - expected).max()) / scale)
        count += len(cells)
    if it.scores.windows_exact:
        assert worst < 1e-4, f"said to be exact, off by {worst:.1e}"
    else:
        assert worst > 1e-4, f"said to be {it.scores.verdict}, off by {worst:.1e} only"
    return count


def measure_field_ends(it: Measurement) -> int:
    """`measure_receptive_field` for one cell in the middle of a large image, and bitwise."""
    geometry = it.scores
    field = geometry.receptive_field
    assert field is not None
    axes = [*zip(field.start, field.size, geometry.stride, geometry.window, strict=True)]
    cell = [2 - start // step for start, _, step, _ in axes]
    first = [start + i * step for i, (start, _, step, _) in zip(cell, axes, strict=True)]
    size = it.working_size(
        tuple(
            max(window, start + length + step)
            for start, (_, length, step, window) in zip(first, axes, strict=True)
        )
    )
    base = it.image(size) / 20  # or scores are saturated
    name = next(iter(it.conversion.geometry))
    for axis, start in enumerate(first):
        end = start + field.size[axis]
        pixels = [start - 1, start, end - 1, end]
        moved = np.zeros(len(pixels), bool)
        for change in (0.1, -0.1, 1, -1, 30, -30, _LARGE, -_LARGE):
            changed = np.repeat(base, len(pixels), axis=0)
            for image, pixel in enumerate(pixels):
                np.moveaxis(changed[image], 1 + axis, 0)[pixel] += np.float32(change)
            difference = it.dense(changed)[name] - it.dense(base)[name]
            moved |= (difference[:, :, *cell] != 0).any(axis=1)
        assert moved.tolist() == [False, True, True, False], f"axis {axis}: {moved.tolist()}"
    return 4 * len(axes)


def _natively(it: Measurement) -> dict[str, Array]:
    return it.original_on(it.image(it.scores.window, 4))


def measure_clean_cells(it: Measurement) -> int:
    """As many cells of the head's map as claimed are the same in the crop and in the image."""
    scores, (_, read) = it.scores, it.conversion.geometry.items()
    clean, (name, meaning) = scores.clean_cells, read
    assert clean is not None
    assert clean.total == np.prod(meaning.cells)
    steps = [
        1 + -(-(w + f) // s)
        for w, f, s in zip(scores.window, _reach(scores), scores.stride, strict=True)
    ]
    size = it.working_size(
        tuple(w + 2 * n * s for w, n, s in zip(scores.window, steps, scores.stride, strict=True))
    )
    same = np.ones(meaning.cells, bool)
    for trial in range(5):
        image = Measurement(it.original, it.conversion, it.seed + trial).image(size)
        whole = it.dense(image)[name]
        for cell in (tuple(steps), tuple(n - 1 for n in steps)):
            crop = image[:, :, *scores.cell_to_window(cell)]
            inside = it.original_on(crop)[name]
            part = tuple(slice(c, c + n) for c, n in zip(cell, meaning.cells, strict=True))
            difference = np.abs(whole[:, :, *part] - inside).max(axis=(0, 1))
            same &= difference < 1e-4 * max(1e-3, float(np.abs(inside).max()))
    assert int(same.sum()) == clean.clean, f"{int(same.sum())} cells are clean, not {clean.clean}"
    return same.size


def _reach(geometry: Geometry) -> tuple[int, ...]:
    assert geometry.receptive_field is not None
    return tuple(max(0, -start) for start in geometry.receptive_field.start)
