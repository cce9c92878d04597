"""Advice on refusals, printed below them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnx_fc2conv.hints import what_to_do

if TYPE_CHECKING:
    from onnx_fc2conv.cli.console import Terminal
    from onnx_fc2conv.files.reading import ModelSource
    from onnx_fc2conv.pipeline import Conversion

__all__ = ["explain_refusals"]


def explain_refusals(
    terminal: Terminal,
    planned: Conversion,
    source: ModelSource,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    static: bool,
) -> None:
    """Print the refusals, the hint for each code, and what ``--static`` would make of the model.

    Args:
        terminal: The terminal; its standard error is used.
        planned: The conversion that was refused, if one was.
        source: The model.
        shapes: Native shapes of its inputs.
        static: Whether the refused conversion was a static one.
    """
    from onnx_fc2conv.pipeline import inspect  # noqa: PLC0415 - lazy: --help must be quick

    terminal.refusals(planned.refusals)
    for line in what_to_do(planned.refusals):
        terminal.error(line)
    if static or not planned.refusals:
        return
    kept = inspect(source, input_shapes=shapes, static=True)
    if kept.heads and not kept.refusals:
        layers = len(kept.heads) + len(kept.left_alone)
        terminal.error(
            f"--static would convert {len(kept.heads)} of {layers} fully connected layers"
        )
