"""Advice on refusals, printed below them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_fc2conv.hints import what_to_do
from onnx_fc2conv.options import Options

if TYPE_CHECKING:
    from onnx_fc2conv.cli.console import Terminal
    from onnx_fc2conv.files.reading import ModelSource
    from onnx_fc2conv.pipeline import Conversion

__all__ = ["explain_refusals"]


def explain_refusals(
    terminal: Terminal,
    planned: Conversion,
    source: ModelSource,
    options: Options,
    *,
    detector: bool = False,
) -> None:
    """Print the refusals, the hint for each code, and what ``--static`` would make of the model.

    Args:
        terminal: The terminal; its standard error is used.
        planned: The conversion that was refused, if one was.
        source: The model.
        options: The options of the conversion.
        detector: Whether a detector was asked for, which static mode does not have.
    """
    from onnx_fc2conv.pipeline import attempt  # noqa: PLC0415 - lazy: --help must be quick

    terminal.refusals(planned.refusals)
    for line in what_to_do(planned.refusals):
        terminal.error(line)
    if options.static or detector or not planned.refusals:
        return
    kept = attempt(source, Options(input_shapes=options.input_shapes, static=True))
    if kept.heads and not kept.refusals:
        layers = len(kept.heads) + len(kept.left_alone)
        terminal.error(
            f"--static would convert {len(kept.heads)} of {layers} fully connected layers"
        )
