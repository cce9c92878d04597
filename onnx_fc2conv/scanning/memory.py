"""The memory that the model needs per pixel of a tile, measured on a small image."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.scanning.model import ScanModel

__all__ = ["bytes_per_pixel", "parse_memory"]

_PROBE = 256
"""Shortest side of the image that is measured, in pixels."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}

_WAITING = 2
"""Inputs in memory besides the running tile's tensors: one being read, one read already."""


def parse_memory(text: str) -> int:
    """``"1GB"`` or ``"500 MB"`` as bytes.

    Raises:
        ArgumentError: If it is not written like that.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ArgumentError(f"--memory {text!r} is not written like --memory 1GB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def bytes_per_pixel(scanning: ScanModel) -> float:
    """Return the peak memory of the live tensors, in bytes per pixel.

    A small image is run with every tensor as an output; onnxruntime itself, which fuses nodes and
    computes some in place, needs a little less.
    """
    size = [
        window + math.ceil(max(0, _PROBE - window) / step) * step
        for window, step in zip(scanning.geometry.window, _steps(scanning), strict=True)
    ]
    image = scanning.sample(np.zeros((scanning.channels, *size), scanning.dtype))
    sizes = _tensor_sizes(scanning, image)
    return (_peak(scanning.model.graph, sizes) + _WAITING * image.nbytes) / math.prod(size)


def _steps(scanning: ScanModel) -> list[int]:
    """Steps by which an image may be larger than a window."""
    geometry = scanning.geometry
    return [
        math.lcm(stride, rule.modulo)
        for stride, rule in zip(geometry.stride, geometry.sizes, strict=True)
    ]


def _tensor_sizes(scanning: ScanModel, image: np.ndarray) -> Mapping[str, int]:
    """Return the bytes of every tensor that a node makes, by name."""
    watched = scanning.model.clone()
    known = set(watched.graph.outputs)
    for node in watched.graph:
        watched.graph.outputs.extend(v for v in node.outputs if v.name and v not in known)
    arrays = Session(watched).run({scanning.input: image})
    return {scanning.input: image.nbytes} | {name: a.nbytes for name, a in arrays.items()}


def _peak(graph: ir.Graph, sizes: Mapping[str, int]) -> int:
    """Return the most bytes alive while any node runs."""
    nodes = list(graph)
    last = {value: index for index, node in enumerate(nodes) for value in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(nodes))
    alive: set[ir.Value] = set(graph.inputs)
    most = 0
    for index, node in enumerate(nodes):
        alive.update(node.outputs)
        most = max(most, sum(sizes.get(value.name or "", 0) for value in alive))
        alive = {value for value in alive if last.get(value, -1) > index}
    return most
