"""Fully connected layers as convolutions: slide an ONNX classifier over images of any size.

>>> import onnx_fc2conv
>>> conversion = onnx_fc2conv.convert("models/face25.onnx")
>>> conversion.heads[0].kernel_shape
(48, 24, 6, 6)

Names are imported when they are first used, so that ``import onnx_fc2conv`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_fc2conv.detection import detector
    from onnx_fc2conv.equivalence import EquivalenceReport, check
    from onnx_fc2conv.errors import (
        ArgumentError,
        Fc2ConvError,
        InvalidModelError,
        Refusal,
        RefusedError,
        RuntimeUnavailableError,
    )
    from onnx_fc2conv.geometry import Geometry, read_geometry
    from onnx_fc2conv.matrices import filter_matrix, patch_index
    from onnx_fc2conv.passes import (
        ConvToFc,
        FcToConv,
        FreeInputSize,
        Normalize,
        ReduceOutputs,
        RefineStride,
        SplitKernels,
    )
    from onnx_fc2conv.pipeline import Conversion, convert, inspect
    from onnx_fc2conv.scanning import Box, Preprocessing, Scan, scan
    from onnx_fc2conv.to_fc import FcConversion, convert_to_fc

__all__ = [
    "ArgumentError",
    "Box",
    "ConvToFc",
    "Conversion",
    "EquivalenceReport",
    "Fc2ConvError",
    "FcConversion",
    "FcToConv",
    "FreeInputSize",
    "Geometry",
    "InvalidModelError",
    "Normalize",
    "Preprocessing",
    "ReduceOutputs",
    "RefineStride",
    "Refusal",
    "RefusedError",
    "RuntimeUnavailableError",
    "Scan",
    "SplitKernels",
    "check",
    "convert",
    "convert_to_fc",
    "detector",
    "filter_matrix",
    "inspect",
    "patch_index",
    "read_geometry",
    "scan",
]

_HOMES = {
    "detection": ("detector",),
    "equivalence": ("EquivalenceReport", "check"),
    "errors": (
        "ArgumentError",
        "Fc2ConvError",
        "InvalidModelError",
        "Refusal",
        "RefusedError",
        "RuntimeUnavailableError",
    ),
    "geometry": ("Geometry", "read_geometry"),
    "matrices": ("filter_matrix", "patch_index"),
    "passes": (
        "ConvToFc",
        "FcToConv",
        "FreeInputSize",
        "Normalize",
        "ReduceOutputs",
        "RefineStride",
        "SplitKernels",
    ),
    "pipeline": ("Conversion", "convert", "inspect"),
    "scanning": ("Box", "Preprocessing", "Scan", "scan"),
    "to_fc": ("FcConversion", "convert_to_fc"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
