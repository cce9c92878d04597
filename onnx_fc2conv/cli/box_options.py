"""Options that choose which windows become boxes, for scan and convert --detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from onnx_fc2conv.errors import ArgumentError

__all__ = [
    "Agnostic",
    "Background",
    "BoxOptions",
    "Classes",
    "Iou",
    "MapOutput",
    "Thresholds",
    "parse_thresholds",
]

Thresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="[CLASS=]NUMBER",
        help="Lowest score of a box, of all classes or of one (1=0.9); the score is what the "
        "model outputs. Default: 0.5. Repeatable.",
    ),
]
Classes = Annotated[
    list[int] | None,
    typer.Option("--class", metavar="N", help="A class to find. Repeatable. Default: all."),
]
Background = Annotated[
    list[int] | None,
    typer.Option("--background", metavar="N", help="A class not to find. Repeatable."),
]
Iou = Annotated[
    float,
    typer.Option(
        "--iou", min=0, max=1, help="Drop boxes that overlap a better one by more than this."
    ),
]
Agnostic = Annotated[
    bool,
    typer.Option("--agnostic", help="Let boxes of all classes compete, not only of one."),
]
MapOutput = Annotated[
    str | None, typer.Option("--output", help="The output to read, where there are several.")
]


@dataclass(frozen=True)
class BoxOptions:
    """All these options, with their defaults."""

    threshold: list[str] | None = None
    classes: list[int] | None = None
    background: list[int] | None = None
    iou: float = 0.3
    agnostic: bool = False
    output: str | None = None


def parse_thresholds(texts: Sequence[str] | None) -> dict[int | None, float]:
    """``["0.5", "1=0.9"]`` as ``{None: 0.5, 1: 0.9}``; logits may be negative.

    Raises:
        ArgumentError: If one is not written like that.
    """
    found: dict[int | None, float] = {}
    for text in texts or ("0.5",):
        label, equals, number = text.rpartition("=")
        try:
            found[int(label) if equals else None] = float(number)
        except ValueError:
            raise ArgumentError(
                f"--threshold {text!r} is not written like --threshold 0.9 or --threshold 1=0.9"
            ) from None
    return found
