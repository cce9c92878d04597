"""How fast the dense pass is, against crops through the original model."""

from onnx_fc2conv.benchmark.bench import bench
from onnx_fc2conv.benchmark.report import BenchReport

__all__ = ["BenchReport", "bench"]
