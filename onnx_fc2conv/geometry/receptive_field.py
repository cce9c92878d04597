"""Receptive fields, one spatial axis at a time, in exact integers.

A cell ``i`` of a feature map is computed from the input pixels ``start + i·stride`` up to, not
including, ``start + i·stride + size``. A sliding layer with kernel k, stride s, dilation d and
leading padding p turns (stride S, start t, size r) into

    S' = S·s        t' = t - p·S        r' = r + (k-1)·d·S

(Araujo, Norris, Sim: *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019,
eqs. 1-4, with the start of the field instead of its center, which keeps everything integer).

An image of length L gives floor((L - span) / stride) + 1 cells, where the span of a cell is the
size of its field without the padding at both ends: floors of quotients compose.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm

__all__ = ["AxisField", "Misaligned", "output_length"]


class Misaligned(ValueError):  # noqa: N818 - an outcome that the caller turns into a refusal
    """Two branches meet whose grids have different strides."""


@dataclass(frozen=True, slots=True)
class AxisField:
    """The receptive field of a feature map along one spatial axis, in input pixels.

    Attributes:
        stride: Distance between the fields of neighboring cells; 0 when the single cell sees
            the whole axis (global pooling), whatever its length.
        start: First pixel of cell 0; negative where padding reaches out of the image.
        size: Number of pixels that a cell sees.
        end_pad: Number of pixels by which padding, or the last of several cells that see the same
            pixels, reaches out of the image at its end.
        repeats: Number of cells by which the map shifts when the image shifts by ``repeats`` times
            the stride; a smaller shift of the image gives another map. 1 but for a map whose cells
            have been subdivided.
    """

    stride: int = 1
    start: int = 0
    size: int = 1
    end_pad: int = 0
    repeats: int = 1

    @property
    def span(self) -> int:
        """Length of the shortest image that has a cell; negative if padding alone makes one."""
        return self.start + self.size - self.end_pad

    @property
    def padded(self) -> bool:
        """Whether any layer pads."""
        return self.start < 0 or self.end_pad > 0

    def slide(
        self, kernel: int, stride: int = 1, dilation: int = 1, pad: int = 0, end_pad: int = 0
    ) -> AxisField:
        """The field after a layer with this kernel, stride, dilation, leading and end padding."""
        return AxisField(
            self.stride * stride,
            self.start - pad * self.stride,
            self.size + (kernel - 1) * dilation * self.stride,
            self.end_pad + end_pad * self.stride,
            self.repeats // gcd(self.repeats, stride),
        )

    def spread(self, factor: int) -> AxisField:
        """The field after a layer that makes ``factor`` cells of each; the stride is a multiple.

        Cell i sees what cell floor(i / factor) saw, so the fields of the last ones reach out of
        the image if they are taken to lie one stride apart.
        """
        stride = self.stride // factor
        end_pad = self.end_pad + (factor - 1) * stride
        return AxisField(stride, self.start, self.size, end_pad, self.repeats * factor)

    def pool_globally(self, extent: int) -> AxisField:
        """The field of the only cell of a global pooling over ``extent`` cells."""
        return AxisField(0, self.start, self.size + (extent - 1) * self.stride, self.end_pad)

    def join(self, other: AxisField) -> AxisField:
        """The field of a layer that combines cell i of both branches.

        Raises:
            Misaligned: If both branches slide, with different strides.
        """
        if self.stride != other.stride and 0 not in (self.stride, other.stride):
            raise Misaligned(f"strides {self.stride} and {other.stride}")
        stride = max(self.stride, other.stride)
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        end_pad = end - max(field.span for field in (self, other) if field.stride == stride)
        return AxisField(stride, start, end - start, end_pad, lcm(self.repeats, other.repeats))


def output_length(length: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    """Number of cells of a sliding layer: floor((length + pads - span) / stride) + 1.

    (ONNX Conv-11, MaxPool-12 with ``ceil_mode=0``; Dumoulin & Visin 2016, relationship 6.)
    """
    span = (kernel - 1) * dilation + 1
    return (length + pads - span) // stride + 1
