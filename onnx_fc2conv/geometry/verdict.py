"""The verdict: what a cell of an output map means in terms of the input image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

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
        reduction: What has been taken over all windows, if one vector an image is what is left.
        size_step: Where the model does not run at any size of the image: it does at the window's
            plus multiples of this, in pixels.
    """

    input: str
    window: tuple[int, ...]
    stride: tuple[int, ...]
    offset: tuple[int, ...]
    windows_exact: bool
    why: str
    reduction: Literal["mean", "max"] | None = None
    size_step: tuple[int, ...] | None = None

    def reduced(self, how: Literal["mean", "max"]) -> OutputGeometry:
        """What is left of a map once its mean or maximum over all positions is taken."""
        if 0 in self.stride:
            return self
        windows = f"{self.window_text} windows at stride {'×'.join(map(str, self.stride))}"
        what = "mean" if how == "mean" else "maximum"
        return replace(
            self,
            stride=(0,) * len(self.stride),
            windows_exact=False,
            why=f"it is the {what} over all {windows} (--reduce {how}); {self.why}",
            reduction=how,
        )

    @property
    def window_text(self) -> str:
        """The window's size as people write it: 224×224."""
        return "×".join(map(str, self.window))

    def as_dict(self) -> dict[str, object]:
        """The form used in reports: tuples become lists."""
        values: dict[str, object] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()
        }
        for name in ("reduction", "size_step"):
            if values[name] is None:
                del values[name]
        return values
