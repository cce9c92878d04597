"""Two networks that are the same function: do they stay so while they are trained?

Ma & Lu (arXiv 1712.01252, section 5) train a network whose first layer is a convolution beside one
whose first layer is FC on patches, on the identity task (give the image back), with the same
initial values and no bias. They see identical curves with SGD and nearly identical ones with Adam,
and guess that adaptive rates are why. This script repeats it in float32 and float64, and adds two
controls: the same network twice, and twice with the last bit of one weight changed.

    python tools/experiments/equivalent_training.py docs/experiment
    python tools/experiments/equivalent_training.py out --data train-images-idx3-ubyte --epochs 20

Writes FOLDER/table.md, four plots (PNG) and results.json. The images are scikit-learn's digits of
8x8 pixels, or those of an MNIST IDX file. Needs the extra ``tools``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import training_plots
from torch import nn

from onnx_fc2conv.geometry import SlidingWindow

IMAGES, BATCH = 1000, 128
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD, rate 0.1": lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
    "SGD, rate 0.18": lambda net: torch.optim.SGD(net.parameters(), lr=0.18),
    "Adam, rate 0.001": lambda net: torch.optim.Adam(net.parameters(), lr=1e-3),
    "Adam, rate 0.03": lambda net: torch.optim.Adam(net.parameters(), lr=3e-2),
}
TYPES = {"float32": torch.float32, "float64": torch.float64}
PATCHES, SAME, LAST_BIT = "FC on patches", "the same network", "last bit of one weight changed"


@dataclass(frozen=True)
class Architecture:
    """Two layers without bias that give an image back.

    Attributes:
        name: As the table has it.
        filters, kernel, stride, pad: Of the first layer.
        dense: Whether the second layer is FC, not a convolution like the first.
        relu: Whether a Relu follows each layer.
    """

    name: str
    filters: int
    kernel: int
    stride: int
    pad: int
    dense: bool = False
    relu: bool = False

    def window(self, extent: tuple[int, ...]) -> SlidingWindow:
        """How the first layer slides over an image."""
        return SlidingWindow.resolve(
            extent, (self.kernel,) * 2, strides=(self.stride,) * 2, pads=(self.pad,) * 4
        )

    def initial(self, extent: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Kernel [K, 1, kernel, kernel] and second weight, float64, He et al.'s variance."""
        shape = (self.filters, 1, self.kernel, self.kernel)
        first = torch.randn(shape, dtype=torch.float64)
        cells = int(np.prod(self.window(extent).output_extent))
        fan_in = self.filters * (cells if self.dense else self.kernel**2)
        one_image = int(np.prod(extent))
        other = (one_image, fan_in) if self.dense else (1, self.filters, self.kernel, self.kernel)
        second = torch.randn(other, dtype=torch.float64)
        gain = 2.0 if self.relu else 1.0
        return first * (gain / self.kernel**2) ** 0.5, second * (gain / fan_in) ** 0.5


LINEAR = Architecture("CONV→CONV", filters=8, kernel=3, stride=1, pad=1)
PUBLISHED = Architecture(
    "CONV→Relu→FC→Relu", filters=128, kernel=4, stride=2, pad=0, dense=True, relu=True
)


class ConvNet(nn.Module):
    """The first layer is a convolution."""

    def __init__(self, kind: Architecture, first: torch.Tensor, second: torch.Tensor) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Parameter(first.clone())
        self.second = nn.Parameter(second.clone())

    def hidden(self, images: torch.Tensor) -> torch.Tensor:
        """The first layer's output [N, K, H, W]."""
        kind = self.kind
        return nn.functional.conv2d(images, self.first, stride=kind.stride, padding=kind.pad)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images again."""
        activate = nn.functional.relu if self.kind.relu else nn.Identity()
        hidden = activate(self.hidden(images))
        if self.kind.dense:
            return activate(hidden.flatten(1) @ self.second.T).reshape(images.shape)
        return activate(nn.functional.conv2d(hidden, self.second, padding=self.kind.pad))

    def filters(self) -> torch.Tensor:
        """The first layer's weights as [kernel positions, K]."""
        return self.first.detach().flatten(1).T


class PatchNet(ConvNet):
    """The first layer is FC on patches: a matrix [kernel positions, K]."""

    def __init__(
        self, kind: Architecture, first: torch.Tensor, second: torch.Tensor, window: SlidingWindow
    ) -> None:
        super().__init__(kind, first, second)
        self.first = nn.Parameter(first.flatten(1).T.contiguous().clone())
        self.index = torch.from_numpy(window.positions())
        self.extent = window.output_extent

    def hidden(self, images: torch.Tensor) -> torch.Tensor:
        """The same numbers: patches times filters, reshaped to [N, K, H, W]."""
        pixels = nn.functional.pad(images.flatten(1), (0, 1))
        product = pixels[:, self.index] @ self.first
        return product.transpose(1, 2).reshape(len(images), -1, *self.extent)

    def filters(self) -> torch.Tensor:
        """The matrix itself."""
        return self.first.detach()


@dataclass
class Pair:
    """Two networks trained side by side, and how far they have drifted apart after each epoch."""

    kind: Architecture
    optimizer: str
    dtype: str
    twin: str
    losses: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    weights: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)
    histograms: tuple[list[float], list[float]] = ([], [])

    def networks(self, extent: tuple[int, ...]) -> tuple[ConvNet, ConvNet]:
        """Both, with the same initial values but for the one last bit."""
        first, second = (start.to(TYPES[self.dtype]) for start in self.kind.initial(extent))
        one = ConvNet(self.kind, first, second)
        if self.twin == PATCHES:
            return one, PatchNet(self.kind, first, second, self.kind.window(extent))
        if self.twin == LAST_BIT:
            weight = first.view(-1)[:1]
            first.view(-1)[:1] = torch.nextafter(weight, weight + 1)
        return one, ConvNet(self.kind, first, second)


def load_images(path: Path | None) -> np.ndarray:
    """float64 [N, 1, H, W] in 0…1."""
    if path is None:
        from sklearn.datasets import load_digits  # noqa: PLC0415

        return load_digits().images[:IMAGES, None] / 16.0
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    magic, count, height, width = struct.unpack(">4i", raw[:16])
    if magic != 2051 or len(raw) != 16 + count * height * width:
        raise SystemExit(f"{path} is not an IDX file of images")
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(count, 1, height, width)
    return pixels[:IMAGES] / 255.0


def train(pair: Pair, images: np.ndarray, epochs: int, seed: int) -> Pair:
    """Train both networks on the same batches in the same order."""
    torch.manual_seed(seed)
    one, two = pair.networks(images.shape[2:])
    steps = [OPTIMIZERS[pair.optimizer](net) for net in (one, two)]
    data = torch.from_numpy(images).to(TYPES[pair.dtype])
    order = np.random.default_rng(seed)
    for _ in range(epochs):
        sums = [0.0, 0.0]
        shuffled = order.permutation(len(data))
        for start in range(0, len(data), BATCH):
            batch = data[torch.from_numpy(shuffled[start : start + BATCH])]
            for number, (net, step) in enumerate(zip((one, two), steps, strict=True)):
                step.zero_grad()
                loss = nn.functional.mse_loss(net(batch), batch)
                loss.backward()
                step.step()
                sums[number] += loss.item() * len(batch)
        for losses, total in zip(pair.losses, sums, strict=True):
            losses.append(total / len(data))
        with torch.no_grad():
            probe = data[:BATCH]
            pair.weights.append(float(torch.linalg.norm(one.filters() - two.filters())))
            pair.outputs.append(float(torch.linalg.norm(one.hidden(probe) - two.hidden(probe))))
    pair.histograms = (one.filters().flatten().tolist(), two.filters().flatten().tolist())
    return pair


def planned() -> list[Pair]:
    """What is compared."""
    pairs = [
        Pair(LINEAR, optimizer, dtype, twin)
        for twin in (PATCHES, LAST_BIT)
        for optimizer in OPTIMIZERS
        for dtype in TYPES
    ]
    pairs += [Pair(LINEAR, optimizer, "float32", SAME) for optimizer in OPTIMIZERS]
    usual = ("SGD, rate 0.1", "Adam, rate 0.001")
    return pairs + [Pair(PUBLISHED, o, dtype, PATCHES) for o in usual for dtype in TYPES]


def table(pairs: list[Pair]) -> str:
    """The distances after the first and the last epoch."""
    lines = [
        "| network | optimizer | type | compared with | final MSE | of the other "
        "| weights, epoch 1 | weights, last | outputs, last |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {p.kind.name} | {p.optimizer} | {p.dtype} | {p.twin} | {p.losses[0][-1]:.3e} "
        f"| {p.losses[1][-1]:.3e} | {p.weights[0]:.1e} | {p.weights[-1]:.1e} "
        f"| {p.outputs[-1]:.1e} |"
        for p in pairs
    ]
    return "\n".join(lines)


def results(pairs: list[Pair]) -> str:
    """JSON: a pair a line, its curves at every tenth epoch with four digits."""

    def thinned(curve: list[float]) -> list[float]:
        return [float(f"{value:.4g}") for value in curve[9::10]]

    lines = [
        json.dumps(
            {
                "network": p.kind.name,
                "optimizer": p.optimizer,
                "type": p.dtype,
                "compared_with": p.twin,
                "losses": [thinned(curve) for curve in p.losses],
                "weights": thinned(p.weights),
                "outputs": thinned(p.outputs),
            },
            ensure_ascii=False,
        )
        for p in pairs
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def main() -> None:
    """Train all pairs, then write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--data", type=Path, help="IDX file of images (MNIST); else digits")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    images = load_images(given.data)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pairs = [train(pair, images, given.epochs, given.seed) for pair in planned()]
    given.folder.mkdir(parents=True, exist_ok=True)
    training_plots.plot_losses(pairs, given.folder / "losses.png")
    training_plots.plot_histograms(pairs, given.folder / "histograms.png")
    training_plots.plot_distances(pairs, "weights", given.folder / "weights.png")
    training_plots.plot_distances(pairs, "outputs", given.folder / "outputs.png")
    data = "scikit-learn's digits" if given.data is None else given.data.name
    setup = (
        f"{len(images)} images ({data}, {images.shape[2]}×{images.shape[3]}), batch {BATCH}, "
        f"{given.epochs} epochs, seed {given.seed}; torch {torch.__version__}, "
        f"{platform.machine()}."
    )
    (given.folder / "table.md").write_text(f"{setup}\n\n{table(pairs)}\n", encoding="utf-8")
    (given.folder / "results.json").write_text(results(pairs), encoding="utf-8")
    print(setup)
    print(table(pairs))


if __name__ == "__main__":
    main()
