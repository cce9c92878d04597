"""Tier *feature windows*: every cell of a map is the original head on a window of the feature map.

At larger input sizes, cell p of the converted output equals the original head on the window of the
feature map at p that has the native extent. Every right conversion does that. The feature maps
themselves are compared too: the original's trunk runs on images of any size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches, to_reference_shape
from onnx_fc2conv.equivalence.running.larger import (
    Enlarged,
    cells,
    chosen_cells,
    enlarged,
    head_steps,
    sizes_text,
    take,
    windows,
)
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.head_inputs import head_inputs, head_model
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.equivalence.tracing.trunk import SizeDependent, free_trunk
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_feature_windows"]

_CHUNK = 1 << 26
"""Bytes of windows that are run at once."""

_KINDS = ("image-like", "normal", "uniform")


def check_feature_windows(
    pair: Pair,
    strides: Mapping[str, Sequence[int]],
    whole: Collection[str] = (),
    reduced: Mapping[str, str] | None = None,
) -> list[TierResult]:
    """Compare every cell of every converted output with the original head on its window.

    Args:
        pair: The models.
        strides: By input, the distance in pixels between neighboring cells per growing axis; it
            decides how large the images are, nothing else.
        whole: The outputs that have one cell for the whole image, whatever its size.
        reduced: By output, whether it is the ``mean`` or ``max`` over all windows.
    """
    results: list[TierResult] = []
    for output in pair.reference.graph.outputs:
        how = (reduced or {}).get(output.name or "")
        results.extend(_FeatureWindows(pair, output, strides, whole, how).check())
    return results


class _FeatureWindows:
    """The feature windows of one output.

    One model after the other runs on all images: two large ones are not in memory together.
    """

    tier = "feature windows"

    def __init__(
        self,
        pair: Pair,
        output: ir.Value,
        strides: Mapping[str, Sequence[int]],
        whole: Collection[str],
        reduction: str | None,
    ) -> None:
        self.pair = pair
        self.output = output.name or ""
        self.strides = strides
        self.whole = self.output in whole
        self.reduction = reduction
        self.steps: tuple[int, ...] | None = None
        self.read = head_inputs(pair, pair.reference, output, pair.shared)
        # On the whole map, the size of another tensor is not that of a window.
        self.frontier = (*self.read.maps, *(self.read.sized if self.whole else ()))

    def check(self) -> list[TierResult]:
        if not any(self.pair.growing.values()):
            return [self._result("skipped", "the converted model takes the native size only")]
        if self.output in self.pair.missing:
            return [self._result("failed", "the converted model has no such output")]
        growing = {name for name, axes in self.pair.growing.items() if axes}
        if not self.frontier:
            return [self._result("skipped", "it does not depend on the inputs")]
        if growing.intersection(self.frontier) and self._has_trunk:
            why = "the models compute no feature map alike: see the image windows"
            return [self._result("skipped", why)]
        trunk = self.pair.comparison(self.output)
        try:
            images = list(enlarged(self.pair, self.strides, self.pair.kinds_of(_KINDS)))
            got = self._run_converted([self._native_feeds, *(image.feeds for image in images)])
            self._compare_native_trunk(got[0], trunk)
            if not trunk.passed:
                return [as_result(self.tier, self.output, trunk, "the feature maps at native size")]
            return self._larger(images, got[1:], trunk)
        except (RunError, SizeDependent, ValueError) as error:
            return [self._result("failed", str(error))]

    def _larger(
        self, images: Sequence[Enlarged], got: Sequence[dict[str, AnyArray]], trunk: Comparison
    ) -> list[TierResult]:
        comparisons = {name: self.pair.comparison(name) for name in self.names}
        arrays: dict[str, list[Arrays]] = {name: [] for name in self.names}
        count = 0
        self._compare_trunk(images, got, trunk)
        if self.output not in self.frontier:
            for image, found in zip(images, got, strict=True):
                count += self._compare(image, found, comparisons, arrays)
        self.pair.compare(comparisons, arrays)
        maps = ", ".join(f"{name} {list(self._extent(name))}" for name in self.frontier)
        if self.output in self.frontier or not trunk.passed:
            what = f"{maps} at {sizes_text(self.pair)}, as the original computes it"
            return [as_result(self.tier, self.output, trunk, what)]
        if not count and not any(c.problems for c in comparisons.values()):
            what = f"{maps} at {sizes_text(self.pair)}, as the original computes it"
            why = "one cell, which the original head computes at the native size only"
            before = as_result(self.tier, f"maps before {self.output}", trunk, what)
            return [before, self._result("skipped", why)]
        window = "all" if self.whole else "its window"
        what = f"{count} cells at {sizes_text(self.pair)}, each the head on {window} of {maps}"
        if self.reduction is not None:
            what = f"the {self.reduction} over {what}"
        if self.pair.moved:
            what += (
                " (compared at the native size only: the original's trunk has its size written in)"
            )
        return [
            as_result(self.tier, self.pair.subject(name), comparison, what)
            for name, comparison in comparisons.items()
        ]

    @cached_property
    def names(self) -> dict[str, str]:
        """The compared tensors: converted names by reference names."""
        logits = self.pair.logits.get(self.output)
        return {self.output: self.output} | (dict([logits]) if logits is not None else {})

    def _run_converted(self, feeds: Sequence[Mapping[str, AnyArray]]) -> list[dict[str, AnyArray]]:
        """Outputs and feature maps of the converted model, by the names of the reference."""
        wanted = self.names | {name: self.pair.shared[name] for name in self.frontier}
        own = list(dict.fromkeys(wanted.values()))
        converted = self.pair.session(with_outputs(self.pair.converted, own))
        found: list[dict[str, AnyArray]] = []
        for one in feeds:
            got = converted.run(one, own)
            found.append({name: got[own] for name, own in wanted.items()})
        return found

    @cached_property
    def _has_trunk(self) -> bool:
        """Whether some stride is not 1, so that image and map have different grids."""
        return any(step != 1 for steps in self.strides.values() for step in steps)

    @cached_property
    def head(self) -> Session:
        """The original head: from the feature maps to the output."""
        types = {name: ir.DataType.from_numpy(a.dtype) for name, a in self._native_maps.items()}
        sized = {} if self.whole else self.read.sized
        return self.pair.session(head_model(self.pair.reference, types, sized, self.names))

    @cached_property
    def _native_maps(self) -> dict[str, AnyArray]:
        """The feature maps of the reference at the native size and its own batch size."""
        model = with_outputs(self.pair.reference, self.frontier)
        return self.pair.session(model).run(self._native_feeds, self.frontier)

    @cached_property
    def _native_feeds(self) -> dict[str, AnyArray]:
        shapes = self.pair.batched(self.pair.fixed_batch or 1)
        return sample(
            self.pair.inputs, shapes, self.pair.kinds_of(("normal",))[0], self.pair.rng(3)
        )

    def _extent(self, name: str) -> tuple[int, ...]:
        return self._native_maps[name].shape[1:]

    def _compare_native_trunk(self, got: Mapping[str, AnyArray], comparison: Comparison) -> None:
        """Compare the shared tensors at the native size."""
        for name in self.frontier:
            native = self._native_maps[name]
            comparison.add(name, native, to_reference_shape(got[name], native.shape))

    def _compare_trunk(
        self,
        images: Sequence[Enlarged],
        got: Sequence[Mapping[str, AnyArray]],
        comparison: Comparison,
    ) -> None:
        """Compare the feature maps with those of the original's trunk on the larger images.

        A trunk in which the original moves data in its own way (a channel shuffle by reshapes of a
        fixed size) cannot be run at another size.
        """
        if self.pair.moved:
            return
        trunk = self.pair.session(free_trunk(self.pair, self.frontier))
        for image, found in zip(images, got, strict=True):
            feeds = {name: image.feeds[name] for name in self.pair.native}
            expected = trunk.run(feeds, self.frontier)
            for name in self.frontier:
                shaped = to_reference_shape(found[name], expected[name].shape)
                comparison.add(f"{name} at {image}", expected[name], shaped)

    def _compare(
        self,
        image: Enlarged,
        got: Mapping[str, AnyArray],
        comparisons: Mapping[str, Comparison],
        arrays: Mapping[str, list[Arrays]],
    ) -> int:
        """Collect the arrays to compare at one size; return the number of cells."""
        maps = {
            name: to_reference_shape(got[name], (image.batch, *self._extent(name)))
            for name in self.frontier
        }
        grid = self._grid(maps, image.batch)
        single = self.whole or self.reduction is not None
        if self.steps is None:  # at the first size
            self.steps = () if single else head_steps(grid, got[self.output].shape)
        steps = self.steps
        if len(steps) == len(grid):
            grid = tuple(-(-many // step) for many, step in zip(grid, steps, strict=True))
        count = int(np.prod(grid))
        own = () if single else grid
        chosen = None if single else chosen_cells(self.pair, count)
        dense = {name: cells(got[name], image.batch, own) for name in self.names}
        for name, found in dense.items():
            if found is None:
                comparisons[name].problems.append(
                    f"at {image} the output has shape {list(got[name].shape)}, for "
                    f"{'×'.join(map(str, grid))} windows"
                )
        if self.whole:
            expected = self._head_on_all(maps, image.batch)
        else:
            cut = {
                name: take(windows(array, self._extent(name), count, steps), image.batch, chosen)
                for name, array in maps.items()
            }
            count = count if chosen is None else len(chosen)
            expected = self._run_head(cut, count * image.batch)
        if self.reduction is not None:
            over = np.mean if self.reduction == "mean" else np.max
            expected = {
                name: over(rows.reshape(image.batch, count, -1), axis=1)
                for name, rows in expected.items()
            }
        for name, found in dense.items():
            if found is not None and name in expected:
                compared = take(found, image.batch, chosen)
                rows = expected[name].reshape(len(compared), -1)
                arrays[name].append((f"{image} cell", rows, compared))
        return count * image.batch if expected else 0

    def _head_on_all(self, maps: Mapping[str, AnyArray], batch: int) -> dict[str, AnyArray]:
        """Run the original head on a whole larger map; empty if it takes the native size only."""
        try:
            expected = self._run_head(maps, batch)
        except (RunError, ValueError):
            return {}
        own = self.head.run(self._native_maps, list(self.names))
        native = self.pair.fixed_batch or 1
        fits = all(own[n].size * batch == expected[n].size * native for n in self.names)
        return expected if fits else {}

    def _grid(self, maps: Mapping[str, AnyArray], batch: int) -> tuple[int, ...]:
        """Return the number of windows along each axis that grew."""
        grids: set[tuple[int, ...]] = set()
        for name, array in maps.items():
            extent = self._extent(name)
            if array.ndim != 1 + len(extent) or array.shape[0] != batch:
                raise RunError(f"{name} has shape {list(array.shape)} for {batch} images")
            pairs = list(zip(array.shape[1:], extent, strict=True))
            if any(large < native for large, native in pairs):
                raise RunError(f"{name} shrinks to {list(array.shape)} on a larger image")
            grids.add(tuple(large - native + 1 for large, native in pairs if large != native))
        grids.discard(())
        if self.whole and grids:
            return (1,) * max(map(len, grids))
        if len(grids) > 1:
            raise RunError("the output draws on feature maps of several grids")
        return grids.pop() if grids else ()

    def _run_head(self, cut: Mapping[str, AnyArray], count: int) -> dict[str, AnyArray]:
        size = sum(array[:1].nbytes for array in cut.values())
        chunk = max(1, _CHUNK // max(size, 1))
        names = list(self.names)
        parts: list[dict[str, AnyArray]] = []
        for start in range(0, count, chunk):
            feeds = {
                name: np.ascontiguousarray(array[start : start + chunk])
                for name, array in cut.items()
            }
            parts.append(run_in_batches(self.head, feeds, names, self.pair.fixed_batch))
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _result(self, status: Status, why: str) -> TierResult:
        return TierResult(self.tier, self.output, status, why)
