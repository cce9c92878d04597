"""The window of a sliding layer at one input size: which positions each output cell reads."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from onnx_fc2conv.geometry.cell_count import output_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from onnx_fc2conv.geometry.receptive_field import AxisField

__all__ = ["NoCell", "SlidingWindow"]


class NoCell(ValueError):  # noqa: N818 - an outcome that the caller turns into a refusal
    """A sliding layer has no output at this size."""


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Hyperparameters of a Conv or pooling at one input size, one entry per spatial axis.

    Attributes:
        extent: Size of the input.
        kernel: Size of the kernel.
        strides: Steps between windows.
        dilations: Steps between the elements of a window.
        begins: Padding before the input.
        ends: Padding after it; negative where the last windows end before the input does.
    """

    extent: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def resolve(  # noqa: PLR0913 - the operator's own attributes
        cls,
        extent: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        auto_pad: str = "NOTSET",
        *,
        ceil_mode: bool = False,
    ) -> SlidingWindow:
        """Resolve the operator's attributes at this size (Conv-1/11/22, AveragePool-1 to 22).

        Raises:
            NoCell: If the kernel is larger than the padded input.
            ValueError: If they contradict each other; the message says why.
        """
        rank = len(extent)
        strides = tuple(strides or (1,) * rank)
        dilations = tuple(dilations or (1,) * rank)
        pads = tuple(pads or (0,) * (2 * rank))
        if not (len(kernel) == len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
            raise ValueError(f"its kernel, strides, dilations or pads are not for {rank} axes")
        if min((*kernel, *strides, *dilations), default=1) < 1:
            raise ValueError("it has a kernel, stride or dilation below 1")
        begins, ends = list(pads[:rank]), list(pads[rank:])
        if auto_pad != "NOTSET":
            begins, ends = [0] * rank, [0] * rank
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            for axis, length in enumerate(extent):
                span = (kernel[axis] - 1) * dilations[axis] + 1
                total = max(0, (-(-length // strides[axis]) - 1) * strides[axis] + span - length)
                halves = (total // 2, total - total // 2)
                begins[axis], ends[axis] = halves if auto_pad == "SAME_UPPER" else halves[::-1]
        elif auto_pad not in ("NOTSET", "VALID"):
            raise ValueError(f"it has auto_pad {auto_pad!r}")
        if ceil_mode:
            for axis, length in enumerate(extent):
                span = (kernel[axis] - 1) * dilations[axis] + 1
                whole = length + begins[axis]
                cells = -(-(whole + ends[axis] - span) // strides[axis]) + 1
                if (cells - 1) * strides[axis] >= whole:  # it would start in the end padding
                    cells -= 1
                ends[axis] = max(ends[axis], (cells - 1) * strides[axis] + span - whole)
        window = cls(tuple(extent), tuple(kernel), strides, dilations, tuple(begins), tuple(ends))
        if min(window.output_extent, default=1) < 1:
            raise NoCell(f"its kernel {list(kernel)} does not fit an input of {list(extent)}")
        return window

    @property
    def axes(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """Kernel, stride, dilation, leading and end padding of each axis."""
        along = (self.kernel, self.strides, self.dilations, self.begins, self.ends)
        return tuple(zip(*along, strict=True))

    @property
    def pads(self) -> tuple[int, ...]:
        """The padding as the operators have it: all before the input, then all after it."""
        return (*self.begins, *self.ends)

    @property
    def output_extent(self) -> tuple[int, ...]:
        """Size of the output."""
        return tuple(
            output_length(length, kernel, stride, dilation, begin + end)
            for length, (kernel, stride, dilation, begin, end) in zip(
                self.extent, self.axes, strict=True
            )
        )

    def slide(self, field: Sequence[AxisField]) -> tuple[AxisField, ...]:
        """The receptive field of the output, per axis, from that of the input."""
        return tuple(of_axis.slide(*axis) for of_axis, axis in zip(field, self.axes, strict=True))

    def positions(self) -> npt.NDArray[np.int64]:
        """The index map of the patches (Ma & Lu 2017, eq. 8), over row-major positions.

        Returns:
            int64 [output positions, kernel positions]: which input position element k of the
            window of cell o is, or the number of input positions where it is padding.
        """
        rank = len(self.extent)
        flat = np.zeros((1,) * (2 * rank), np.int64)
        inside = np.ones((1,) * (2 * rank), bool)
        for axis, cells in enumerate(self.output_extent):
            steps = np.arange(cells)[:, None] * self.strides[axis] - self.begins[axis]
            along = steps + np.arange(self.kernel[axis])[None, :] * self.dilations[axis]
            shape = [1] * (2 * rank)
            shape[axis], shape[rank + axis] = along.shape
            along = along.reshape(shape)
            flat = flat * self.extent[axis] + along
            inside = inside & (along >= 0) & (along < self.extent[axis])
        found = np.where(inside, flat, prod(self.extent))
        return found.reshape(prod(self.output_extent), prod(self.kernel))
