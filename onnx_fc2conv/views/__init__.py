"""Interpreting the head of a classifier as views of feature maps; see `view` for the idea."""

from onnx_fc2conv.views.interpreter import interpret
from onnx_fc2conv.views.plan import FcLayer, LeftAlone, OutputMap, Plan
from onnx_fc2conv.views.static import interpret_statically
from onnx_fc2conv.views.verdict import output_geometry
from onnx_fc2conv.views.view import FeatureMap, FeatureView, Known

__all__ = [
    "FcLayer",
    "FeatureMap",
    "FeatureView",
    "Known",
    "LeftAlone",
    "OutputMap",
    "Plan",
    "interpret",
    "interpret_statically",
    "output_geometry",
]
