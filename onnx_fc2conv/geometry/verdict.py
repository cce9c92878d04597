"""The verdict: what a cell of an output map means in terms of the input image."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["OutputGeometry"]


@dataclass(frozen=True)
class OutputGeometry:
    """How the cells of one output map lie over the image.

    Attributes:
        input: Name of the image input that the windows are cut from.
        window: Native spatial size of that input, in pixels, one entry per axis.
        stride: Distance between neighboring windows, in pixels; 0 where the output has one cell
            whatever the size of the image.
        offset: First pixel of the window of cell 0.
        windows_exact: Whether cell p equals the original model on the crop at offset + p·stride,
            for every cell and every input size.
        why: One sentence that explains `windows_exact`, naming the layers that decided.
    """

    input: str
    window: tuple[int, ...]
    stride: tuple[int, ...]
    offset: tuple[int, ...]
    windows_exact: bool
    why: str

    def as_dict(self) -> dict[str, object]:
        """The form used in reports: tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
