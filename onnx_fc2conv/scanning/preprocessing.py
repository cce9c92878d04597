"""From pixels to the model's input: channels, scale, mean, standard deviation.

input = (scale · pixel - mean) / std, per channel, as in training. It is declared once, and stored
in the model's metadata as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, InvalidModelError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = [
    "LUMA",
    "PREPROCESS_KEY",
    "Channels",
    "Preprocessing",
    "parse_numbers",
    "read_preprocessing",
    "write_preprocessing",
]

Channels = Literal["gray", "rgb", "bgr"]

PREPROCESS_KEY = "fc2conv.preprocess"
"""Key in the metadata of a model."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray (ITU-R BT.601-7, section 2.5.1; Pillow's "L")."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the model's input; the default None fits most models.

    Attributes:
        channels: Their order in the input. None: gray for a model of one channel, RGB for three; an
            image with as many channels as any other model takes is left as it is.
        scale: Factor of each pixel. None: for an input of floats, the factor that takes the range
            of the pixels' integer type to 0..1 (1/255 for 8 bits); 1 otherwise.
        mean: Subtracted after scaling, one number or one per channel. None: 0.
        std: Divisor after that, likewise. None: 1.
    """

    channels: Channels | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.channels not in (None, *get_args(Channels)):
            raise ArgumentError(f"channels are gray, rgb or bgr, not {self.channels!r}")
        numbers = (self.scale or 0.0, *(self.mean or ()), *(self.std or ()))
        if not np.isfinite(numbers).all() or self.scale == 0 or 0 in (self.std or ()):
            raise ArgumentError("scale, mean and std are finite numbers, scale and std not 0")

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Parse ``"channels=bgr scale=1 mean=104,117,123"``.

        Raises:
            ArgumentError: If it is not written like that.
        """
        found: dict[str, Any] = {}
        for word in text.split():
            key, equals, value = word.partition("=")
            if not equals or key not in ("channels", "scale", "mean", "std") or key in found:
                raise ArgumentError(
                    f"--preprocess {text!r} is not written like --preprocess "
                    '"channels=rgb scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225"'
                )
            found[key] = value if key == "channels" else parse_numbers(f"--preprocess {key}", value)
        if "scale" in found:
            found["scale"] = found["scale"][0] if len(found["scale"]) == 1 else float("nan")
        return cls(**found)

    def overridden(self, other: Preprocessing) -> Preprocessing:
        """Return this preprocessing, overridden where the other sets something."""
        given = {key: value for key, value in asdict(other).items() if value is not None}
        return replace(self, **given)

    def check(self, image_channels: int, model_channels: int) -> None:
        """Check that an image can become the model's input.

        Raises:
            ArgumentError: If the numbers of channels do not fit.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, model_channels):
                raise ArgumentError(
                    f"{name} has {len(values)} numbers, and the model {model_channels} channels"
                )
        wanted = self.order(model_channels)
        if wanted is None:
            fits = image_channels == model_channels
        else:
            fits = image_channels in (1, 3) and model_channels == (1 if wanted == "gray" else 3)
        if not fits:
            raise ArgumentError(
                f"the image has {image_channels} channels, the model takes {model_channels}"
                + (f" ({wanted})" if wanted else "")
            )

    def apply(self, pixels: AnyArray, channels: int, dtype: np.dtype[Any]) -> AnyArray:
        """Return the input of the model.

        Every element depends on its own pixel only, so that tiles and whole images agree.

        Args:
            pixels: [height, width, image's channels].
            channels: Number of channels that the model takes.
            dtype: Type of its input.

        Returns:
            [channels, height, width], contiguous.
        """
        factor = self.factor(pixels.dtype, dtype)
        order = self.order(channels)
        if order == "gray" and pixels.shape[2] == 3:
            planes = [_gray(pixels)]
        elif order in ("rgb", "bgr") and pixels.shape[2] == 1:
            planes = [pixels[..., 0]] * 3
        else:
            planes = [pixels[..., c] for c in range(pixels.shape[2])]
            planes = planes[::-1] if order == "bgr" else planes
        result = np.empty((len(planes), *pixels.shape[:2]), dtype)
        for channel, plane in enumerate(planes):
            self._normalize(plane, factor, channel, result[channel])
        return result

    def _normalize(self, plane: AnyArray, factor: float, channel: int, target: AnyArray) -> None:
        """Write one channel of the input, computed in float32 unless it is only copied."""
        if factor == 1 and self.mean is None and self.std is None:
            target[...] = plane
            return
        values = target if target.dtype == np.float32 else np.empty(target.shape, np.float32)
        np.multiply(plane, np.float32(factor), out=values, dtype=np.float32, casting="unsafe")
        if self.mean is not None:
            values -= np.float32(self.mean[channel % len(self.mean)])
        if self.std is not None:
            values /= np.float32(self.std[channel % len(self.std)])
        if values is not target:
            target[...] = values

    def factor(self, pixels: np.dtype[Any], model: np.dtype[Any]) -> float:
        """Return the factor of pixels of this type for an input of the model's type."""
        if self.scale is not None:
            return self.scale
        if pixels.kind in "ui" and model.kind not in "ui":
            return 1 / float(np.iinfo(pixels).max)
        return 1.0

    def order(self, channels: int) -> Channels | None:
        """Return the order of a model's channels; None if it is unknown."""
        return self.channels or cast("Channels | None", {1: "gray", 3: "rgb"}.get(channels))


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """``"0.485,1/255"`` as numbers.

    Raises:
        ArgumentError: If it is not written like that.
    """
    try:
        return tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as error:
        raise ArgumentError(f"{option} {text!r}: numbers are written like 0.5,1/255") from error


def write_preprocessing(model: ir.Model, preprocessing: Preprocessing) -> None:
    """Store the preprocessing in the model's metadata."""
    said = {key: value for key, value in asdict(preprocessing).items() if value is not None}
    model.metadata_props[PREPROCESS_KEY] = json.dumps({"schema": 1, **said})


def read_preprocessing(model: ir.Model) -> Preprocessing:
    """Read the preprocessing in the model's metadata; the default if it has none.

    Raises:
        InvalidModelError: If it cannot be read.
    """
    text = model.metadata_props.get(PREPROCESS_KEY)
    if text is None:
        return Preprocessing()
    try:
        stored = json.loads(text)
        if stored.pop("schema") != 1:
            raise ValueError("its schema is not 1")
        for key in ("mean", "std"):
            if key in stored:
                stored[key] = tuple(float(value) for value in stored[key])
        return Preprocessing(**stored)
    except (ValueError, TypeError, KeyError, AttributeError, ArgumentError) as error:
        raise InvalidModelError(f"the model's {PREPROCESS_KEY} cannot be read: {error}") from error


def _number(text: str) -> float:
    over, slash, under = text.partition("/")
    return float(over) / float(under) if slash else float(over)


def _gray(pixels: AnyArray) -> AnyArray:
    red, green, blue = (
        pixels[..., channel].astype(np.float32) * np.float32(weight)
        for channel, weight in enumerate(LUMA)
    )
    gray: AnyArray = red + green + blue
    return gray
