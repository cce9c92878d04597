"""The worked example of docs/scan.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scan.md").read_text(encoding="utf-8")
FACE = (175, 65, 100, 110)
"""Her face, by eye: x, y, width, height."""


def test_the_face_of_the_astronaut(page_run: Run) -> None:
    data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image")
    image.fromarray(data.astronaut()).save("astronaut.png")
    (command,) = re.findall(r"^    fc2conv (scan models/face25.*)$", PAGE, re.MULTILINE)
    outcome = page_run(*shlex.split(command))
    assert outcome.code == 0, outcome.err
    (box,) = json.loads(Path("found/boxes.json").read_text())["annotations"]
    assert _overlap(box["bbox"], FACE) >= 0.4
    shown = ROOT / "docs" / "scan_astronaut.png"
    with image.open("found/astronaut.overlay.png") as drawn, image.open(shown) as page:
        assert drawn.size == page.size


def test_the_python_example(page_run: Run) -> None:
    assert page_run is not None
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "scan.md", "exec"), {})
    assert Path("overlay.png").exists()


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    sides = [
        min(one[a] + one[a + 2], other[a] + other[a + 2]) - max(one[a], other[a]) for a in (0, 1)
    ]
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    return common / (one[2] * one[3] + other[2] * other[3] - common)
