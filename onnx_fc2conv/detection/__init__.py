"""A detector in one file: pixels in; boxes, scores and classes out."""

from onnx_fc2conv.detection.append import append_detector, detector
from onnx_fc2conv.detection.check import check_detector

__all__ = ["append_detector", "check_detector", "detector"]
