"""For the tests of projects that convert, simplify or export models.

>>> from onnx_fc2conv import convert
>>> from onnx_fc2conv.testing import assert_equivalent
>>> model = "models/digits8.onnx"
>>> assert_equivalent(model, convert(model).model, expect="map")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from onnx_fc2conv.equivalence import EquivalenceReport, check
from onnx_fc2conv.equivalence.check import PathLike
from onnx_fc2conv.equivalence.comparing.tolerances import Bounds
from onnx_fc2conv.equivalence.relation import Expect
from onnx_fc2conv.files.reading import ModelSource
from onnx_fc2conv.geometry import Geometry
from onnx_fc2conv.runtime.start import Provider

__all__ = ["CheckOptions", "assert_equivalent"]

_SHOWN = 5


class CheckOptions(TypedDict, total=False):
    """The options of `onnx_fc2conv.check`, which documents them."""

    providers: Sequence[Provider]
    input_shapes: Mapping[str, tuple[int, ...]] | None
    geometry: Mapping[str, Geometry] | None
    expect: Expect | None
    data: Sequence[PathLike]
    sizes: Sequence[tuple[int, ...]]
    max_windows: int | None
    rtol: Bounds
    atol: Bounds
    seed: int


def assert_equivalent(
    reference: ModelSource, converted: ModelSource, **options: Unpack[CheckOptions]
) -> None:
    """Run both models and compare them, as `onnx_fc2conv.check` does.

    Args:
        reference: The original model.
        converted: The model that should compute the same.
        options: Those of `onnx_fc2conv.check`.

    Raises:
        AssertionError: If they are not equivalent; the message names the first differences, each
            with the smallest tolerance that would have passed.
        Fc2ConvError: If they cannot be compared.
    """
    report = check(reference, converted, **options)
    if not report:
        raise AssertionError(_short(report))


def _short(report: EquivalenceReport) -> str:
    """The first failures, one line each."""
    lines = [f"not equivalent ({report.relation.words}; seed {report.seed})"]
    for run in report.runs:
        for result in run.results:
            if result.status == "failed":
                rtol = result.required_rtol
                needed = "" if rtol is None else f" [passes with rtol {rtol:.2g}]"
                where = f"{run.provider}, {result.tier}: {result.subject}"
                lines.append(f"  {where}: {result.detail}{needed}")
    more = len(lines) - 1 - _SHOWN
    if more > 0:
        lines[_SHOWN + 1 :] = [f"  and {more} more"]
    return "\n".join(lines)
