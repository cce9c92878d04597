"""Every refusal: its code, what it names, and that its hint helps."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from onnx_fc2conv import RefusedError, check
from onnx_fc2conv.hints import HINTS
from tests.oracle import converted_model
from tests.refused_models import REFUSED

ROOT = Path(__file__).parents[1]
NAMES = {
    "static": "--static",
    "pool": "--pool window",
    "input_shapes": "--input-shape",
    "form": "--form im2col",
}


def test_every_code_has_a_case() -> None:
    scans = {"no-map", "tiles-of-whole-image"}  # tests/scanning has these
    assert set(REFUSED) == set(HINTS) - scans


def test_the_catalog_shows_the_hints() -> None:
    text = (ROOT / "docs" / "refusals.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| .+ \| (.+) \|$", text, re.MULTILINE)
    assert dict(rows) == dict(HINTS)


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_refusal(code: str) -> None:
    case = REFUSED[code]
    with pytest.raises(RefusedError) as error:
        case.rewrite(case.model(), **case.options)
    first = error.value.refusals[0]
    assert first.code == code, first
    assert first.node == case.node
    for part in case.reason:
        assert part in first.reason


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_hint(code: str) -> None:
    """The converted model is equivalent, by the options that the hint names or a mended model."""
    case = REFUSED[code]
    if callable(case.hint):
        model, options = case.hint(), dict(case.options)
    else:
        model, options = case.model(), dict(case.hint)
        for option in options:
            assert NAMES[option] in HINTS[code]
    conversion = case.rewrite(model, **options)
    shapes = options.get("input_shapes", {})
    with warnings.catch_warnings():
        report = check(
            model,
            converted_model(conversion),
            geometry=getattr(conversion, "geometry", None),
            input_shapes=shapes,
        )
    assert report, report.failures
