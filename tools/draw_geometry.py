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


def draw(scores: Geometry, read: Geometry, found: dict[str, Array]) -> None:
    """The picture: an image with a window, its map with the cell, and two maps of differences."""
    sheet = Canvas(1000, 470)
    _draw_image(sheet, scores, (20, 50), 1.15)
    _draw_map(sheet, scores.output_size(SIZE), (340, 50), 18)
    clean = scores.clean_cells
    assert clean is not None
    for line, words in enumerate(
        (
            "one cell for each window,",
            f"{scores.stride[0]}x{scores.stride[1]} pixels apart",
            "",
            f"{clean.total - clean.clean} of {clean.total} cells that the",
            "first FC layer reads see",
            "the border of a crop",
            "",
            "score of a cell and of its",
            f"crop: median difference {found['scores']:.0%}",
        )
    ):
        sheet.text((340, 190 + 18 * line), words)
    rows, columns = found[FINE].shape
    sheet.text((570, 20), "difference between crop and image", size=14)
    _draw_heat(sheet, found[FINE], (570, 50), 24)
    sheet.text((570, 56 + 24 * rows), f"last convolution, {rows}x{columns}")
    rows, columns = found[READ].shape
    _draw_heat(sheet, found[READ], (800, 50), 60)
    sheet.text((800, 56 + 60 * rows), f"what the FC layer reads, {rows}x{columns}")
    sheet.image.save(TARGET, optimize=True)


def _draw_image(sheet: Canvas, scores: Geometry, at: tuple[int, int], scale: float) -> None:
    field = scores.receptive_field
    assert field is not None
    sheet.text((at[0], 20), f"image, {SIZE[0]}x{SIZE[1]} pixels", size=14)
    sheet.box(at, (SIZE[1] * scale, SIZE[0] * scale), line=INK, fill=(245, 245, 245))
    rows, columns = scores.output_size(SIZE)
    for i in range(rows):
        for j in range(columns):
            y, x = (side.start * scale for side in scores.cell_to_window((i, j)))
            sheet.box((at[0] + x - 1, at[1] + y - 1), (2, 2), fill=GREY)
    starts = [s + c * step for s, c, step in zip(field.start, CELL, scores.stride, strict=True)]
    corner = (at[0] + starts[1] * scale, at[1] + starts[0] * scale)
    sheet.box(corner, (field.size[1] * scale, field.size[0] * scale), line=ORANGE, width=2)
    rows_seen, columns_seen = scores.cell_to_window(CELL)
    corner = (at[0] + columns_seen.start * scale, at[1] + rows_seen.start * scale)
    size = (scores.window[1] * scale, scores.window[0] * scale)
    sheet.box(corner, size, line=BLUE, fill=(225, 235, 255), width=2)
    sheet.text((corner[0] + 6, corner[1] + 6), "window", color=BLUE)
    sheet.text(
        (corner[0] + 6, corner[1] + 22), f"{scores.window[0]}x{scores.window[1]}", color=BLUE
    )
    below = at[1] + SIZE[0] * scale + 6
    words = f"orange: receptive field, {field.size[0]}x{field.size[1]} pixels"
    sheet.text((at[0], below), words, color=ORANGE)
    sheet.text((at[0], below + 18), "dots: where windows start", color=GREY)


def _draw_map(sheet: Canvas, cells: tuple[int, ...], at: tuple[int, int], side: int) -> None:
    sheet.text((at[0], 20), f"scores, {cells[0]}x{cells[1]} cells", size=14)
    for i in range(cells[0]):
        for j in range(cells[1]):
            fill = (225, 235, 255) if (i, j) == CELL else (250, 250, 250)
            line = BLUE if (i, j) == CELL else GREY
            sheet.box((at[0] + j * side, at[1] + i * side), (side, side), line=line, fill=fill)


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
