"""Make `models/digits_page.onnx`: which digit stands in the middle of a window, or none.

    python tools/make_digit_finder.py                  # into models/
    python tools/make_digit_finder.py --out /tmp

`digits8` knows only crops that show one whole digit, and calls anything a digit. To find digits on
a page, a model must have seen what else windows show: paper, digits off the middle, halves of two
neighbors. So this one is trained on windows of pages that are composed of the training digits and
scaled down as `fc2conv scan` does it, with one round of mining for windows that it takes for digits
and that are none. Needs what `make_models.py` needs.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from digit_page import (
    BACKGROUND,
    DIGITS,
    ENLARGED,
    SIDE,
    SIZE,
    TIGHT,
    Pixels,
    enlarged_digits,
    free_places,
    inked,
    split_indices,
)
from make_models import Recipe, export, report_export, slide
from PIL import Image
from torch import Tensor, nn

WINDOW = 10
"""A digit of 8x8 and a pixel around it."""

ON, OFF = 0.75, 1.75
"""Pixels off the middle up to which a window shows a digit, and from which it does not.

Windows between are left to the net: they overlap the digit enough to be right."""

VARIANTS = 8
"""Of each training digit: itself, and seven times turned, sheared and scaled."""

PAGES = 150
"""That windows are taken from in each of the two rounds."""


def finder_net() -> nn.Sequential:
    """[N, 1, 10, 10] -> [N, 11] logits. Unpadded, stride 1, a map of 32 x 4 x 4."""
    return nn.Sequential(
        *(nn.Conv2d(1, 24, 3), nn.ReLU()),  # 8
        *(nn.Conv2d(24, 32, 3), nn.ReLU()),  # 6
        *(nn.Conv2d(32, 32, 3), nn.ReLU()),  # 4
        nn.Flatten(),
        nn.Dropout(0.3),
        *(nn.Linear(32 * 4 * 4, 64), nn.ReLU()),
        nn.Linear(64, BACKGROUND + 1),
    )


# --- Pages to train on ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A page at a quarter of its size [1, 1, 140, 200] and the class of each window [131, 191].

    The class is -1 where a window is neither on a digit nor off it.
    """

    image: Tensor
    labels: Tensor


def distorted(digit: Pixels, rng: np.random.Generator) -> Pixels:
    """The digit, turned, sheared and scaled a little about its middle."""
    turn, shear = rng.normal(0, 0.1, 2)
    across, down = rng.uniform(0.88, 1.12, 2)
    matrix = np.array([[np.cos(turn), shear - np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix *= (across, down)
    middle = np.full(2, SIDE / 2)
    shift = middle - matrix @ middle
    coefficients = [*matrix[0], shift[0], *matrix[1], shift[1]]
    image = Image.fromarray(digit)
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return np.asarray(image.transform(image.size, affine, coefficients, bilinear))


class Composer:
    """Composes pages of the training digits."""

    def __init__(self, seed: int) -> None:
        """Distort the digits."""
        self._rng = np.random.default_rng(seed)
        pixels, labels = enlarged_digits()
        train = split_indices()[0]
        more = [distorted(pixels[i], self._rng) for _ in range(VARIANTS - 1) for i in train]
        self._digits = np.concatenate([pixels[train], np.stack(more)])
        self._labels = np.array(labels)[train * VARIANTS]

    def page(self) -> Page:
        """One page, other than all before."""
        places = free_places(self._rng, TIGHT)
        chosen = self._rng.integers(0, len(self._digits), DIGITS)
        large = Image.fromarray(inked(self._digits[chosen], places))
        small = large.resize((SIZE[1] // ENLARGED, SIZE[0] // ENLARGED), Image.Resampling.BILINEAR)
        image = torch.from_numpy(np.asarray(small, np.float32) / 255)[None, None]
        return Page(image, window_labels(places, self._labels[chosen].tolist()))


def window_labels(places: list[tuple[int, int]], digits: list[int]) -> Tensor:
    """The class of each window of a page at a quarter of its size."""
    rows, columns = (np.arange(length // ENLARGED - WINDOW + 1) for length in SIZE)
    labels = np.full((len(rows), len(columns)), BACKGROUND)
    margin = (WINDOW - SIDE / ENLARGED) / 2
    for (y, x), digit in zip(places, digits, strict=True):
        down = np.abs(rows - (y / ENLARGED - margin))[:, None]
        across = np.abs(columns - (x / ENLARGED - margin))[None]
        off = np.maximum(down, across)
        labels[off < OFF] = -1
        labels[off <= ON] = digit
    return torch.from_numpy(labels)


# --- Windows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Windows [n, 1, 10, 10] and their classes [n]."""

    images: Tensor
    labels: Tensor

    @classmethod
    def at(cls, page: Page, where: Tensor) -> "Windows":
        """Those of a page where the mask `where` [131, 191] is true."""
        everything = page.image[0].unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
        return cls(everything.permute(1, 2, 0, 3, 4)[where], page.labels[where])

    @classmethod
    def joined(cls, parts: list["Windows"]) -> "Windows":
        """All of them."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("images", "labels")))


def sampled(page: Page) -> Windows:
    """Every window on a digit, and one of twenty of the others."""
    chance = torch.rand(page.labels.shape)
    others = (page.labels == BACKGROUND) & (chance < 0.05)
    digits = (page.labels >= 0) & (page.labels < BACKGROUND)
    return Windows.at(page, others | digits)


@torch.no_grad()
def mined(net: nn.Sequential, page: Page) -> Windows:
    """The windows that the net takes for a digit, or nearly, and that are none."""
    nothing = slide(net, (WINDOW, WINDOW))(page.image).softmax(1)[0, BACKGROUND]
    return Windows.at(page, (nothing < 0.9) & (page.labels == BACKGROUND))


# --- Training ------------------------------------------------------------------------------------


def fit(net: nn.Sequential, windows: Windows, epochs: int) -> None:
    """Train on these windows."""
    batch, count = 256, len(windows.labels)
    steps = epochs * (count // batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    net.train()
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(count)[: count // batch * batch].split(batch):
            images = windows.images[rows]
            noisy = images + 0.02 * torch.randn(images.shape)
            loss = F.cross_entropy(net(noisy), windows.labels[rows], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"    loss {total / (count // batch):.4f}", flush=True)
    net.eval()


def train() -> nn.Sequential:
    """Train the finder: once, then with the windows that it was wrong about."""
    torch.manual_seed(10)
    net, composer = finder_net(), Composer(10)
    windows = Windows.joined([sampled(composer.page()) for _ in range(PAGES)])
    print(f"  {len(windows.labels)} windows, {int((windows.labels < BACKGROUND).sum())} on digits")
    fit(net, windows, 4)
    hard = Windows.joined([mined(net, composer.page()) for _ in range(PAGES)])
    print(f"  {len(hard.labels)} hard negatives on {PAGES} other pages")
    fit(net, Windows.joined([windows, hard]), 6)
    left = Windows.joined([mined(net, composer.page()) for _ in range(50)])
    print(f"  {len(left.labels)} hard negatives left on 50 others, {windows_of(50)} windows")
    return net


def windows_of(pages: int) -> int:
    """How many windows pages have."""
    height, width = (length // ENLARGED - WINDOW + 1 for length in SIZE)
    return pages * height * width


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description="Make models/digits_page.onnx.")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder (%(default)s)")
    path: Path = parser.parse_args().out / "digits_page.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # such small layers gain little from more
    torch.use_deterministic_algorithms(mode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    recipe = Recipe(train, (1, WINDOW, WINDOW), "scores", "torch.export", softmax=True)
    whole = nn.Sequential(*recipe.make(), nn.Softmax(dim=1)).eval()
    report_export(whole, recipe, export(whole, recipe, path), path)
    print(f"  {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
