"""The head of the original on the windows of larger maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.tracing.seam import Seam
from onnx_fc2conv.equivalence.tracing.structure import subgraph, with_outputs
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["WindowedHead"]

_CHUNK = 1 << 26
"""Bytes of windows that are run at once."""


class WindowedHead:
    """What the original computes from its seam on.

    Attributes:
        seam: The tensors that it reads.
    """

    def __init__(self, pair: Pair, model: ir.Model, output: str, seam: Seam) -> None:
        self.seam = seam
        self._pair = pair
        self._model = model
        self._output = output
        self._session: Session | None = None

    def cells(self, made: Sequence[int], maps: Mapping[str, AnyArray]) -> tuple[int, ...]:
        """The windows along each axis that an output of so many cells must have.

        Raises:
            RunError: If the maps have others.
        """
        wanted = tuple(-(-n // fine) for n, fine in zip(made, self.seam.every, strict=True))
        for sliding in self.seam.maps:
            there = sliding.count(maps[sliding.name].shape)
            pairs = list(zip(wanted, there, sliding.steps, strict=True))
            if any(own != most and step == 1 for own, most, step in pairs):
                count = "×".join(map(str, there))
                raise RunError(
                    f"the output has {'×'.join(map(str, made))} cells, for {count} windows of "
                    f"{sliding.name}"
                )
            # What the strides leave over may give a cell whose window is not all on the map.
            wanted = tuple(min(own, most) for own, most, _ in pairs)
        return wanted

    def scores(
        self,
        feeds: Mapping[str, AnyArray],
        maps: Mapping[str, AnyArray],
        cells: Sequence[int],
        chosen: AnyArray | None = None,
    ) -> AnyArray:
        """The output on windows: [batch·windows, numbers of a cell].

        Args:
            feeds: The larger image, and other inputs.
            maps: The maps on it, samples first.
            cells: Number of windows along each axis.
            chosen: Indices of those wanted, row-major; None for all.
        """
        positions = np.arange(prod(cells)) if chosen is None else chosen
        views = {m.name: m.windows(maps[m.name], cells) for m in self.seam.maps}
        rows = len(next(iter(views.values()))) * len(positions)
        size = sum(prod(m.extent) * maps[m.name].dtype.itemsize for m in self.seam.maps)
        chunk = max(1, _CHUNK // max(size, 1))
        parts: list[AnyArray] = []
        for start in range(0, rows, chunk):
            at = np.arange(start, min(start + chunk, rows))
            sample, cell = at // len(positions), positions[at % len(positions)]
            where = (sample, *np.unravel_index(cell, tuple(cells)))
            cut = {name: np.ascontiguousarray(view[where]) for name, view in views.items()}
            for name in self.seam.inputs:
                other = self._pair.repeated(name, feeds[name], len(positions))
                cut[name] = other if other is feeds[name] else other[at]
            for name, blank in self._blanks.items():
                cut[name] = np.zeros((len(at), *blank.shape[1:]), blank.dtype)
            self._session = self._session or self._start(cut)
            made = run_in_batches(self._session, cut, [self._output], self._pair.fixed_batch)
            parts.append(made[self._output].reshape(len(at), -1))
        return np.concatenate(parts)

    def _start(self, feeds: Mapping[str, AnyArray]) -> Session:
        types = {name: ir.DataType.from_numpy(array.dtype) for name, array in feeds.items()}
        return self._pair.session(subgraph(self._model, types, [self._output]))

    @cached_property
    def _blanks(self) -> dict[str, AnyArray]:
        """The tensors whose shape alone is read, at the native size."""
        pair, names = self._pair, self.seam.sized
        shapes = pair.batched(pair.fixed_batch or 1)
        feeds = {i.name: np.zeros(shapes[i.name], i.dtype) for i in pair.inputs}
        inner = [name for name in names if name not in feeds]
        run = pair.session(with_outputs(pair.reference, inner)) if inner else None
        return {n: feeds[n] for n in names if n in feeds} | (run.run(feeds, inner) if run else {})
