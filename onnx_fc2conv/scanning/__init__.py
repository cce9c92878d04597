"""Scanning images of any size: tiles, score maps, boxes, pictures."""

from onnx_fc2conv.scanning.detections import Box
from onnx_fc2conv.scanning.prepared import PreparedScan, Settings, prepare, scan
from onnx_fc2conv.scanning.preprocessing import Preprocessing, write_preprocessing
from onnx_fc2conv.scanning.result import Scan
from onnx_fc2conv.scanning.tiles import TilePlan, plan_tiles

__all__ = [
    "Box",
    "PreparedScan",
    "Preprocessing",
    "Scan",
    "Settings",
    "TilePlan",
    "plan_tiles",
    "prepare",
    "scan",
    "write_preprocessing",
]
