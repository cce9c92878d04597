"""fc2conv scan: every window of images of any size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onnx_fc2conv.cli.box_options import (
    Agnostic,
    Background,
    Classes,
    Iou,
    MapOutput,
    Thresholds,
    parse_thresholds,
)
from onnx_fc2conv.cli.options import InputShapes, Quiet
from onnx_fc2conv.errors import ArgumentError, Fc2ConvError
from onnx_fc2conv.interrupts import Interrupted
from onnx_fc2conv.options import parse_input_shapes

if TYPE_CHECKING:
    from onnx_fc2conv.cli.console import Terminal
    from onnx_fc2conv.scanning import PreparedScan, Preprocessing, Scan
    from onnx_fc2conv.scanning.folder import ScanFolder
    from onnx_fc2conv.scanning.preprocessing import Channels

__all__ = ["scan_command"]


class MapName(StrEnum):
    """A format of score maps beside .npy; typer takes no list of a Literal."""

    TIFF = "tiff"
    ZARR = "zarr"


def scan_command(  # noqa: PLR0913 - one parameter an option
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.onnx", help="A converted model, or an original: converted on the fly."
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="PNG, JPEG, TIFF, .npy or .zarr, of any size; a folder of them, or a pattern.",
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="DIR", help="The folder to write.")
    ],
    threshold: Thresholds = None,
    wanted: Classes = None,
    background: Background = None,
    iou: Iou = 0.3,
    agnostic: Agnostic = False,
    scales: Annotated[
        str, typer.Option("--scales", help="Sizes to scan each image at: 1,0.5,0.25.")
    ] = "1",
    channels: Annotated[
        Literal["gray", "rgb", "bgr"] | None,
        typer.Option("--channels", help="Channels of the input. Default: by their number."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", help="Factor of each pixel. Default: 1/255 for 8 bits, to 0..1."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="M,…", help="Subtracted after that: one, or one a channel."),
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", metavar="S,…", help="Divided by after that.")
    ] = None,
    memory: Annotated[
        str,
        typer.Option("--memory", help="Limit for the tensors of one tile; sets its size."),
    ] = "1GB",
    output: MapOutput = None,
    maps: Annotated[
        list[MapName] | None,
        typer.Option("--maps", help="Another format of the score maps, beside .npy. Repeatable."),
    ] = None,
    input_shape: InputShapes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted scan of the same images.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier scan has written.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    r"""Score every window of images of any size; write score maps, boxes and pictures.

    DIR gets IMAGE.scores.npy for each scale (classes × height × width), IMAGE.overlay.png, and
    boxes.json (COCO) and boxes.csv for all images. Images larger than memory are read and scored
    in tiles, which give the same map as the whole image.

    Exit codes: 0 scanned · 2 bad usage or input (other images are scanned) · 3 refused.

    [bold]Examples[/]

      fc2conv scan face25.onnx photo.jpg -o found --scales 0.25,0.2 --threshold 0.9 --background 0

      fc2conv scan dense.onnx slide.tif -o found --memory 4GB

      fc2conv scan dense.onnx slide.tif -o found --memory 4GB --resume
    """
    from onnx_fc2conv.cli.console import Terminal  # noqa: PLC0415 - lazy: --help must be quick
    from onnx_fc2conv.scanning import Settings, prepare  # noqa: PLC0415
    from onnx_fc2conv.scanning.folder import ScanFolder  # noqa: PLC0415
    from onnx_fc2conv.scanning.image_files import image_files  # noqa: PLC0415
    from onnx_fc2conv.scanning.memory import parse_memory  # noqa: PLC0415
    from onnx_fc2conv.scanning.preprocessing import parse_numbers  # noqa: PLC0415
    from onnx_fc2conv.scanning.pyramid import check_scales  # noqa: PLC0415

    terminal = Terminal(quiet=quiet)
    settings = Settings(
        preprocess=_preprocessing(channels, scale, mean, std),
        scales=parse_numbers("--scales", scales),
        memory=parse_memory(memory),
        classes=tuple(wanted) if wanted else None,
        background=tuple(background or ()),
        threshold=parse_thresholds(threshold),
        iou=iou,
        agnostic=agnostic,
    )
    check_scales(settings.scales)
    images = image_files(images)
    target = ScanFolder(folder, overwrite, resume, [name.value for name in maps or ()])
    target.check(images, settings.scales)
    with terminal.progress("Reading the model"):
        shapes = parse_input_shapes(input_shape)
        prepared = prepare(model, settings, input_shapes=shapes, output=output)
    bad = _scan_all(terminal, target, prepared, images)
    if bad:
        raise typer.Exit(2)


def _scan_all(
    terminal: Terminal, target: ScanFolder, prepared: PreparedScan, images: Sequence[Path]
) -> int:
    """Scan one image after another; return the number of failures."""
    bad = 0
    try:
        for image in images:
            start = time.perf_counter()
            try:
                with terminal.bar(image.name) as progress:
                    found, files = target.scan(prepared, image, progress)
            except ArgumentError as error:
                terminal.error(_named(error, image))
                bad += 1
                continue
            _summary(terminal, image, found, time.perf_counter() - start)
            for file in files:
                terminal.line(f"  {file}")
    except (KeyboardInterrupt, Interrupted):
        terminal.error("interrupted; the same command with --resume goes on from here")
        raise typer.Exit(130) from None
    for file in target.finish():
        terminal.line(str(file))
    return bad


def _named(error: Fc2ConvError, image: Path) -> str:
    text = str(error)
    return text if str(image) in text else f"{image}: {text}"


def _summary(terminal: Terminal, image: Path, found: Scan, seconds: float) -> None:
    height, width = found.image.shape[:2]
    windows = sum(level.scores[0].size for level in found.levels)
    count = sum(len(level.plan) for level in found.levels)
    tiles = f"{count} tile" + ("" if count == 1 else "s")
    boxes = f"{len(found.boxes)} box" + ("" if len(found.boxes) == 1 else "es")
    terminal.line(
        f"{image} ({width}×{height}): {boxes} in {windows:,} windows, {tiles}, {seconds:.1f} s"
    )


def _preprocessing(
    channels: Channels | None, scale: str | None, mean: str | None, std: str | None
) -> Preprocessing:
    from onnx_fc2conv.scanning.preprocessing import Preprocessing, parse_numbers  # noqa: PLC0415

    factor = None if scale is None else parse_numbers("--scale", scale)
    if factor is not None and len(factor) != 1:
        raise ArgumentError(f"--scale {scale!r}: it is one number")
    return Preprocessing(
        channels=channels,
        scale=None if factor is None else factor[0],
        mean=None if mean is None else parse_numbers("--mean", mean),
        std=None if std is None else parse_numbers("--std", std),
    )
