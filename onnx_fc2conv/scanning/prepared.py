"""scan(): score every window of an image of any size, and turn the best into boxes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.reading import ModelSource
from onnx_fc2conv.scanning.detections import Candidates, Selection, candidates, suppress
from onnx_fc2conv.scanning.memory import bytes_per_pixel, parse_memory
from onnx_fc2conv.scanning.model import ScanModel, scan_model
from onnx_fc2conv.scanning.preprocessing import Preprocessing
from onnx_fc2conv.scanning.pyramid import check_scales, resized, scaled_size
from onnx_fc2conv.scanning.result import Level, Scan
from onnx_fc2conv.scanning.runner import Scanner
from onnx_fc2conv.scanning.score_maps import MemoryMap, ScoreMap
from onnx_fc2conv.scanning.sources import ImageSource, open_image
from onnx_fc2conv.scanning.tiles import TilePlan, plan_tiles
from onnx_fc2conv.views.maps.labels import AnyArray

if TYPE_CHECKING:
    pass

__all__ = [
    "Level",
    "PreparedScan",
    "Scan",
    "Settings",
    "as_preprocessing",
    "as_thresholds",
    "prepare",
    "scan",
]

Progress = Callable[[int, int], None]
MapMaker = Callable[[int, float, tuple[int, int, int]], ScoreMap]
"""Makes the map to write from the index of a level, its scale and the shape [K, h, w]."""


@dataclass(frozen=True)
class Settings:
    """The arguments of `scan`, which documents them, without the model and the image.

    In the thresholds, the key None holds for all classes that are not named.
    """

    preprocess: Preprocessing = field(default_factory=Preprocessing)
    scales: tuple[float, ...] = (1.0,)
    memory: int = 10**9
    classes: tuple[int, ...] | None = None
    background: tuple[int, ...] = ()
    threshold: Mapping[int | None, float] = field(default_factory=lambda: {None: 0.5})
    iou: float = 0.3
    agnostic: bool = False

    def selection(self, count: int) -> Selection:
        """Return the classes to find, out of the model's ``count``, and their thresholds.

        Raises:
            ArgumentError: If the model has no such class, or none is left.
        """
        named: tuple[Any, ...] = (
            *(self.classes or ()),
            *self.background,
            *(label for label in self.threshold if label is not None),
        )
        wrong = [label for label in named if not 0 <= label < count]
        if wrong:
            raise ArgumentError(f"there is no class {wrong[0]}; the model has 0 to {count - 1}")
        wanted = range(count) if self.classes is None else self.classes
        labels = tuple(sorted(set(wanted) - set(self.background)))
        if not labels:
            raise ArgumentError("no class is left to find")
        if not 0 <= self.iou <= 1:
            raise ArgumentError(f"iou is from 0 to 1, not {self.iou}")
        default = self.threshold.get(None, 0.5)
        thresholds = {label: self.threshold.get(label, default) for label in labels}
        return Selection(labels, thresholds, self.iou, self.agnostic)


class PreparedScan:
    """A model and settings that scan one image after another.

    Attributes:
        scanning: The model.
        preprocessing: That of the model's metadata, overridden by the settings.
        selection: Which cells become boxes.
        scales: Sizes at which images are scanned, as factors of their own.
    """

    def __init__(self, scanning: ScanModel, settings: Settings) -> None:
        self.scanning = scanning
        self.preprocessing = scanning.preprocessing.overridden(settings.preprocess)
        self.selection = settings.selection(scanning.classes)
        check_scales(settings.scales)
        self.scales = settings.scales
        self._most_pixels = max(1, int(settings.memory / bytes_per_pixel(scanning)))
        self._scanner = Scanner(scanning, self.preprocessing)

    def plans(self, source: ImageSource) -> tuple[TilePlan, ...]:
        """Plan the tiles of an image at each scale.

        Raises:
            ArgumentError: If the image does not fit the model, or is too small at some scale.
            RefusedError: If the image must be tiled, and cannot be.
        """
        self.preprocessing.check(source.shape[2], self.scanning.channels)
        sizes = (scaled_size(source.shape[:2], scale) for scale in self.scales)
        return tuple(plan_tiles(self.scanning.geometry, s, self._most_pixels) for s in sizes)

    def run(
        self,
        source: ImageSource,
        maps: MapMaker = lambda _level, _scale, shape: MemoryMap(shape),
        progress: Progress | None = None,
    ) -> Scan:
        """Scan one image.

        Args:
            source: The image.
            maps: Makes the maps that are written.
            progress: Told the number of pixels done, and of all.

        Raises:
            ArgumentError: As `plans`; or if too many windows reach the threshold.
        """
        plans = self.plans(source)
        count = _Count(sum(len(plan) * _pixels(plan) for plan in plans), progress)
        levels: list[Level] = []
        for number, (scale, plan) in enumerate(zip(self.scales, plans, strict=True)):
            scores = maps(number, scale, (self.scanning.classes, *plan.map_size))
            image = resized(source, scale)
            self._scanner.run(image, plan, scores, count.add)
            levels.append(Level(scale, image.shape[:2], plan, scores.array()))
        geometry = self.scanning.geometry
        found = [
            candidates(
                level.scores,
                geometry,
                self.selection,
                size=level.size,
                image=source.shape[:2],
                scale=level.scale,
            )
            for level in levels
        ]
        boxes = suppress(Candidates.joined(found), self.selection)
        return Scan(source, geometry, tuple(levels), self.selection, boxes)


def prepare(
    model: ModelSource,
    settings: Settings,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    output: str | None = None,
) -> PreparedScan:
    """Make a model ready to scan; an original one is converted on the fly.

    Raises:
        Fc2ConvError: As `scan`.
    """
    return PreparedScan(scan_model(model, input_shapes=input_shapes, output=output), settings)


def scan(  # noqa: PLR0913 - the command line's options, all keyword-only
    model: ModelSource,
    image: str | os.PathLike[str] | AnyArray,
    *,
    preprocess: Preprocessing | str | None = None,
    scales: Sequence[float] = (1.0,),
    memory: str | int = "1GB",
    classes: Sequence[int] | None = None,
    background: Sequence[int] = (),
    threshold: float | Mapping[int, float] = 0.5,
    iou: float = 0.3,
    agnostic: bool = False,
    output: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Score every window of an image of any size, and find the best ones.

    Args:
        model: A converted model, or an original one that is converted on the fly.
        image: A file (PNG, JPEG, TIFF, .npy, .zarr) or an array [H, W] or [H, W, C].
        preprocess: Preprocessing of the pixels, such as ``"channels=rgb mean=0.5 std=0.5"``;
            overrides that of the model's metadata.
        scales: Sizes at which the image is scanned, as factors of its own.
        memory: Limit for the tensors of one tile, such as ``"1GB"``; it sets the size of tiles.
        classes: Indices of the classes to find. Default: all.
        background: Indices of classes not to find, such as the background.
        threshold: The lowest score of a box, for all classes or by class.
        iou: A box that overlaps a better one of its class by more than this is dropped.
        agnostic: Let boxes of all classes compete: an object has one class.
        output: The output to read, where there are several.
        input_shapes: As for `convert`.
        progress: Called after each tile with the numbers of pixels done and of all pixels.

    Returns:
        The score maps and the boxes, which it can draw.

    Raises:
        ArgumentError: If the image cannot be read or does not fit, or an argument is wrong.
        RefusedError: If the model cannot be converted or gives no map, or cannot be tiled.
        InvalidModelError: If the model is not valid.
        RuntimeUnavailableError: If onnxruntime is not installed.

    Example:
        >>> import numpy as np
        >>> found = scan("models/face25.onnx", np.zeros((60, 80), np.uint8), background=[0])
        >>> found.scores.shape, found.boxes
        ((2, 18, 28), ())
    """
    settings = Settings(
        preprocess=as_preprocessing(preprocess),
        scales=tuple(scales),
        memory=parse_memory(memory) if isinstance(memory, str) else memory,
        classes=None if classes is None else tuple(classes),
        background=tuple(background),
        threshold=as_thresholds(threshold),
        iou=iou,
        agnostic=agnostic,
    )
    prepared = prepare(model, settings, input_shapes=input_shapes, output=output)
    return prepared.run(open_image(image), progress=progress)


def as_preprocessing(given: Preprocessing | str | None) -> Preprocessing:
    """Return a caller's preprocessing: None is the default, text is as on the command line."""
    return given if isinstance(given, Preprocessing) else Preprocessing.parse(given or "")


def as_thresholds(given: float | Mapping[int, float]) -> dict[int | None, float]:
    """Return thresholds by class; the key None holds for all others."""
    if isinstance(given, int | float):
        return {None: given}
    return {label: lowest for label, lowest in given.items()}  # noqa: C416 - other keys


class _Count:
    """Counts pixels, for the progress."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done = total, 0
        self._progress = progress

    def add(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None:
            self._progress(self._done, self._total)


def _pixels(plan: TilePlan) -> int:
    height, width = plan.tile_size
    return height * width
