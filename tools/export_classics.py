"""Export small versions of torchvision's classifiers to ONNX, by both of PyTorch's exporters.

The architectures are written here in plain torch.nn, with so few channels and blocks that a file
has a megabyte at most; the kinds of operators and the spellings of the heads are torchvision's. All
weights and BatchNorm's statistics are random but seeded: a wrong permutation or fold shows.

    python tools/export_classics.py --out classics                  # all of them, four files each
    python tools/export_classics.py resnet18 vgg11_bn --out classics --exporter dynamo
    python tools/sweep.py classics                                  # what fc2conv makes of them

A file is called NAME_EXPORTER_BATCH.onnx, where BATCH is `batch1` (fixed) or `batchN` (symbolic).
The spatial size is fixed. Needs the extra `tools`, no network.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

CLASSES = 10


class Apply(nn.Module):
    """function(x, *modules) as a module."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """A map [N, C, H, W], or features [N, C]."""
        return self.function(x, *self.parts)


def conv(
    channels: int,
    filters: int,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.ReLU,
    padded: bool = True,
) -> nn.Sequential:
    """Conv without bias, BatchNorm, activation; padded so that stride 1 keeps the size."""
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    pad = (height // 2, width // 2) if padded else 0
    layer = nn.Conv2d(channels, filters, kernel, stride, pad, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(filters), activation())


def concat(*branches: nn.Module | list[nn.Module]) -> nn.Module:
    """Branches side by side, joined along the channels."""
    return Apply(
        lambda x, *branches: torch.cat([branch(x) for branch in branches], 1),
        *(nn.Sequential(*branch) if isinstance(branch, list) else branch for branch in branches),
    )


def add(x: Tensor, body: nn.Module, shortcut: nn.Module) -> Tensor:
    """A residual connection."""
    return body(x) + shortcut(x)


def dense(x: Tensor, *layers: nn.Module) -> Tensor:
    """DenseNet's block: every layer reads the outputs of all before it."""
    features = [x]
    for layer in layers:
        features.append(layer(torch.cat(features, 1)))
    return torch.cat(features, 1)


def shuffle_unit(x: Tensor, branch: nn.Module, *shortcut: nn.Module) -> Tensor:
    """ShuffleNet's unit: convolve half of the channels (or all, twice), interleave the halves."""
    kept, read = (shortcut[0](x), x) if shortcut else x.chunk(2, dim=1)
    x = torch.cat((kept, branch(read)), dim=1)
    batch, channels, height, width = x.size()
    x = torch.transpose(x.view(batch, 2, channels // 2, height, width), 1, 2).contiguous()
    return x.view(batch, channels, height, width)


def transform_input(x: Tensor) -> Tensor:
    """ImageNet normalization to Inception's, channel by channel (pretrained models do this)."""
    red = torch.unsqueeze(x[:, 0], 1) * (0.229 / 0.5) + (0.485 - 0.5) / 0.5
    green = torch.unsqueeze(x[:, 1], 1) * (0.224 / 0.5) + (0.456 - 0.5) / 0.5
    blue = torch.unsqueeze(x[:, 2], 1) * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
    return torch.cat((red, green, blue), 1)


def pooled(*head: nn.Module, extent: int = 1) -> list[nn.Module]:
    """AdaptiveAvgPool2d, torch.flatten, and the classifier."""
    return [nn.AdaptiveAvgPool2d((extent, extent)), nn.Flatten(1), *head]


def alexnet(*flatten: nn.Module) -> nn.Module:
    """AlexNet; pooling to 6×6 changes nothing at 224×224."""
    layers: list[nn.Module] = []
    for read, filters, kernel in ((3, 16, 11), (16, 24, 5), (24, 48, 3), (48, 32, 3)):
        layers += [nn.Conv2d(read, filters, kernel, 4 if read == 3 else 1, min(2, kernel // 2))]
        layers += [nn.ReLU(inplace=True), *([] if filters == 48 else [nn.MaxPool2d(3, 2)])]
    head = (nn.Dropout(), nn.Linear(32 * 36, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64))
    return nn.Sequential(*layers, *flatten, *head, nn.ReLU(), nn.Linear(64, CLASSES))


def vgg11_bn() -> nn.Module:
    """VGG-11 with BatchNorm."""
    layers: list[nn.Module] = []
    for read, filters in ((3, 8), (8, 16), (16, 32), (32, 48), (48, 48)):
        twice = conv(filters, filters, 3) if filters > 16 else ()
        layers += [*conv(read, filters, 3), *twice, nn.MaxPool2d(2, 2)]
    head = (nn.Linear(48 * 49, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU())
    return nn.Sequential(*layers, *pooled(*head, nn.Dropout(), nn.Linear(64, CLASSES), extent=7))


def resnet(*, bottleneck: bool) -> nn.Module:
    """ResNet of basic blocks as in ResNet-18, or of grouped bottlenecks as in ResNeXt."""
    layers: list[nn.Module] = [conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)]
    read = 16
    for width, stride in ((16, 1), (16, 1), (32, 2), (64, 2), (96, 2)):
        filters = 2 * width if bottleneck else width
        body = [conv(read, width, 3, stride), conv(width, width, 3)[:2]]
        if bottleneck:
            body = [conv(read, width), conv(width, width, 3, stride, 4), conv(width, filters)[:2]]
        keep = stride == 1 and read == filters
        shortcut = nn.Identity() if keep else conv(read, filters, 1, stride)[:2]
        layers += [Apply(add, nn.Sequential(*body), shortcut), nn.ReLU(inplace=True)]
        read = filters
    return nn.Sequential(*layers, *pooled(nn.Linear(read, CLASSES)))


def googlenet(*first: nn.Module) -> nn.Module:
    """GoogLeNet: two inception blocks; its max poolings round up."""

    def block(read: int) -> nn.Module:
        pool = [nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv(read, 8)]
        three = [conv(read, 12), conv(12, 24, 3)]
        return concat(conv(read, 16), three, [conv(read, 4), conv(4, 8, 3)], pool)

    return nn.Sequential(
        *(*first, conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(conv(16, 16), conv(16, 32, 3), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(block(32), nn.MaxPool2d(2, 2, ceil_mode=True), block(56)),
        *pooled(nn.Dropout(0.2), nn.Linear(56, CLASSES)),
    )


def inception_v3() -> nn.Module:
    """Inception v3: a block of each kind A, B, C (1×7 and 7×1) and E (split branches)."""
    average, sevens = nn.AvgPool2d(3, 1, 1), [conv(16, 16, (1, 7)), conv(16, 24, (7, 1))]
    split = concat(conv(24, 24, (1, 3)), conv(24, 24, (3, 1)))
    return nn.Sequential(
        *(conv(3, 8, 3, 2, padded=False), conv(8, 16, 3, padded=False), conv(16, 24, 3)),
        *(nn.MaxPool2d(3, 2), conv(24, 32)),
        concat(conv(32, 16), [conv(32, 16), conv(16, 16, 5)], [average, conv(32, 8)]),
        concat(conv(40, 32, 3, 2, padded=False), nn.MaxPool2d(3, 2)),
        concat(conv(72, 24), [conv(72, 16), *sevens], [average, conv(72, 16)]),
        concat(conv(64, 24), [conv(64, 24), split]),
        *(nn.AdaptiveAvgPool2d((1, 1)), nn.Dropout(), nn.Flatten(1), nn.Linear(72, CLASSES)),
    )


def inverted(act: type[nn.Module], gate: Sequence[type[nn.Module]], *head: nn.Module) -> nn.Module:
    """MobileNet v2 and its heirs: inverted residuals, with or without squeeze-and-excitation."""
    layers: list[nn.Module] = [conv(3, 16, 3, 2, activation=act)]
    read = 16
    for filters, kernel, stride in ((16, 3, 1), (24, 3, 2), (24, 5, 1), (40, 5, 2), (40, 3, 1)):
        wide = 4 * read
        body: list[nn.Module] = [conv(read, wide, activation=act)]
        body += [conv(wide, wide, kernel, stride, wide, act)]
        if gate:
            path = [nn.Conv2d(wide, read, 1), gate[0](), nn.Conv2d(read, wide, 1), gate[1]()]
            whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *path)
            body += [Apply(lambda x, scale: scale(x) * x, whole)]
        body += [conv(wide, filters)[:2]]
        same = stride == 1 and read == filters
        layers += [Apply(add, nn.Sequential(*body), nn.Identity())] if same else body
        read = filters
    return nn.Sequential(*layers, conv(read, 96, activation=act), *head)


def shufflenet_v2() -> nn.Module:
    """ShuffleNet v2: two stages of two units."""
    layers: list[nn.Module] = [conv(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for read, half in ((16, 16), (32, 32)):
        short = nn.Sequential(conv(read, read, 3, 2, read)[:2], conv(read, half))
        for stride, shortcut in ((2, [short]), (1, [])):
            three = conv(half, half, 3, stride, half)[:2]
            branch = nn.Sequential(conv(half, half), three, conv(half, half))
            layers += [Apply(shuffle_unit, branch, *shortcut)]
    return nn.Sequential(*layers, conv(64, 96), MEAN, nn.Linear(96, CLASSES))


def densenet() -> nn.Module:
    """DenseNet: two dense blocks with a transition between them."""

    def layer(read: int) -> nn.Module:
        last = nn.Conv2d(32, 8, 3, padding=1, bias=False)
        return nn.Sequential(nn.BatchNorm2d(read), nn.ReLU(), *conv(read, 32), last)

    return nn.Sequential(
        *(conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1), Apply(dense, *map(layer, range(16, 48, 8)))),
        *(nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 24, 1, bias=False), nn.AvgPool2d(2)),
        *(Apply(dense, *map(layer, range(24, 56, 8))), nn.BatchNorm2d(56), nn.ReLU(inplace=True)),
        *pooled(nn.Linear(56, CLASSES)),
    )


def squeezenet() -> nn.Module:
    """SqueezeNet: fully convolutional by itself, so there is nothing to convert."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2), nn.ReLU()]
    for _ in range(2):
        ones, threes = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 3, padding=1)
        fire = [nn.Conv2d(32, 8, 1), nn.ReLU(), concat([ones, nn.ReLU()], [threes, nn.ReLU()])]
        layers += [nn.MaxPool2d(3, 2, ceil_mode=True), *fire]
    return nn.Sequential(*layers, nn.Dropout(), nn.Conv2d(32, CLASSES, 1), nn.ReLU(), *pooled())


MEAN = Apply(lambda x: x.mean([2, 3]))
LAST = (nn.Dropout(0.2), nn.Linear(96, CLASSES))
TWO = (nn.Linear(96, 64), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(64, CLASSES))
CLASSICS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (lambda: alexnet(*pooled(extent=6)), 224),
    "alexnet_unpooled": (lambda: alexnet(nn.Flatten(1)), 224),
    "vgg11_bn": (vgg11_bn, 224),
    "resnet18": (lambda: resnet(bottleneck=False), 96),
    "resnext": (lambda: resnet(bottleneck=True), 96),
    "googlenet": (googlenet, 96),
    "googlenet_transformed": (lambda: googlenet(Apply(transform_input)), 96),
    "inception_v3": (inception_v3, 107),
    "mobilenet_v2": (lambda: inverted(nn.ReLU6, (), *pooled(*LAST)), 64),
    "mobilenet_v3": (lambda: inverted(nn.Hardswish, (nn.ReLU, nn.Hardsigmoid), *pooled(*TWO)), 64),
    "mnasnet": (lambda: inverted(nn.ReLU, (), MEAN, *LAST), 64),
    "efficientnet": (lambda: inverted(nn.SiLU, (nn.SiLU, nn.Sigmoid), *pooled(*LAST)), 64),
    "shufflenet_v2": (shufflenet_v2, 64),
    "densenet": (densenet, 64),
    "squeezenet": (squeezenet, 96),
}


def randomize(net: nn.Module) -> nn.Module:
    """Draw weights that keep activations of order 1, and statistics that matter."""
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.ndim > 1:
            nn.init.kaiming_normal_(tensor)
        elif name.endswith(("weight", "running_var")):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            nn.init.normal_(tensor, std=0.2)
    return net.eval()


def export(net: nn.Module, size: int, path: Path, exporter: str, symbolic: bool) -> None:
    """Write one file."""
    example = (torch.rand(2 if symbolic else 1, 3, size, size),)
    names = {"input_names": ["image"], "output_names": ["scores"]}
    if exporter == "dynamo":
        batch = ({0: torch.export.Dim("N", min=1)},) if symbolic else None
        options = {"dynamic_shapes": batch, "external_data": False, "verbose": False}
        torch.onnx.export(net, example, path, dynamo=True, **options, **names)
    else:
        axes = {"image": {0: "N"}, "scores": {0: "N"}} if symbolic else None
        torch.onnx.export(net, example, path, dynamo=False, dynamic_axes=axes, **names)


def main() -> None:
    """Write the files, and print their sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLASSICS))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if missing")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo", "both"), default="both")
    parser.add_argument("--size", type=int, metavar="N", help="height and width of the input")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(CLASSICS)):
        parser.error(f"no such network: {', '.join(unknown)}; known: {', '.join(CLASSICS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # these and the warnings are torch's own
    warnings.simplefilter("ignore")
    for name in options.names or CLASSICS:
        build, native = CLASSICS[name]
        torch.manual_seed(0)
        net = randomize(build())
        for exporter, batch in product(("torchscript", "dynamo"), ("batch1", "batchN")):
            if options.exporter in (exporter, "both"):
                path = options.out / f"{name}_{exporter}_{batch}.onnx"
                export(net, options.size or native, path, exporter, batch == "batchN")
                print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
