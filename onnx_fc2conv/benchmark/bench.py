"""bench(): windows a second of the dense pass, at once and in tiles, and of crops."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.benchmark.measuring import Task, measure
from onnx_fc2conv.benchmark.report import BenchReport, Latency, SizeResult
from onnx_fc2conv.errors import ArgumentError, RefusedError
from onnx_fc2conv.files.reading import load
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.graphs.cost import multiply_adds
from onnx_fc2conv.graphs.shapes import shapes_at
from onnx_fc2conv.pipeline import Conversion, convert
from onnx_fc2conv.runtime.session import runtime_version
from onnx_fc2conv.scanning.tiles import TilePlan, plan_tiles
from onnx_fc2conv.views import Pool

__all__ = ["bench"]

_NATIVE_BATCHES = (1, 64)
_SINGLES = 32
_TILES = 4
"""The number of tiles, at least, in which an image is measured."""

_BATCHED = 4
"""Batches of crops run for one measurement; their rate is taken as the rate of all."""


def bench(  # noqa: PLR0913 - options, all keyword-only
    model: str | os.PathLike[str],
    sizes: Sequence[tuple[int, ...]],
    *,
    stride: int | tuple[int, ...] | None = None,
    pool: Pool = "keep",
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 64,
    repeats: int = 5,
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Convert a model and measure it.

    Every model runs in a process of its own, in turns with the others. Crops are cut out of the
    image as part of what is measured.

    Args:
        model: File of a classifier.
        sizes: Spatial sizes of the images.
        stride: As in `convert`.
        pool: As in `convert`.
        input_shapes: As in `convert`.
        batch: Crops in a batch, where the model takes any number.
        repeats: Measured runs.
        threads: Threads within an operator; 0 leaves that to onnxruntime.
        progress: Called with the current step.

    Raises:
        ArgumentError: If an image is smaller than a window, or the model has several inputs or
            gives no map of windows.
        RefusedError: If the model cannot be converted.
        Fc2ConvError: If a model does not run.
    """
    began = _load_average()
    progress("Converting")
    source = load(model)
    conversion = convert(source, input_shapes=input_shapes, stride=stride, pool=pool)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        subject = _Subject.of(os.fspath(model), source, conversion, Path(folder), threads, batch)
        results = tuple(subject.at(size, repeats, progress) for size in sizes)
        latencies = [
            subject.native(count, repeats, progress)
            for count in _NATIVE_BATCHES
            if subject.fixed_batch in (None, count)
        ]
    averages = (began, _load_average())
    return BenchReport(os.fspath(model), runtime_version(), threads, averages, results, latencies)


def _load_average() -> float | None:
    if sys.platform == "win32":
        return None
    return os.getloadavg()[0]


@dataclass(frozen=True, eq=False)
class _Subject:
    """The two models.

    Attributes:
        file: File of the original.
        source: The original.
        converted: The converted model.
        dense_file: Its file.
        meaning: Geometry of its map.
        channels: Channels of the image.
        dtype: Type of the image.
        fixed_batch: Number of images that the original takes, if it takes no other.
        threads: Threads within an operator.
        batch: Crops in a batch.
    """

    file: str
    source: ir.Model
    converted: ir.Model
    dense_file: str
    meaning: Geometry
    channels: int
    dtype: str
    fixed_batch: int | None
    threads: int
    batch: int

    @classmethod
    def of(  # noqa: PLR0913 - what it is made of
        cls,
        file: str,
        source: ir.Model,
        conversion: Conversion,
        folder: Path,
        threads: int,
        batch: int,
    ) -> _Subject:
        assert conversion.model is not None
        inputs, meanings = conversion.after.inputs if conversion.after else {}, conversion.geometry
        meaning = next((m for m in meanings.values() if 0 not in m.stride), None)
        if meaning is None:
            raise ArgumentError("no output is a map of windows: try --pool window")
        shape = inputs[meaning.input]
        channels = shape[1] if len(shape) == 2 + len(meaning.window) else None
        if len(inputs) > 1 or not isinstance(channels, int):
            raise ArgumentError("a benchmark takes one image input [N, C, *spatial], no others")
        dense = folder / "dense.onnx"
        ir.save(conversion.model, dense, external_data="dense.data")
        (value,) = (v for v in conversion.model.graph.inputs if v.name == meaning.input)
        dtype = np.dtype((value.dtype or ir.DataType.FLOAT).numpy()).name
        first = conversion.before.inputs[meaning.input][0]
        fixed = first if isinstance(first, int) else None
        return cls(
            file,
            source,
            conversion.model,
            str(dense),
            meaning,
            channels,
            dtype,
            fixed,
            threads,
            fixed or batch,
        )

    def at(self, size: tuple[int, ...], repeats: int, say: Callable[[str], None]) -> SizeResult:
        """Measure one image size."""
        window, stride = self.meaning.window, self.meaning.stride
        text = "×".join(map(str, size))
        if len(size) != len(window) or any(a < b for a, b in zip(size, window, strict=True)):
            raise ArgumentError(f"an image of {text} holds no window of {self.meaning.window_text}")
        grid = [(a - w) // s + 1 for a, w, s in zip(size, window, stride, strict=True)]
        count, shape = prod(grid), (1, self.channels, *size)
        single = self.fixed_batch or 1
        several, few = (self._corners(grid, most) for most in (self.batch * _BATCHED, _SINGLES))
        tiles = self._tiles(size)
        tasks = {
            "dense pass": self._task(self.dense_file, shape),
            "batched crops": self._crops(shape, several, self.batch),
            "crops one by one": self._crops(shape, few, single),
        }
        if tiles is not None:
            corners = tuple((r.start, c.start) for r, c in (tile.pixels for tile in tiles))
            tasks["tiles"] = replace(
                tasks["dense pass"], window=tiles.tile_size, corners=corners, batch=1
            )
        timings = measure(tasks, repeats, lambda step: say(f"{text}: {step}"))
        name = self.meaning.input
        crops = shapes_at(self.source, {name: (single, self.channels, *window)})
        per_run = multiply_adds(self.source, crops)
        return SizeResult(
            size,
            stride,
            count,
            timings["dense pass"],
            timings["batched crops"],
            timings["crops one by one"],
            timings.get("tiles"),
            None if tiles is None else tiles.tile_size,
            self.batch,
            multiply_adds(self.converted, shapes_at(self.converted, {name: shape})),
            None if per_run is None else per_run // single,
        )

    def _tiles(self, size: tuple[int, ...]) -> TilePlan | None:
        """Plan tiles of a quarter of an image at most; None if one holds it or it is not 2-D."""
        if len(size) != 2:
            return None
        try:
            plan = plan_tiles(self.meaning, (size[0], size[1]), prod(size) // _TILES)
        except (ArgumentError, RefusedError):  # no tile is so small, or there can be none
            return None
        return plan if len(plan) > 1 else None

    def native(self, count: int, repeats: int, say: Callable[[str], None]) -> Latency:
        """Measure both models at the native size."""
        shape = (count, self.channels, *self.meaning.window)
        tasks = {
            "original": self._task(self.file, shape),
            "converted": self._task(self.dense_file, shape),
        }
        timings = measure(tasks, repeats, lambda step: say(f"native, batch {count}: {step}"))
        return Latency(count, timings["original"], timings["converted"])

    def _task(self, file: str, shape: tuple[int, ...]) -> Task:
        return Task(file, shape, self.dtype, self.threads)

    def _crops(
        self, shape: tuple[int, ...], corners: tuple[tuple[int, ...], ...], batch: int
    ) -> Task:
        window = self.meaning.window
        return Task(self.file, shape, self.dtype, self.threads, window, corners, batch)

    def _corners(self, grid: Sequence[int], most: int) -> tuple[tuple[int, ...], ...]:
        """Return first pixels of windows, at most ``most``, spread over the image."""
        count, strides = prod(grid), self.meaning.stride
        chosen = np.linspace(0, count - 1, min(most, count)).astype(np.int64)
        cells = np.stack(np.unravel_index(chosen, tuple(grid)), axis=1) * np.array(strides)
        return tuple(tuple(map(int, corner)) for corner in cells)
