"""Receptive-field calculus: where in the image a cell of a feature map looks."""

from onnx_fc2conv.geometry.receptive_field import AxisField, Misaligned, output_length
from onnx_fc2conv.geometry.sliding_window import SlidingWindow
from onnx_fc2conv.geometry.verdict import OutputGeometry

__all__ = ["AxisField", "Misaligned", "OutputGeometry", "SlidingWindow", "output_length"]
