"""The worked example of docs/scan.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tools.digit_page import (
    ROOMY,
    TIGHT,
    Count,
    Truth,
    count,
    held_out_page,
    measure,
    overlap,
    read_truth,
    write,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scan.md").read_text(encoding="utf-8")
DIGITS = ROOT / "tests" / "data" / "digits_page"
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
    assert overlap(box["bbox"], FACE) >= 0.4
    shown = ROOT / "docs" / "scan_astronaut.png"
    with image.open("found/astronaut.overlay.png") as drawn, image.open(shown) as page:
        assert drawn.size == page.size


def test_the_digits_of_a_page(page_run: Run) -> None:
    image = pytest.importorskip("PIL.Image")
    (command,) = re.findall(r"^    fc2conv (scan models/digits_page.*)$", PAGE, re.MULTILINE)
    outcome = page_run(*shlex.split(command))
    assert outcome.code == 0, outcome.err
    boxes = json.loads(Path("digits/boxes.json").read_text())["annotations"]
    truth = read_truth(DIGITS.with_suffix(".json"))
    found = count(((box["bbox"], box["category_id"]) for box in boxes), truth)
    assert found.digits >= 60
    assert found.recall >= 0.95
    assert found.false_boxes <= 0.05
    assert f"{found.found} of the {found.digits} digits" in PAGE
    shown = ROOT / "docs" / "scan_digits.png"
    assert shown.stat().st_size < 200_000
    with image.open("digits/digits_page.overlay.png") as drawn, image.open(shown) as page:
        assert drawn.size == page.size


@pytest.mark.parametrize(("seed", "distance"), [(1, ROOMY), (2, TIGHT)])
def test_the_digits_of_other_pages(seed: int, distance: int) -> None:
    pytest.importorskip("sklearn")
    found = measure(ROOT / "models" / "digits_page.onnx", seed, distance)
    assert found.recall >= 0.95
    assert found.false_boxes <= 0.05


def test_the_page_is_what_the_tool_writes(tmp_path: Path) -> None:
    """From digits that the model was not trained on, each at most once."""
    pytest.importorskip("sklearn")
    image = pytest.importorskip("PIL.Image")
    page, truth = held_out_page(0)
    assert len({each.index for each in truth}) == len(truth)
    write(page, truth, tmp_path / "page")
    assert read_truth(tmp_path / "page.json") == read_truth(DIGITS.with_suffix(".json"))
    with image.open(tmp_path / "page.png") as new, image.open(DIGITS.with_suffix(".png")) as old:
        assert new.tobytes() == old.tobytes()


BOX_COUNTS = {
    "found": ([((9, 11, 40, 40), 3)], Count(1, 1, 0)),
    "another class": ([((9, 11, 40, 40), 5)], Count(1, 0, 1)),
    "beside it": ([((30, 10, 40, 40), 3)], Count(1, 0, 1)),
    "twice": ([((9, 11, 40, 40), 3), ((12, 11, 40, 40), 3)], Count(1, 1, 1)),
    "nothing": ([], Count(1, 0, 0)),
}


@pytest.mark.parametrize(("boxes", "expected"), BOX_COUNTS.values(), ids=BOX_COUNTS.keys())
def test_what_counts_as_found(boxes: list[tuple[tuple[int, ...], int]], expected: Count) -> None:
    assert count(boxes, [Truth((12, 12, 32, 32), 3, index=0)]) == expected


def test_the_python_example(page_run: Run) -> None:
    assert page_run is not None
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "scan.md", "exec"), {})
    assert Path("overlay.png").exists()
