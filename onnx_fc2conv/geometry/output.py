"""The geometry of an output: from cells of the map to pixels of the image, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from onnx_fc2conv.geometry.verdict import (
    CleanCells,
    ReceptiveField,
    SizeRule,
    TileCells,
    Verdict,
)

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """How the cells of one output map lie over the image.

    Along an axis of a stride s > 0, an image of length L gives floor((L - window + remainder) / s)
    + cells cells. (Floors of quotients compose; Dumoulin & Visin 2016, arXiv 1603.07285,
    relationship 6, layer after layer.)

    Attributes:
        input: Name of the image input that the windows are cut from.
        window: Native spatial size of that input, in pixels, one entry per axis.
        stride: Distance between neighboring windows, in pixels; 0 where the output has one cell
            whatever the size of the image.
        offset: First pixel of the window of cell 0.
        verdict: How the cells relate to the original model on crops.
        why: One sentence that explains the verdict, naming the layers that decided.
        receptive_field: The pixels that can change a cell; None if all of the image can.
        cells: Number of cells that one window gives: 1, but for an output that is a feature map of
            the original already.
        remainder: Pixels at the end of a window that the strides leave over: a last window may
            exceed the image by so many.
        sizes: The sizes of the image at which the model computes.
        tile_cells: The cells of a tile that equal those of the whole image; None if all of the
            image can change a cell.
        clean_cells: The cells of a window that see no padding; None where the whole image is seen.
        padded_layers: The layers that pad, by operator and name.
        reduction: ``mean`` or ``max`` if the output is reduced over all windows; else None.
    """

    input: str
    window: tuple[int, ...]
    stride: tuple[int, ...]
    offset: tuple[int, ...]
    verdict: Verdict
    why: str
    receptive_field: ReceptiveField | None
    cells: tuple[int, ...]
    remainder: tuple[int, ...]
    sizes: tuple[SizeRule, ...]
    tile_cells: TileCells | None = None
    clean_cells: CleanCells | None = None
    padded_layers: tuple[str, ...] = ()
    reduction: Literal["mean", "max"] | None = None

    @property
    def windows_exact(self) -> bool:
        """Whether cell p equals the original model on the crop at offset + p·stride.

        For every cell and every input size.
        """
        return self.verdict == "windows exact"

    def cell_to_window(self, cell: Sequence[int]) -> tuple[slice, ...]:
        """Return the pixels of a cell's crop, per axis: ``image[:, :, *window]``.

        A last window may exceed the image, by `remainder` pixels at most.

        Args:
            cell: Position in the map, per axis, from 0.

        Raises:
            ValueError: If the output has no cell for each window, or the position is not valid.
        """
        self._demand_windows()
        self._demand_rank(cell, "cell")
        if min(cell, default=0) < 0:
            raise ValueError(f"cell {tuple(cell)} has a negative position")
        starts = (o + i * s for o, i, s in zip(self.offset, cell, self.stride, strict=True))
        return tuple(
            slice(start, start + length) for start, length in zip(starts, self.window, strict=True)
        )

    def window_to_cells(
        self,
        box: Sequence[slice],
        *,
        partly: bool = False,
        input_size: Sequence[int] | None = None,
    ) -> tuple[slice, ...]:
        """Return the cells whose windows lie in a box of pixels: ``scores[:, :, *cells]``.

        Args:
            box: First pixel, and one past the last, per axis (a slice without step; a missing start
                is 0).
            partly: Whether it is enough that a window has a pixel in common with the box.
            input_size: Spatial size of the image: cells that it does not have are left out.

        Returns:
            Per axis the cells i with start <= offset + i·stride and offset + i·stride + window <=
            stop; if ``partly``, with offset + i·stride + window > start and offset + i·stride <
            stop. The slice is empty where there is none.

        Raises:
            ValueError: If the output has no cell for each window, or the box is not valid.
        """
        self._demand_windows()
        self._demand_rank(box, "box")
        counts = None if input_size is None else self.output_size(input_size)
        found: list[slice] = []
        for axis, (side, step, length) in enumerate(
            zip(box, self.stride, self.window, strict=True)
        ):
            if side.stop is None or side.step not in (None, 1):
                raise ValueError(f"{side} is not from a first pixel to a last one")
            begin = (side.start or 0) - self.offset[axis]
            end = side.stop - self.offset[axis]
            first, last = (begin - length + 1, end - 1) if partly else (begin, end - length)
            low, high = max(0, -(-first // step)), last // step + 1
            if counts is not None:
                high = min(high, counts[axis])
            found.append(slice(low, max(low, high) if end > begin else low))
        return tuple(found)

    @property
    def size_step(self) -> tuple[int, ...] | None:
        """A step in pixels: the model runs at the window's size plus multiples of it.

        None if it runs at every size. It may run at sizes between: `sizes` has all of them.
        """
        if all(rule.modulo == 1 for rule in self.sizes):
            return None
        return tuple(rule.modulo for rule in self.sizes)

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Number of cells of the map, per axis, for an image of this spatial size in pixels.

        Raises:
            ValueError: If the image is smaller than a window, or the model does not compute at
                this size.
        """
        self._demand_rank(input_size, "input size")
        if self.verdict == "misaligned":
            raise ValueError(f"the output has no cell for each window: {self.why}")
        if any(length < own for length, own in zip(input_size, self.window, strict=True)):
            size = "×".join(map(str, input_size))
            raise ValueError(f"an image of {size} pixels is smaller than {self.window_text}")
        for length, own, rule in zip(input_size, self.window, self.sizes, strict=True):
            if (length - own) % rule.modulo not in rule.remainders:
                rest = " or ".join(str((own + r) % rule.modulo) for r in rule.remainders)
                raise ValueError(
                    f"a length of {length} pixels leaves branches of the model with different "
                    f"numbers of cells; it must leave {rest} when divided by {rule.modulo}"
                )
        return tuple(
            own + ((length - window + rest) // step if step else 0)
            for length, window, step, own, rest in zip(
                input_size, self.window, self.stride, self.cells, self.remainder, strict=True
            )
        )

    def reduced(self, how: Literal["mean", "max"]) -> Geometry:
        """Return the geometry of the mean or maximum of the map over all positions."""
        if 0 in self.stride:
            return self
        windows = f"{self.window_text} windows at stride {'×'.join(map(str, self.stride))}"
        what = "mean" if how == "mean" else "maximum"
        return replace(
            self,
            stride=(0,) * len(self.stride),
            verdict="whole image",
            why=f"it is the {what} over all {windows} (--reduce {how}); {self.why}",
            receptive_field=None,
            tile_cells=None,
            remainder=(0,) * len(self.stride),
            reduction=how,
        )

    def as_dict(self) -> dict[str, object]:
        """Return the form used in reports and in models, as `docs/geometry.md` describes it."""
        values: dict[str, object] = {
            "input": self.input,
            "window": list(self.window),
            "stride": list(self.stride),
            "offset": list(self.offset),
            "verdict": self.verdict,
            "windows_exact": self.windows_exact,
            "why": self.why,
            "receptive_field": _plain(self.receptive_field),
            "cells": list(self.cells),
            "remainder": list(self.remainder),
            "sizes": [_plain(rule) for rule in self.sizes],
            "tile_cells": _plain(self.tile_cells),
            "clean_cells": _plain(self.clean_cells),
            "padded_layers": list(self.padded_layers),
        }
        return values if self.reduction is None else values | {"reduction": self.reduction}

    @property
    def window_text(self) -> str:
        """The window's size as people write it: 224×224."""
        return "×".join(map(str, self.window))

    def _demand_windows(self) -> None:
        if 0 in self.stride or self.verdict == "misaligned" or set(self.cells) != {1}:
            raise ValueError(f"the output has no cell for each window: {self.why}")

    def _demand_rank(self, given: Sequence[object], what: str) -> None:
        if len(given) != len(self.window):
            raise ValueError(f"{what} {tuple(given)} does not have {len(self.window)} axes")


def _plain(
    value: ReceptiveField | CleanCells | SizeRule | TileCells | None,
) -> dict[str, object] | None:
    """The fields as JSON has them; None stays."""
    if value is None:
        return None
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items()}
