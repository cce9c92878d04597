"""The model that scans: converted, with one image input, and the map that is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.geometry import Geometry, read_geometry
from onnx_fc2conv.scanning.preprocessing import Preprocessing, read_preprocessing
from onnx_fc2conv.views.inputs import image_axes, model_inputs
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["ScanModel", "choose_map", "scan_model"]


@dataclass(frozen=True)
class ScanModel:
    """A converted model and the facts about it that a scan needs.

    Attributes:
        model: The model.
        input: Name of its image input.
        axes: Which axes of the input are [N, C, H, W], in that order; None for the batch or the
            channels if it has no such axis.
        channels: Number of channels of the input.
        dtype: Type of the input.
        output: Name of the map that is read.
        classes: Number of its channels.
        geometry: Geometry of the map.
        preprocessing: Preprocessing in the model's metadata.
    """

    model: ir.Model
    input: str
    axes: tuple[int | None, ...]
    channels: int
    dtype: np.dtype[Any]
    output: str
    classes: int
    geometry: Geometry
    preprocessing: Preprocessing

    def sample(self, planes: AnyArray) -> AnyArray:
        """Lay [C, H, W] out as the model's input, a batch of one."""
        lacks = tuple(place for place, axis in enumerate(self.axes) if axis is None)
        own = planes[None].squeeze(lacks)
        return own.transpose(np.argsort([axis for axis in self.axes if axis is not None]))

    @property
    def digest(self) -> str:
        """SHA-256 of the model, to recognize it."""
        return hashlib.sha256(ir.to_proto(self.model).SerializeToString()).hexdigest()


def scan_model(
    source: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    output: str | None = None,
) -> ScanModel:
    """Return the model ready to scan; an original one is converted on the fly.

    Args:
        source: A path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.
        input_shapes: As for `convert`, of a model that is not converted.
        output: The output to read; may be left out where there is one map.

    Raises:
        RefusedError: If the model cannot be converted, or gives no map of windows.
        ArgumentError: If the output does not exist, there are several maps or inputs, or images do
            not fit.
        InvalidModelError: If the model is not valid.
    """
    from onnx_fc2conv.pipeline import convert  # noqa: PLC0415 - pipeline is large, and may be idle

    model = as_model(source)
    geometries = read_geometry(model)
    if not geometries:
        conversion = convert(model, input_shapes=input_shapes)
        assert conversion.model is not None
        kept = dict(model.metadata_props)
        model, geometries = conversion.model, dict(conversion.geometry)
        model.metadata_props.update(kept)
    name, geometry = choose_map(geometries, output)
    inputs = model_inputs(model.graph)
    if len(inputs) != 1:
        names = ", ".join(value.name or "" for value in inputs)
        raise ArgumentError(f"a scan feeds one image input; the model has the inputs {names}")
    (image,) = inputs
    axes = image_axes(model.graph).get(image, ())
    if len(axes) != 4 or None in axes[2:] or image.shape is None or image.dtype is None:
        raise ArgumentError(f"the input {image.name} is no image with a height and a width")
    channels = 1 if axes[1] is None else image.shape[axes[1]]
    scores = next(value for value in model.graph.outputs if value.name == name)
    shape = [] if scores.shape is None else list(scores.shape)
    classes = shape[1] if len(shape) == 4 else 1
    if not isinstance(channels, int) or not isinstance(classes, int) or len(shape) not in (3, 4):
        raise ArgumentError(f"the output {name} of shape {shape} is no map of scores")
    return ScanModel(
        model=model,
        input=image.name or "",
        axes=axes,
        channels=channels,
        dtype=image.dtype.numpy(),
        output=name,
        classes=classes,
        geometry=geometry,
        preprocessing=read_preprocessing(model),
    )


def choose_map(geometries: Mapping[str, Geometry], wanted: str | None) -> tuple[str, Geometry]:
    """Return the output to read, and its geometry.

    Raises:
        ArgumentError: If there is no such output, or several could be meant.
        RefusedError: If it has no cell for each window.
    """
    if wanted is not None and wanted not in geometries:
        raise ArgumentError(f"the model has no map {wanted!r}, but: {', '.join(geometries)}")
    named = geometries if wanted is None else {wanted: geometries[wanted]}
    maps = {name: g for name, g in named.items() if all(g.stride) and set(g.cells) == {1}}
    if not maps:
        raise RefusedError([_no_map(name, geometry) for name, geometry in named.items()])
    if len(maps) > 1:
        raise ArgumentError(f"the model has several maps, choose one: {', '.join(maps)}")
    return next(iter(maps.items()))


def _no_map(name: str, geometry: Geometry) -> Refusal:
    return Refusal(
        "no-map",
        f"output {name}",
        f"it has no cell for each window of an image: {geometry.why}",
    )
