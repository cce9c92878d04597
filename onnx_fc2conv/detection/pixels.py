"""`Preprocessing.apply` in ONNX: from the pixels of an image to the input of the model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.detection.graph_writer import GraphWriter
from onnx_fc2conv.scanning.model import ScanModel
from onnx_fc2conv.scanning.preprocessing import LUMA, Preprocessing

__all__ = ["write_pixels"]


def write_pixels(
    writer: GraphWriter, image: ir.Value, model: ScanModel, preprocessing: Preprocessing
) -> ir.Value:
    """The model's input for an image.

    The same operations in the same order and precision as `Preprocessing.apply`: the numbers are
    the same.

    Args:
        writer: Where nodes go.
        image: uint8 [H, W, C]; C is 1 or 3 where the channels are gray, RGB or BGR.
        model: The model.
        preprocessing: What its input wants.
    """
    order = preprocessing.order(model.channels)
    pixels = writer.cast(image, ir.DataType.FLOAT)
    if order == "gray":
        pixels = _gray(writer, image, pixels)
    elif order is not None:
        pixels = writer.node("Expand", pixels, [1, 1, 3])
    if order == "bgr":
        pixels = writer.node("Gather", pixels, [2, 1, 0], axis=2)
    pixels = _normalized(writer, pixels, preprocessing, model.dtype)
    wanted = ir.DataType.from_numpy(model.dtype)
    if wanted != ir.DataType.FLOAT:
        pixels = writer.cast(pixels, wanted)
    return _laid_out(writer, pixels, model.axes)


def _gray(writer: GraphWriter, image: ir.Value, pixels: ir.Value) -> ir.Value:
    """[H, W, 1]: one channel as it is, three by their luminance."""
    colors = writer.node("Expand", pixels, [1, 1, 3])  # of one channel: not used below
    weighted = writer.node("Mul", colors, LUMA)
    red, green, blue = (writer.node("Gather", weighted, [c], axis=2) for c in range(3))
    luminance = writer.node("Add", writer.node("Add", red, green), blue)
    channels = writer.node("Gather", writer.node("Shape", image), [2])
    single = writer.node("Equal", channels, [1])
    return writer.node("Where", single, writer.node("Gather", pixels, [0], axis=2), luminance)


def _normalized(
    writer: GraphWriter, pixels: ir.Value, preprocessing: Preprocessing, dtype: np.dtype[np.generic]
) -> ir.Value:
    """(scale · pixel - mean) / std in float32."""
    factor = preprocessing.factor(np.dtype(np.uint8), dtype)
    if factor != 1:
        pixels = writer.node("Mul", pixels, [factor])
    if preprocessing.mean is not None:
        pixels = writer.node("Sub", pixels, preprocessing.mean)
    if preprocessing.std is not None:
        pixels = writer.node("Div", pixels, preprocessing.std)
    return pixels


def _laid_out(writer: GraphWriter, pixels: ir.Value, axes: tuple[int | None, ...]) -> ir.Value:
    """[H, W, C] with the axes where the model has N, C, H and W, or without them."""
    batch, channels, height, width = axes
    if channels is None:
        pixels = writer.squeezed(pixels, 2)
    own = [place for place in (height, width, channels) if place is not None]
    order = tuple(sorted(range(len(own)), key=own.__getitem__))
    if order != tuple(range(len(own))):
        pixels = writer.node("Transpose", pixels, perm=order)
    return pixels if batch is None else writer.unsqueezed(pixels, batch)
