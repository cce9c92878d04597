"""Export small networks with unusual heads to ONNX, by both of PyTorch's exporters.

Text lines, detection grids, pairs of images, several outputs, sound, video and points: what the
classifiers of tools/export_classics.py lack. Weights are random but seeded.

    python tools/export_heads.py --out build/torch_heads            # all of them, four files each
    python tools/sweep.py build/torch_heads

A file is called NAME_EXPORTER_BATCH.onnx, as there. Needs the extra `tools`, no network.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path

import torch
from export_classics import randomize
from torch import Tensor, nn

CLASSES = 10


class Net(nn.Module):
    """function(*inputs, *modules) as a module."""

    def __init__(self, function: Callable[..., object], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> object:
        """Maps [N, C, *spatial] to whatever the function gives."""
        return self.function(*inputs, *self.parts)


def trunk(channels: int = 3, rank: int = 2, padded: bool = False) -> nn.Sequential:
    """Two convolutions with pooling, without padding but where that is asked for."""
    layer = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
    pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank]
    pad = int(padded)
    first = (layer(channels, 8, 3, padding=pad), nn.ReLU(), pool(2))
    return nn.Sequential(*first, layer(8, 12, 3, padding=pad), nn.ReLU())


def crnn(x: Tensor, maps: nn.Module, layer: nn.Module) -> Tensor:
    """Scores of a character for each column of a text line: [N, W, K]."""
    columns: Tensor = maps(x).squeeze(2).permute(0, 2, 1)
    return torch.log_softmax(layer(columns), 2)


def crnn_of_columns(x: Tensor, maps: nn.Module, layer: nn.Module) -> Tensor:
    """The same with a layer on all of a column of a map that is several cells high: [W, N, K]."""
    columns = maps(x).permute(3, 0, 1, 2).flatten(2)
    scores: Tensor = layer(columns)
    return scores


def yolo(x: Tensor, maps: nn.Module, head: nn.Module) -> Tensor:
    """YOLOv1: a grid of boxes by fully connected layers, [N, 3, 3, 15]."""
    boxes: Tensor = head(maps(x)).view(-1, 3, 3, 15)
    return boxes


def yolo_flat(x: Tensor, maps: nn.Module, head: nn.Module) -> Tensor:
    """The same, left flat."""
    boxes: Tensor = head(maps(x))
    return boxes


def age_and_gender(
    x: Tensor, maps: nn.Module, common: nn.Module, age: nn.Module, gender: nn.Module
) -> tuple[Tensor, Tensor]:
    """Two heads on common features; the age is the mean of a distribution: [N], [N, 2]."""
    features = common(torch.flatten(maps(x), 1))
    years = torch.arange(20, dtype=torch.float32)
    return (age(features).softmax(1) * years).sum(1), gender(features).softmax(1)


def siamese(one: Tensor, two: Tensor, maps: nn.Module, layer: nn.Module, last: nn.Module) -> Tensor:
    """How alike two images are: the distance of their embeddings, weighted."""
    a, b = (torch.sigmoid(layer(maps(x).flatten(1))) for x in (one, two))
    return torch.sigmoid(last(torch.abs(a - b)))


def contrastive(one: Tensor, two: Tensor, maps: nn.Module, layer: nn.Module) -> Tensor:
    """The cosine of two embeddings: [N]."""
    a, b = (nn.functional.normalize(layer(maps(x).flatten(1))) for x in (one, two))
    return (a * b).sum(1)


def maxout(x: Tensor, maps: nn.Module, layer: nn.Module, last: nn.Module) -> Tensor:
    """A layer whose outputs compete in threes."""
    features = layer(maps(x).flatten(1)).view(-1, 16, 3).max(2).values
    scores: Tensor = last(features)
    return scores


def excited(x: Tensor, maps: nn.Module, gate: nn.Module, head: nn.Module) -> Tensor:
    """Squeeze and excite, then fully connected layers on the flattened map."""
    y = maps(x)
    weights = gate(y.mean((2, 3)))[:, :, None, None]
    scores: Tensor = head((y * weights).flatten(1))
    return scores


def points(x: Tensor, maps: nn.Module, head: nn.Module) -> Tensor:
    """PointNet: a layer for each point, the largest of all points, layers."""
    scores: Tensor = head(maps(x).max(2).values)
    return scores


def embedding(x: Tensor, maps: nn.Module, layer: nn.Module) -> Tensor:
    """A face embedding of length one."""
    return nn.functional.normalize(layer(maps(x).flatten(1)), p=2.0, dim=1)


def quality(x: Tensor, maps: nn.Module, layer: nn.Module, weight: nn.Module) -> Tensor:
    """An image's score as a mean over scores, weighted by a second layer: [N]."""
    flat = maps(x).flatten(1)
    scores, weights = layer(flat), weight(flat).softmax(1)
    return (scores * weights).sum(1)


def dense(*lengths: int, norm: bool = False, dropout: bool = False) -> nn.Sequential:
    """Flatten and a stack of fully connected layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for read, made in pairwise(lengths):
        layers += [nn.Linear(read, made), *([nn.BatchNorm1d(made)] if norm else ())]
        layers += [nn.ReLU(), *([nn.Dropout()] if dropout else ())]
    return nn.Sequential(*layers[: -2 if dropout else -1])


def line(height: int) -> nn.Sequential:
    """The maps of a text line of 16 pixels' height: 1 or 3 cells high."""
    last = nn.Conv2d(12, 12, (8 - height, 1))
    return nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), last, nn.ReLU())


def gate() -> nn.Sequential:
    """What weighs the channels of `excited`."""
    return nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 12), nn.Sigmoid())


def point_layers() -> nn.Sequential:
    """The layers that `points` applies to each point."""
    first = (nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
    return nn.Sequential(*first, nn.Conv1d(16, 24, 1), nn.ReLU())


def m5() -> nn.Sequential:
    """M5 for raw sound: large strides, then the mean of what is left."""
    first = (nn.Conv1d(1, 8, 40, 4), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4))
    second = (nn.Conv1d(8, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4))
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool1d(1), *dense(16, CLASSES))


IMAGE, SIZE = (3, 22, 22), 12 * 8 * 8
Shapes = Sequence[tuple[int, ...]]
HEADS: dict[str, tuple[Callable[[], nn.Module], Shapes]] = {
    "crnn": (lambda: Net(crnn, line(1), nn.Linear(12, 11)), [(1, 16, 40)]),
    "crnn_of_columns": (lambda: Net(crnn_of_columns, line(3), nn.Linear(36, 11)), [(1, 16, 40)]),
    "yolo": (lambda: Net(yolo, trunk(), dense(SIZE, 32, 135)), [IMAGE]),
    "yolo_flat": (lambda: Net(yolo_flat, trunk(padded=True), dense(1452, 32, 135)), [IMAGE]),
    "age_and_gender": (
        lambda: Net(age_and_gender, trunk(), dense(SIZE, 32), nn.Linear(32, 20), nn.Linear(32, 2)),
        [IMAGE],
    ),
    "siamese": (lambda: Net(siamese, trunk(), nn.Linear(SIZE, 16), nn.Linear(16, 1)), [IMAGE] * 2),
    "contrastive": (lambda: Net(contrastive, trunk(), nn.Linear(SIZE, 16)), [IMAGE] * 2),
    "normalized_layers": (
        lambda: nn.Sequential(trunk(), *dense(SIZE, 32, 16, CLASSES, norm=True)),
        [IMAGE],
    ),
    "dropout": (
        lambda: nn.Sequential(trunk(), nn.Dropout2d(), *dense(SIZE, 32, CLASSES, dropout=True)),
        [IMAGE],
    ),
    "maxout": (lambda: Net(maxout, trunk(), nn.Linear(SIZE, 48), nn.Linear(16, 10)), [IMAGE]),
    "excited": (lambda: Net(excited, trunk(), gate(), dense(SIZE, 32, CLASSES)), [IMAGE]),
    "m5": (m5, [(1, 800)]),
    "sound": (lambda: nn.Sequential(trunk(1, 1), *dense(12 * 47, CLASSES)), [(1, 100)]),
    "c3d": (
        lambda: nn.Sequential(trunk(3, 3, padded=True), *dense(12 * 4 * 6 * 6, 16, CLASSES)),
        [(3, 8, 12, 12)],
    ),
    "pointnet": (lambda: Net(points, point_layers(), dense(24, 16, CLASSES)), [(3, 64)]),
    "embedding": (lambda: Net(embedding, trunk(), nn.Linear(SIZE, 16)), [IMAGE]),
    "quality": (
        lambda: Net(quality, trunk(), nn.Linear(SIZE, 6), nn.Linear(SIZE, 6)),
        [IMAGE],
    ),
}


def export(net: nn.Module, shapes: Shapes, path: Path, exporter: str, symbolic: bool) -> None:
    """Write one file; the inputs are called x1, x2."""
    example = tuple(torch.rand(2 if symbolic else 1, *shape) for shape in shapes)
    names = [f"x{number}" for number in range(1, len(shapes) + 1)]
    if exporter == "dynamo":
        dim = torch.export.Dim("N", min=1)
        # The inputs are `*inputs` of one function, or the only one of a Sequential.
        dims = tuple({0: dim} for _ in shapes)
        batch = (dims if isinstance(net, nn.Sequential) else (dims,)) if symbolic else None
        options = {"dynamic_shapes": batch, "external_data": False, "verbose": False}
        torch.onnx.export(net, example, path, dynamo=True, input_names=names, **options)
    else:
        axes = {name: {0: "N"} for name in names} if symbolic else None
        torch.onnx.export(net, example, path, dynamo=False, input_names=names, dynamic_axes=axes)


def main() -> None:
    """Write the files, and print their sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(HEADS))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if missing")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(HEADS)):
        parser.error(f"no such network: {', '.join(unknown)}; known: {', '.join(HEADS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # these and the warnings are torch's own
    warnings.simplefilter("ignore")
    for name in options.names or HEADS:
        build, shapes = HEADS[name]
        torch.manual_seed(0)
        net = randomize(build())
        for exporter, batch in product(("torchscript", "dynamo"), ("batch1", "batchN")):
            path = options.out / f"{name}_{exporter}_{batch}.onnx"
            export(net, shapes, path, exporter, batch == "batchN")
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
