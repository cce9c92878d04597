"""`Preprocessing.apply` in ONNX: from the pixels of an image to the input of the model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.writer import Place
from onnx_fc2conv.scanning.model import ScanModel
from onnx_fc2conv.scanning.preprocessing import LUMA, Preprocessing

__all__ = ["write_pixels"]


def write_pixels(
    at: Place, image: ir.Value, model: ScanModel, preprocessing: Preprocessing
) -> ir.Value:
    """Write nodes for the model's input, given an image.

    The same operations in the same order and precision as `Preprocessing.apply`: the numbers are
    the same.

    Args:
        at: Where nodes go.
        image: uint8 [H, W, C]; C is 1 or 3 where the channels are gray, RGB or BGR.
        model: The model.
        preprocessing: Preprocessing of its input.
    """
    order = preprocessing.order(model.channels)
    pixels = at.cast(image, ir.DataType.FLOAT)
    if order == "gray":
        pixels = _gray(at, image, pixels)
    elif order is not None:
        pixels = at.node("Expand", pixels, [1, 1, 3])
    if order == "bgr":
        pixels = at.node("Gather", pixels, [2, 1, 0], axis=2)
    pixels = _normalized(at, pixels, preprocessing, model.dtype)
    wanted = ir.DataType.from_numpy(model.dtype)
    if wanted != ir.DataType.FLOAT:
        pixels = at.cast(pixels, wanted)
    return _laid_out(at, pixels, model.axes)


def _gray(at: Place, image: ir.Value, pixels: ir.Value) -> ir.Value:
    """[H, W, 1]: one channel as it is, three by their luminance."""
    colors = at.node("Expand", pixels, [1, 1, 3])  # of one channel: not used below
    weighted = at.node("Mul", colors, LUMA)
    red, green, blue = (at.node("Gather", weighted, [c], axis=2) for c in range(3))
    luminance = at.node("Add", at.node("Add", red, green), blue)
    channels = at.node("Gather", at.node("Shape", image), [2])
    single = at.node("Equal", channels, [1])
    return at.node("Where", single, at.node("Gather", pixels, [0], axis=2), luminance)


def _normalized(
    at: Place, pixels: ir.Value, preprocessing: Preprocessing, dtype: np.dtype[np.generic]
) -> ir.Value:
    """(scale · pixel - mean) / std in float32."""
    factor = preprocessing.factor(np.dtype(np.uint8), dtype)
    if factor != 1:
        pixels = at.node("Mul", pixels, np.array([factor], np.float32))
    if preprocessing.mean is not None:
        pixels = at.node("Sub", pixels, np.array(preprocessing.mean, np.float32))
    if preprocessing.std is not None:
        pixels = at.node("Div", pixels, np.array(preprocessing.std, np.float32))
    return pixels


def _laid_out(at: Place, pixels: ir.Value, axes: tuple[int | None, ...]) -> ir.Value:
    """[H, W, C] with the axes where the model has N, C, H and W, or without them."""
    batch, channels, height, width = axes
    if channels is None:
        pixels = at.squeeze(pixels, [2])
    own = [place for place in (height, width, channels) if place is not None]
    pixels = at.transpose(pixels, sorted(range(len(own)), key=own.__getitem__))
    return pixels if batch is None else at.unsqueeze(pixels, [batch])
