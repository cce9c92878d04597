"""Compose pages of handwritten digits, and count what `models/digits_page.onnx` finds on them.

    python tools/digit_page.py write tests/data/digits_page        # .png and its truth, .json
    python tools/digit_page.py measure models/digits_page.onnx     # the table of docs/scan.md

The digits are scikit-learn's, four times as large, black on white, at random places that keep a
distance. The model was trained on 70 % of them (`tools/make_digit_finder.py`); a page shows 64 of
the other 30 %, each once. Needs scikit-learn and Pillow; `measure` needs onnxruntime, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Frame = tuple[float, float, float, float]
"""x, y, width, height in pixels."""

ENLARGED = 4
"""Pixels of a page for one of a digit."""

SIDE = 8 * ENLARGED
SIZE = (560, 800)
"""Height and width of a page."""

ROOMY, TIGHT = 20, 8
"""Blank pixels at least between two digits: so that the boxes' labels can be read, or fewer."""

DIGITS = 64
BACKGROUND = 10
"""The class of a window without a digit in its middle."""


@dataclass(frozen=True)
class Truth:
    """A digit of a page: where it is, what it is, and which of scikit-learn's 1797 it is."""

    frame: Frame
    label: int
    index: int


@dataclass(frozen=True)
class Count:
    """What a scan found: digits, those of them found, and boxes that are none."""

    digits: int
    found: int
    false: int

    @property
    def recall(self) -> float:
        """The part of the digits that a box with the right class shows."""
        return self.found / self.digits

    @property
    def false_boxes(self) -> float:
        """The part of the boxes that show no digit, one of another class, or one once more."""
        return self.false / max(1, self.found + self.false)


def split_indices() -> tuple[list[int], list[int]]:
    """Numbers of the digits for training (1257) and of those held out (540)."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - counting needs no scikit-learn
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    target = load_digits().target
    train, held_out = train_test_split(
        np.arange(len(target)), test_size=0.3, stratify=target, random_state=0
    )
    return train.tolist(), held_out.tolist()


def enlarged_digits() -> tuple[Pixels, list[int]]:
    """scikit-learn's digits [1797, 32, 32], 255 is ink, and what they are."""
    from PIL import Image  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(digit).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for digit in small
    ]
    return np.stack(large), digits.target.tolist()


def free_places(rng: np.random.Generator, distance: int) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of 64 digits: uniform, but for those too near to an earlier one."""
    places: list[tuple[int, int]] = []
    while len(places) < DIGITS:
        y, x = (int(rng.integers(distance, length - SIDE - distance + 1)) for length in SIZE)
        if all(max(abs(y - b), abs(x - a)) >= SIDE + distance for b, a in places):
            places.append((y, x))
    return places


def inked(digits: Iterable[Pixels], places: Iterable[tuple[int, int]]) -> Pixels:
    """The page [560, 800], white with black digits."""
    page = np.full(SIZE, 255, np.uint8)
    for digit, (y, x) in zip(digits, places, strict=True):
        page[y : y + SIDE, x : x + SIDE] = 255 - digit
    return page


def held_out_page(seed: int, distance: int = ROOMY) -> tuple[Pixels, list[Truth]]:
    """A page of 64 different digits that training never sees."""
    rng = np.random.default_rng(seed)
    pixels, labels = enlarged_digits()
    chosen = rng.permutation(split_indices()[1])[:DIGITS].tolist()
    places = free_places(rng, distance)
    truth = [
        Truth((x, y, SIDE, SIDE), labels[index], index)
        for index, (y, x) in zip(chosen, places, strict=True)
    ]
    return inked(pixels[chosen], places), truth


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two frames."""
    sides = [
        min(one[a] + one[a + 2], other[a] + other[a + 2]) - max(one[a], other[a]) for a in (0, 1)
    ]
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def count(boxes: Iterable[tuple[Sequence[float], int]], truth: Iterable[Truth]) -> Count:
    """Compare boxes (frame and class, the best first) with the digits of the page.

    A box shows a digit if its class is the digit's and they overlap by an intersection over union
    of at least 0.5. A digit is found once: a second box on it is a false one.
    """
    missing = list(truth)
    digits, false = len(missing), 0
    for frame, label in boxes:
        shown = [
            each for each in missing if each.label == label and overlap(each.frame, frame) >= 0.5
        ]
        if shown:
            missing.remove(shown[0])
        else:
            false += 1
    return Count(digits, digits - len(missing), false)


def write(page: Pixels, truth: Iterable[Truth], path: Path) -> None:
    """Write the page as PNG and its truth as JSON."""
    from PIL import Image  # noqa: PLC0415

    Image.fromarray(page).save(path.with_suffix(".png"), optimize=True)
    lines = [
        json.dumps({"bbox": each.frame, "category_id": each.label, "index": each.index})
        for each in truth
    ]
    path.with_suffix(".json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def read_truth(path: Path) -> list[Truth]:
    """What `write` wrote."""
    digits: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [Truth(tuple(each["bbox"]), each["category_id"], each["index"]) for each in digits]


def measure(model: Path, seed: int, distance: int) -> Count:
    """Scan a page as docs/scan.md does, and count."""
    from onnx_fc2conv import scan  # noqa: PLC0415 - composing a page needs no onnxruntime

    page, truth = held_out_page(seed, distance)
    found = scan(
        model, page, scales=(1 / ENLARGED,), background=[BACKGROUND], agnostic=True, threshold=0.5
    )
    frames = (((box.x, box.y, box.width, box.height), box.label) for box in found.boxes)
    return count(frames, truth)


def table_line(distance: int, counts: list[Count]) -> str:
    """Markdown: all pages together, and the worst of them."""
    together = Count(*(sum(getattr(each, f.name) for each in counts) for f in fields(Count)))
    return (
        f"| {distance} | {len(counts)} | {together.digits} "
        f"| {together.recall:.2%} | {min(each.recall for each in counts):.1%} "
        f"| {together.false_boxes:.2%} | {max(each.false_boxes for each in counts):.1%} |"
    )


def main() -> None:
    """Write a page, or measure."""
    parser = argparse.ArgumentParser(description="Pages of handwritten digits.")
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="one page and its truth")
    writing.add_argument("path", type=Path, help="without ending: .png and .json are written")
    writing.add_argument("--seed", type=int, default=0)
    measuring = commands.add_parser("measure", help="scan pages of several seeds")
    measuring.add_argument("model", type=Path)
    measuring.add_argument("--pages", type=int, default=30, help="seeds 0, 1, …")
    arguments = parser.parse_args()
    if arguments.command == "write":
        write(*held_out_page(arguments.seed), arguments.path)
        return
    print("| distance | pages | digits | recall | worst page | false boxes | worst page |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for distance in (ROOMY, TIGHT):
        counts = [measure(arguments.model, seed, distance) for seed in range(arguments.pages)]
        print(table_line(distance, counts))


if __name__ == "__main__":
    main()
