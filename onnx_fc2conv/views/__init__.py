"""Interpreting the head of a classifier as views of feature maps; see `view` for the idea."""

from onnx_fc2conv.options import Pool
from onnx_fc2conv.views.interpreter import interpret
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.view import FeatureMap, FeatureView
from onnx_fc2conv.views.plan import (
    FcLayer,
    ImageInput,
    LeftAlone,
    OutputMap,
    Plan,
    WindowPooling,
)
from onnx_fc2conv.views.static import interpret_statically
from onnx_fc2conv.views.verdict import output_geometry

__all__ = [
    "Constant",
    "FcLayer",
    "FeatureMap",
    "FeatureView",
    "ImageInput",
    "LeftAlone",
    "OutputMap",
    "Plan",
    "Pool",
    "WindowPooling",
    "interpret",
    "interpret_statically",
    "output_geometry",
]
