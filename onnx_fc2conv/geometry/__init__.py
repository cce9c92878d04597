"""Receptive-field calculus: where in the image a cell of a feature map looks."""

from onnx_fc2conv.geometry.cell_count import CellCount, output_length
from onnx_fc2conv.geometry.metadata import GEOMETRY_KEY, read_geometry, write_geometry
from onnx_fc2conv.geometry.output import Geometry
from onnx_fc2conv.geometry.receptive_field import AxisField, Misaligned
from onnx_fc2conv.geometry.sliding_window import NoCell, SlidingWindow
from onnx_fc2conv.geometry.verdict import (
    CleanCells,
    ReceptiveField,
    SizeRule,
    TileCells,
    Verdict,
)

__all__ = [
    "GEOMETRY_KEY",
    "AxisField",
    "CellCount",
    "CleanCells",
    "Geometry",
    "Misaligned",
    "NoCell",
    "ReceptiveField",
    "SizeRule",
    "SlidingWindow",
    "TileCells",
    "Verdict",
    "output_length",
    "read_geometry",
    "write_geometry",
]
