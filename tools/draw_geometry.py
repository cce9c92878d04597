"""Draw docs/geometry.png: a window, its cell, and what padding does at the border of a crop.

    python tools/draw_geometry.py             # needs onnxruntime and Pillow; prints the figures

The figures are measured on models/dress64x128_padded.onnx: its feature maps are computed for whole
images and for the crops at interior windows, and compared position by position. Images are seeded
smooth random fields.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from PIL import Image, ImageDraw, ImageFont

import onnx_fc2conv
from onnx_fc2conv import Conversion, Geometry

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models/dress64x128_padded.onnx"
TARGET = ROOT / "docs/geometry.png"
FINE, READ = "relu_3", "max_pool2d_3"
SIZE, IMAGES = (320, 256), 24
CELL = (2, 3)
"""The cell that is drawn; its window lies in the middle of the image."""

SCALE = 2
INK, GREY, BLUE, ORANGE = (25, 25, 25), (150, 150, 150), (30, 90, 200), (220, 110, 0)
PALE_BLUE, PALE_ORANGE, WHITE = (225, 235, 255), (255, 236, 214), (255, 255, 255)

Array = npt.NDArray[Any]


def main() -> int:
    """Measure, print, draw."""
    model = onnx.load(MODEL)
    for name in (FINE, READ):
        shape = ["N", None, None, None]
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        )
    conversion = onnx_fc2conv.convert(model)
    found = measure(model, conversion)
    for name, differences in found.items():
        print(name, np.round(differences, 2).tolist())
    draw(conversion.geometry["scores"], conversion.geometry[READ], found)
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return 0


def measure(model: onnx.ModelProto, conversion: Conversion) -> dict[str, Array]:
    """By map: the mean difference between crop and image at each position of a window, relative.

    By ``scores``: the median relative difference of the scores.
    """
    import onnx_ir as ir  # noqa: PLC0415 - onnxruntime wants bytes

    assert conversion.model is not None
    original = ort.InferenceSession(model.SerializeToString())
    dense = ort.InferenceSession(ir.to_proto(conversion.model).SerializeToString())
    geometry = conversion.geometry["scores"]
    cells = conversion.geometry[FINE].cells, conversion.geometry[READ].cells
    image = smooth_images(np.random.default_rng(0))
    scores, fine, read = dense.run(["scores", FINE, READ], {"image": image})
    rows, columns = geometry.output_size(SIZE)
    interior = [(i, j) for i in range(1, rows - 1) for j in range(1, columns - 1)]
    sums = {FINE: np.zeros((2, *cells[0])), READ: np.zeros((2, *cells[1]))}
    relative = []
    for cell in interior:
        crop = image[:, :, *geometry.cell_to_window(cell)]
        expected = dict(
            zip(
                ("scores", FINE, READ),
                original.run(["scores", FINE, READ], {"image": crop}),
                strict=True,
            )
        )
        for name, whole in ((FINE, fine), (READ, read)):
            step = [
                s // m
                for s, m in zip(geometry.stride, conversion.geometry[name].stride, strict=True)
            ]
            part = [
                slice(c * s, c * s + n)
                for c, s, n in zip(cell, step, expected[name].shape[2:], strict=True)
            ]
            sums[name][0] += np.abs(whole[:, :, *part] - expected[name]).mean((0, 1))
            sums[name][1] += np.abs(expected[name]).mean((0, 1))
        one, two = expected["scores"], scores[:, :, *cell]
        relative.append(np.abs(one - two).max(1) / np.abs(one).max(1))
    found: dict[str, Array] = {name: both[0] / both[1].mean() for name, both in sums.items()}
    return found | {"scores": np.asarray(np.median(relative))}


def smooth_images(rng: np.random.Generator) -> Array:
    """Images in [0, 1] whose neighboring pixels are alike, as in photographs."""
    total = np.zeros((IMAGES, 3, *SIZE), np.float32)
    for period in (4, 8, 16, 32, 64):
        small = rng.random((IMAGES, 3, SIZE[0] // period, SIZE[1] // period), dtype=np.float32)
        total += np.kron(small, np.ones((1, 1, period, period), np.float32)) * period
    low, high = total.min(), total.max()
    made: Array = (total - low) / (high - low)
    return made


class Canvas:
    """A white sheet; coordinates are in points, `SCALE` pixels each."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        self.pen = ImageDraw.Draw(self.image)

    def box(
        self,
        corner: tuple[float, float],
        size: tuple[float, float],
        *,
        line: tuple[int, int, int] | None = None,
        fill: tuple[int, int, int] | None = None,
        width: int = 1,
    ) -> None:
        """A rectangle from its upper left corner (x, y) and its size."""
        (x, y), (w, h) = corner, size
        edges = [n * SCALE for n in (x, y, x + w, y + h)]
        self.pen.rectangle(edges, outline=line, fill=fill, width=width * SCALE)

    def text(
        self,
        at: tuple[float, float],
        words: str,
        *,
        size: int = 12,
        color: tuple[int, int, int] = INK,
        middle: bool = False,
    ) -> None:
        """Words at a point: their upper left corner, or their middle."""
        font = ImageFont.load_default(size * SCALE)
        where = (at[0] * SCALE, at[1] * SCALE)
        self.pen.text(where, words, fill=color, font=font, anchor="mm" if middle else "la")

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A level arrow to the right."""
        (x, y), (tip, _) = start, end
        line = [n * SCALE for n in (x, y, tip, y)]
        self.pen.line(line, fill=BLUE, width=2 * SCALE)
        head = [(tip, y), (tip - 8, y - 4), (tip - 8, y + 4)]
        self.pen.polygon([(a * SCALE, b * SCALE) for a, b in head], fill=BLUE)


def draw(scores: Geometry, read: Geometry, found: dict[str, Array]) -> None:
    """The picture: a window and its cell; the same window as a crop; where the two differ."""
    sheet = Canvas(1080, 520)
    clean = scores.clean_cells
    assert clean is not None
    sheet.text((20, 14), "1  A cell scores a window", size=16)
    _draw_image(sheet, scores, (20, 72), 1.15)
    _draw_map(sheet, scores, (370, 174), 18, 1.15)
    down, right = scores.stride
    for line, words in enumerate(
        (
            "Next cell = next window,",
            f"{down} pixels down or {right} right.",
        )
    ):
        sheet.text((370, 308 + 18 * line), words)
    sheet.text((600, 14), "2  The window cut out", size=16)
    _draw_crop(sheet, scores, (600, 72), 1.15)
    rows, columns = found[FINE].shape
    sheet.text((790, 14), "3  What the border changes", size=16)
    sheet.text((790, 44), f"last convolution, {rows}x{columns}")
    _draw_heat(sheet, found[FINE], (790, 72), 18)
    rows, columns = found[READ].shape
    sheet.text((950, 44), f"read by the FC, {rows}x{columns}")
    _draw_heat(sheet, found[READ], (950, 72), 36)
    for line, words in enumerate(
        (
            "Percent: difference between the feature map of",
            "the crop (2) and of the image (1), there.",
            f"0%: a clean cell. The FC layer reads {clean.clean} clean cells",
            f"of {clean.total}, so scores of cell and crop differ:",
            f"by {found['scores']:.0%} in the median.",
        )
    ):
        sheet.text((790, 72 + 18 * 16 + 14 + 18 * line), words)
    sheet.image.save(TARGET, optimize=True)


def _draw_image(sheet: Canvas, scores: Geometry, at: tuple[int, int], scale: float) -> None:
    field = scores.receptive_field
    assert field is not None
    sheet.text((at[0], 44), f"image, {SIZE[0]}x{SIZE[1]} pixels")
    sheet.box(at, (SIZE[1] * scale, SIZE[0] * scale), line=INK, fill=(245, 245, 245))
    rows, columns = scores.output_size(SIZE)
    for i in range(rows):
        for j in range(columns):
            y, x = (side.start * scale for side in scores.cell_to_window((i, j)))
            sheet.box((at[0] + x - 1, at[1] + y - 1), (2, 2), fill=GREY)
    starts = [s + c * step for s, c, step in zip(field.start, CELL, scores.stride, strict=True)]
    corner = (at[0] + starts[1] * scale, at[1] + starts[0] * scale)
    size = (field.size[1] * scale, field.size[0] * scale)
    sheet.box(corner, size, line=ORANGE, fill=PALE_ORANGE, width=2)
    rows_seen, columns_seen = scores.cell_to_window(CELL)
    corner = (at[0] + columns_seen.start * scale, at[1] + rows_seen.start * scale)
    _draw_window(sheet, scores, corner, scale)
    below = at[1] + SIZE[0] * scale + 6
    words = f"orange: {field.size[0]}x{field.size[1]} pixels that the cell sees"
    sheet.text((at[0], below), words, color=ORANGE)
    sheet.text((at[0], below + 18), "dots: where the other windows start", color=GREY)


def _draw_window(
    sheet: Canvas, scores: Geometry, corner: tuple[float, float], scale: float
) -> None:
    size = (scores.window[1] * scale, scores.window[0] * scale)
    sheet.box(corner, size, line=BLUE, fill=PALE_BLUE, width=2)
    sheet.text((corner[0] + 6, corner[1] + 6), "window", color=BLUE)
    words = f"{scores.window[0]}x{scores.window[1]}"
    sheet.text((corner[0] + 6, corner[1] + 22), words, color=BLUE)


def _draw_crop(sheet: Canvas, scores: Geometry, at: tuple[int, int], scale: float) -> None:
    """The window alone, with padding where the image had pixels."""
    field = scores.receptive_field
    assert field is not None
    sheet.text((at[0], 44), "what the original model saw")
    before = [-start * scale for start in field.start]
    size = [n * scale for n in field.size]
    sheet.box(at, (size[1], size[0]), line=ORANGE, fill=WHITE, width=2)
    step = 10
    for y in range(step // 2, int(size[0]), step):
        for x in range(step // 2, int(size[1]), step):
            sheet.text((at[0] + x, at[1] + y), "0", size=7, color=ORANGE, middle=True)
    _draw_window(sheet, scores, (at[0] + before[1], at[1] + before[0]), scale)
    for line, words in enumerate(("orange: zeros, which", "the layers pad with")):
        sheet.text((at[0], at[1] + size[0] + 6 + 18 * line), words, color=ORANGE)


def _draw_map(
    sheet: Canvas, scores: Geometry, at: tuple[int, int], side: int, scale: float
) -> None:
    """The scores, and an arrow from the window in the image beside them to its cell."""
    cells = scores.output_size(SIZE)
    sheet.text((at[0], at[1] - 22), f"scores, {cells[0]}x{cells[1]} cells")
    for i in range(cells[0]):
        for j in range(cells[1]):
            fill = PALE_BLUE if (i, j) == CELL else (250, 250, 250)
            line = BLUE if (i, j) == CELL else GREY
            sheet.box((at[0] + j * side, at[1] + i * side), (side, side), line=line, fill=fill)
    _, columns = scores.cell_to_window(CELL)
    y = at[1] + (CELL[0] + 0.5) * side
    start, end = 20 + columns.stop * scale, at[0] + (CELL[1] + 0.5) * side
    sheet.arrow((start, y), (end, y))


def _draw_heat(sheet: Canvas, values: Array, at: tuple[int, int], side: int) -> None:
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            strength = min(1.0, float(value))
            fill = (255, int(255 - 150 * strength), int(255 - 235 * strength))
            corner = (at[0] + j * side, at[1] + i * side)
            sheet.box(corner, (side, side), line=GREY, fill=fill)
            middle = (corner[0] + side / 2, corner[1] + side / 2)
            sheet.text(middle, f"{value:.0%}", size=max(8, side // 4), middle=True)


if __name__ == "__main__":
    sys.exit(main())
