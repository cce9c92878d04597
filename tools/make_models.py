"""Make the small models of `models/`: train or draw their weights, measure, export to ONNX.

    python tools/make_models.py                  # all of them, into models/
    python tools/make_models.py face25 --out /tmp

Needs the extra `tools` (torch, onnxscript, scikit-image with its Pillow, scikit-learn) and no
network: every picture that it uses is inside the wheels of scikit-image and scikit-learn. Seeds and
thread count are fixed, so two runs with the same versions on the same kind of processor write the
same bytes. Every figure that `models/README.md` quotes is printed here.

All four models are plain crop classifiers: the batch is symbolic, the picture size is fixed.
"""

import argparse
import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.checker
import onnx.reference
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from skimage import color, data, transform
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

OPSET = 18
THREADS = 2
IR_VERSION_MAX = 10

Grey = NDArray[np.float32]
"""A grey picture [height, width], float32 in [0, 1]."""


# --- Architectures -------------------------------------------------------------------------------


def face_net() -> nn.Sequential:
    """[N, 1, 25, 25] -> [N, 2] logits. Unpadded, total stride 2, a map of 24 x 6 x 6."""
    return nn.Sequential(
        *(nn.Conv2d(1, 12, 3), nn.ReLU()),  # 23
        *(nn.Conv2d(12, 16, 3), nn.ReLU()),  # 21
        nn.MaxPool2d(3, stride=2),  # 10
        *(nn.Conv2d(16, 24, 3), nn.ReLU()),  # 8
        *(nn.Conv2d(24, 24, 3), nn.ReLU()),  # 6
        nn.Flatten(),
        nn.Dropout(0.3),
        *(nn.Linear(24 * 6 * 6, 48), nn.ReLU()),
        nn.Linear(48, 2),
    )


def digit_net() -> nn.Sequential:
    """[N, 1, 8, 8] -> [N, 10] logits. Unpadded, total stride 2, a map of 32 x 2 x 2."""
    return nn.Sequential(
        *(nn.Conv2d(1, 24, 3), nn.ReLU()),  # 6
        *(nn.Conv2d(24, 32, 3), nn.ReLU()),  # 4
        nn.MaxPool2d(2),  # 2
        nn.Flatten(),
        nn.Dropout(0.3),
        *(nn.Linear(32 * 2 * 2, 64), nn.ReLU()),
        nn.Linear(64, 10),
    )


def dress_net(*, padded: bool) -> nn.Sequential:
    """[N, 3, 128, 64] -> [N, 2] logits. Total stride 32, a map of 96 x 3 x 1 (padded: 4 x 2)."""
    pad5, pad3 = (2, 1) if padded else (0, 0)
    cells = 4 * 2 if padded else 3 * 1
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 5, stride=2, padding=pad5), nn.ReLU()),
        *(nn.Conv2d(24, 32, 3, padding=pad3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=pad3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 96, 3, padding=pad3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *(nn.Linear(96 * cells, 96), nn.ReLU()),
        nn.Linear(96, 2),
    )


def slide(net: nn.Sequential, native: tuple[int, int]) -> nn.Sequential:
    """Make the fully convolutional twin of `net`; `native` is its input size [height, width].

    It shares the weights; its output [N, K, h, w] scores every window of a picture of any size.
    """
    layers: list[nn.Module] = []
    trunk_map = torch.zeros(1, _in_channels(net), *native)
    spatial: tuple[int, ...] | None = None  # extent of the map, once it has been flattened
    for layer in net.eval():
        if isinstance(layer, nn.Flatten):
            spatial = tuple(trunk_map.shape[2:])
        elif isinstance(layer, nn.Linear):
            assert spatial is not None, "a Linear layer comes after the Flatten"
            weight = layer.weight.detach()
            conv = nn.Conv2d(weight.shape[1] // (spatial[0] * spatial[1]), len(weight), 1)
            conv.weight = nn.Parameter(weight.reshape(len(weight), -1, *spatial))
            conv.bias = layer.bias
            layers.append(conv)
            spatial = (1, 1)
        else:
            layers.append(layer)
            trunk_map = layer(trunk_map) if spatial is None else trunk_map
    return nn.Sequential(*layers).eval()


def _in_channels(net: nn.Sequential) -> int:
    first = net[0]
    assert isinstance(first, nn.Conv2d)
    return first.in_channels


# --- Pictures ------------------------------------------------------------------------------------

FACE_SIZE = 25
MISLABELLED = 125  # of lfw_subset: a face among its non-faces


def grey(picture: NDArray[Any]) -> Grey:
    """Turn a picture [h, w] or [h, w, 3], uint8 or float, into float32 grey in [0, 1]."""
    if picture.ndim == 3:
        picture = color.rgb2gray(picture)
    elif picture.dtype == np.uint8:
        picture = picture / 255
    return np.asarray(picture, np.float32)


def training_photographs() -> list[Grey]:
    """Pictures without a human face that ship in scikit-image; the astronaut is not among them."""
    whole = (
        *(data.brick, data.grass, data.gravel, data.moon, data.clock, data.page, data.text),
        *(data.chelsea, data.coffee, data.rocket, data.retina, data.immunohistochemistry),
        data.hubble_deep_field,
    )
    below_the_face = data.camera()[215:]
    return [*(grey(load()) for load in whole), grey(below_the_face)]


def held_out_photographs() -> dict[str, Grey]:
    """Pictures without a face that training never sees: they count the false alarms."""
    china, flower = load_sample_images().images
    return {
        "motorcycle": grey(data.stereo_motorcycle()[0]),
        "china": grey(china),
        "flower": grey(flower),
    }


def pyramid(picture: Grey, scales: NDArray[np.float64]) -> Iterator[tuple[float, Tensor]]:
    """(scale, [1, 1, h, w]) for each scale at which a 25 x 25 window still fits."""
    for scale in scales:
        if min(picture.shape) * scale >= FACE_SIZE + 2:
            small = transform.rescale(picture, scale, anti_aliasing=scale < 1)
            yield float(scale), torch.from_numpy(np.asarray(small, np.float32))[None, None]


# --- face25: samples -----------------------------------------------------------------------------


def warp(crops: Tensor, scale: Tensor, angle: Tensor, shift: Tensor, background: Tensor) -> Tensor:
    """Magnify, turn (radians) and move (pixels [n, 2], x first) crops [n, 1, 25, 25].

    What falls outside of a crop is its repeated border in one half of the samples, the
    `background` in the other.
    """
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    offset = shift * (2 / FACE_SIZE)
    x = -(cos * offset[:, 0] + sin * offset[:, 1])
    y = -(-sin * offset[:, 0] + cos * offset[:, 1])
    theta = torch.stack([cos, sin, x, -sin, cos, y], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(crops.shape), align_corners=False)
    moved = F.grid_sample(crops, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs().amax(-1) <= 1).unsqueeze(1)
    pasted = torch.where(inside, moved, background)
    return torch.where(torch.rand(len(crops), 1, 1, 1) < 0.5, moved, pasted)


def relight(crops: Tensor) -> Tensor:
    """Change contrast, brightness and gamma, add a little noise; mirror half of the crops."""
    column = (len(crops), 1, 1, 1)
    mean = crops.mean((1, 2, 3), keepdim=True)
    crops = (crops - mean) * uniform(0.6, 1.5, column) + mean + uniform(-0.15, 0.15, column)
    crops = crops.clamp(0, 1) ** torch.exp(uniform(-0.35, 0.35, column))
    crops = (crops + torch.randn_like(crops) * uniform(0, 0.03, column)).clamp(0, 1)
    return torch.where(torch.rand(column) < 0.5, crops, crops.flip(3))


def uniform(low: float, high: float, shape: tuple[int, ...]) -> Tensor:
    """Uniform random numbers in [low, high)."""
    return torch.rand(shape) * (high - low) + low


def pick(bank: Tensor, count: int) -> Tensor:
    """`count` random rows of `bank`, with replacement."""
    return bank[torch.randint(len(bank), (count,))]


def face_samples(faces: Tensor, backgrounds: Tensor, count: int) -> Tensor:
    """Faces as a detector should accept them: nearly centred, of nearly the native size."""
    return warp(
        pick(faces, count),
        uniform(0.85, 1.2, (count,)),
        uniform(-0.2, 0.2, (count,)),
        uniform(-2, 2, (count, 2)),
        pick(backgrounds, count),
    )


def spoilt_faces(faces: Tensor, backgrounds: Tensor, count: int) -> Tensor:
    """Faces that a detector should reject: far off centre, much too small or large, turned."""
    kind = torch.randint(4, (count,))
    scale, angle = uniform(0.8, 1.25, (count,)), uniform(-0.3, 0.3, (count,))
    small_or_large = torch.where(
        torch.rand(count) < 0.5, uniform(0.35, 0.55, (count,)), uniform(1.9, 3.0, (count,))
    )
    scale = torch.where(kind == 2, small_or_large, scale)
    angle = torch.where(kind == 3, uniform(1.0, 2 * torch.pi - 1.0, (count,)), angle)
    direction = uniform(0, 2 * torch.pi, (count,))
    far = uniform(9, 19, (count,)) * (kind < 2)
    shift = torch.stack([torch.cos(direction) * far, torch.sin(direction) * far], 1)
    return warp(pick(faces, count), scale, angle, shift, pick(backgrounds, count))


def collages(crops: Tensor, others: Tensor) -> Tensor:
    """Lay `others` over one side of a random straight line: edges and corners, as clutter has."""
    direction = uniform(0, 2 * torch.pi, (len(crops), 1, 1, 1))
    axis = torch.linspace(-1, 1, FACE_SIZE)
    along = torch.cos(direction) * axis[None, None, None] + torch.sin(direction) * axis[:, None]
    return torch.where(along > uniform(-0.8, 0.8, (len(crops), 1, 1, 1)), crops, others)


def random_crops(photographs: list[Grey], per_picture: int) -> Tensor:
    """Crops [n, 1, 25, 25] of every photograph, at random scales and places."""
    crops: list[Tensor] = []
    for picture in photographs:
        for _, small in pyramid(picture, np.geomspace(0.08, 0.8, 8)):
            for _ in range(per_picture // 8):
                y = int(torch.randint(small.shape[2] - FACE_SIZE, ()))
                x = int(torch.randint(small.shape[3] - FACE_SIZE, ()))
                crops.append(small[0, :, y : y + FACE_SIZE, x : x + FACE_SIZE])
    return torch.stack(crops)


@torch.no_grad()
def mine(net: nn.Sequential, photographs: list[Grey], seed: int) -> Tensor:
    """Collect the face-free windows [n, 1, 25, 25] that `net` likes best, to train against."""
    dense = slide(net, (FACE_SIZE, FACE_SIZE))
    rng = np.random.default_rng(seed)
    mined: list[Tensor] = []
    for picture in photographs:
        turned = np.ascontiguousarray(np.rot90(picture, seed % 4))
        scales = np.geomspace(0.09, 0.7, 8) * rng.uniform(0.9, 1.15)
        for _, small in pyramid(turned, scales):
            for image in (small, 1 - small):  # the negative of a photograph has no face either
                score = dense(image).softmax(1)[0, 1]
                best = score.flatten().topk(min(40, score.numel()))
                for where in best.indices[best.values > 0.02].tolist():
                    y, x = (2 * cell for cell in divmod(where, score.shape[1]))
                    mined.append(image[0, :, y : y + FACE_SIZE, x : x + FACE_SIZE])
    return torch.stack(mined) if mined else torch.zeros(0, 1, FACE_SIZE, FACE_SIZE)


# --- face25: training and figures ----------------------------------------------------------------


@dataclass(frozen=True)
class Crops:
    """lfw_subset, split once: `faces` and `others` [n, 1, 25, 25] for training, the rest held."""

    faces: Tensor
    others: Tensor
    held_faces: Tensor
    held_others: Tensor


def lfw_crops() -> Crops:
    """80 faces and 80 non-faces to train on, 20 and 19 held out."""
    crops = torch.from_numpy(np.asarray(data.lfw_subset(), np.float32))[:, None]
    rng = np.random.default_rng(0)
    faces = rng.permutation(100)
    others = 100 + rng.permutation(100)
    others = others[others != MISLABELLED]
    return Crops(crops[faces[20:]], crops[others[19:]], crops[faces[:20]], crops[others[:19]])


def train_face() -> nn.Sequential:
    """Train face25 with rounds of hard-negative mining and print its figures."""
    torch.manual_seed(25)
    net, crops, photographs = face_net(), lfw_crops(), training_photographs()
    negatives = torch.cat([random_crops(photographs, 160), crops.others])
    hard = negatives
    rounds, steps = 9, 200
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=rounds * steps)
    labels = torch.tensor([1] * 96 + [0] * 256)
    for number in range(rounds):
        net.train()
        for _ in range(steps):
            faces = face_samples(crops.faces, negatives, 96)
            spoilt = spoilt_faces(crops.faces, negatives, 64)
            mixed = collages(relight(pick(negatives, 48)), relight(pick(negatives, 48)))
            others = [pick(negatives, 32), mixed, pick(hard, 96), pick(crops.others, 16)]
            batch = relight(torch.cat([faces, spoilt, *others]))
            loss = F.cross_entropy(net(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if number < rounds - 1:
            found = mine(net, photographs, number)
            hard = torch.cat([hard, found]) if number else torch.cat([negatives[-200:], found])
            print(f"  round {number + 1}: loss {loss.item():.4f}, {len(found)} hard negatives")
    net.eval()
    report_crops(net, crops)
    report_false_alarms(net)
    report_astronaut(net)
    return net


@torch.no_grad()
def report_crops(net: nn.Sequential, crops: Crops) -> None:
    """Held-out crops: how many are right at the thresholds that a user may pick."""
    face = net(crops.held_faces).softmax(1)[:, 1]
    other = net(crops.held_others).softmax(1)[:, 1]
    right = int((face > 0.5).sum() + (other <= 0.5).sum())
    print(f"  held-out crops: {right} of {len(face) + len(other)} right at 0.5")
    for threshold in (0.5, 0.9):
        hits, alarms = int((face > threshold).sum()), int((other > threshold).sum())
        print(
            f"  at {threshold}: {hits} of {len(face)} faces found, "
            f"{alarms} of {len(other)} non-faces taken for one"
        )


@torch.no_grad()
def report_false_alarms(net: nn.Sequential) -> None:
    """Windows of the held-out photographs that are taken for a face."""
    dense = slide(net, (FACE_SIZE, FACE_SIZE))
    for name, picture in held_out_photographs().items():
        scores = torch.cat(
            [
                dense(small).softmax(1)[0, 1].flatten()
                for _, small in pyramid(picture, np.geomspace(0.1, 0.5, 9))
            ]
        )
        above = [f"{int((scores > t).sum())} > {t}" for t in (0.5, 0.9, 0.99)]
        print(f"  {name}: {len(scores)} windows, {', '.join(above)}, max {scores.max():.4f}")


Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""

ASTRONAUT_FACE: Box = (175, 65, 275, 175)  # in data.astronaut(), 512 x 512, by eye


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (sum(areas) - both)


@torch.no_grad()
def scored_boxes(net: nn.Sequential, image: Tensor, scale: float) -> list[tuple[float, Box]]:
    """Every window of `image` [1, 1, h, w] that scores > 0.05, as a box of the unscaled picture."""
    score = slide(net, (FACE_SIZE, FACE_SIZE))(image).softmax(1)[0, 1]
    found: list[tuple[float, Box]] = []
    for row, column in (score > 0.05).nonzero().tolist():
        left, top = 2 * column / scale, 2 * row / scale
        side = FACE_SIZE / scale
        found.append((float(score[row, column]), (left, top, left + side, top + side)))
    return found


def suppress(found: list[tuple[float, Box]], limit: float = 0.3) -> list[tuple[float, Box]]:
    """Greedy non-maximum suppression: drop boxes that overlap a better one by more than `limit`."""
    kept: list[tuple[float, Box]] = []
    for score, box in sorted(found, reverse=True):
        if all(overlap(box, better) <= limit for _, better in kept):
            kept.append((score, box))
    return kept


def report_astronaut(net: nn.Sequential) -> None:
    """Slide over the astronaut, whom training never saw; print the best window and the next."""
    picture = grey(data.astronaut())
    everything: list[tuple[float, Box]] = []
    for scale, image in pyramid(picture, np.arange(20, 31) / 100):
        found = scored_boxes(net, image, image.shape[2] / len(picture))
        everything += found
        print(f"  astronaut x {scale:.2f}: {describe(suppress(found))}")
    print(f"  astronaut, all scales together: {describe(suppress(everything))}")
    for name, method in (("bilinear", Resampling.BILINEAR), ("Lanczos", Resampling.LANCZOS)):
        small = Image.fromarray(data.astronaut()).convert("L").resize((128, 128), method)
        image = torch.from_numpy(grey(np.asarray(small)))[None, None]
        kept = suppress(scored_boxes(net, image, 0.25))
        print(f"  astronaut x 0.25, Pillow's {name}: {describe(kept)}")


def describe(kept: list[tuple[float, Box]]) -> str:
    """One line on the boxes left after suppression, best first."""
    if not kept:
        return "nothing found"
    score, box = kept[0]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top, right, bottom = ASTRONAUT_FACE
    centred = "inside" if left < x < right and top < y < bottom else "OUTSIDE"
    others = max((other for other, _ in kept[1:]), default=0.0)
    return (
        f"best {score:.4f} at ({box[0]:.0f}, {box[1]:.0f})-({box[2]:.0f}, {box[3]:.0f}), "
        f"IoU with the face {overlap(box, ASTRONAUT_FACE):.2f}, centre {centred}; "
        f"next box {others:.4f}"
    )


# --- digits8 -------------------------------------------------------------------------------------


def train_digits() -> nn.Sequential:
    """Train digits8 on 70 % of scikit-learn's digits and print how it does on the other 30 %."""
    torch.manual_seed(8)
    digits = load_digits()
    pixels = (digits.images / 16).astype(np.float32)[:, None]
    split = train_test_split(
        pixels, digits.target, test_size=0.3, stratify=digits.target, random_state=0
    )
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in split)
    net = digit_net()
    epochs, batch = 60, 64
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = epochs * (len(train_x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(train_x))[: len(train_x) // batch * batch]
        for rows in order.split(batch):
            noisy = train_x[rows] + 0.05 * torch.randn(batch, 1, 8, 8)
            loss = F.cross_entropy(net(noisy.clamp(0, 1)), train_y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    for name, x, y in (("training", train_x, train_y), ("held-out", test_x, test_y)):
        with torch.no_grad():
            right = int((net(x).argmax(1) == y).sum())
        print(f"  {name} digits: {right} of {len(y)} right ({right / len(y):.2%})")
    return net


# --- dress64x128 ---------------------------------------------------------------------------------


def draw_dress(*, padded: bool) -> nn.Sequential:
    """He-scaled random weights, biases of standard deviation 0.1; print the outputs' size."""
    net = dress_net(padded=padded)
    torch.manual_seed(64128)  # only now: both variants draw the same convolution weights
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.normal_(layer.bias, std=0.1)
    with torch.no_grad():
        scores = net(torch.rand(32, 3, 128, 64))
        dense = slide(net, (128, 64))(torch.rand(1, 3, 512, 1024))
    print(
        f"  scores of 32 random crops: mean {scores.mean():.3f}, std {scores.std():.3f}; "
        f"1024x512 image: {dense.shape[3]}x{dense.shape[2]} windows"
    )
    return net.eval()


# --- Export --------------------------------------------------------------------------------------

Exporter = Literal["torch.export", "torchscript"]


@dataclass(frozen=True)
class Recipe:
    """How one model is made, what its ONNX interface is called, and which exporter writes it."""

    make: Callable[[], nn.Sequential]
    shape: tuple[int, int, int]
    output: str
    exporter: Exporter
    softmax: bool = False


RECIPES = {
    "face25": Recipe(train_face, (1, 25, 25), "scores", "torch.export", softmax=True),
    "digits8": Recipe(train_digits, (1, 8, 8), "logits", "torchscript"),
    "dress64x128": Recipe(lambda: draw_dress(padded=False), (3, 128, 64), "scores", "torchscript"),
    "dress64x128_padded": Recipe(
        lambda: draw_dress(padded=True), (3, 128, 64), "scores", "torch.export"
    ),
}


def export(net: nn.Module, recipe: Recipe, path: Path) -> onnx.ModelProto:
    """Write `net` as one ONNX file with a symbolic batch, without any trace of this machine."""
    example = torch.rand(2, *recipe.shape)
    common: dict[str, Any] = {
        "opset_version": OPSET,
        "input_names": ["image"],
        "output_names": [recipe.output],
    }
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own deprecations: nothing that we could mend
        if recipe.exporter == "torch.export":
            batch = ({0: torch.export.Dim("N", min=1)},)
            program = torch.onnx.export(
                net, (example,), dynamo=True, dynamic_shapes=batch, verbose=False, **common
            )
            assert program is not None
            model = program.model_proto
        else:
            axes = {"image": {0: "N"}, recipe.output: {0: "N"}}
            torch.onnx.export(net, (example,), path, dynamo=False, dynamic_axes=axes, **common)
            model = onnx.load(path)
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= IR_VERSION_MAX, model.ir_version
    onnx.save(model, path)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove stack traces, documentation and the exporter's notes in place."""
    graph = model.graph
    for owner in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


def report_export(net: nn.Sequential, recipe: Recipe, model: onnx.ModelProto, path: Path) -> None:
    """Compare the file with torch through ONNX's reference evaluator and print what is in it."""
    evaluator = onnx.reference.ReferenceEvaluator(str(path))
    compared: dict[str, nn.Module] = {recipe.output: net}
    if recipe.softmax:  # a saturated softmax hides differences: compare its input, too
        compared[model.graph.node[-1].input[0]] = net[:-1]
    worst = 0.0
    for batch in (1, 3):
        image = torch.rand(batch, *recipe.shape, generator=torch.Generator().manual_seed(batch))
        for name, part in compared.items():
            with torch.no_grad():
                expected = part(image).numpy()
            (result,) = evaluator.run([name], {"image": image.numpy()})
            actual = np.asarray(result, np.float32)
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
            worst = max(worst, float(np.abs(actual - expected).max()))
    print(f"  {' '.join(node.op_type for node in model.graph.node)}")
    print(
        f"  {path.name}: {path.stat().st_size} bytes, opset {model.opset_import[0].version}, "
        f"IR {model.ir_version}, {recipe.exporter} exporter; reference evaluator against torch: "
        f"max |difference| {worst:.1e}"
    )


def main() -> None:
    """Make the models named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description="Make the small models of models/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder (%(default)s)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(RECIPES))
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # "torchvision is not installed"
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(mode=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or RECIPES:
        print(name)
        recipe, start = RECIPES[name], time.perf_counter()
        net = recipe.make()
        whole = nn.Sequential(*net, nn.Softmax(dim=1)).eval() if recipe.softmax else net.eval()
        path = arguments.out / f"{name}.onnx"
        report_export(whole, recipe, export(whole, recipe, path), path)
        print(f"  {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
