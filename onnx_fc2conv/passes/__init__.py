"""The passes, for anybody's ``onnx_ir.passes.Sequential``; one concern a file."""

from onnx_fc2conv.passes.conv_to_fc import ConvToFc
from onnx_fc2conv.passes.fc_to_conv import FcToConv
from onnx_fc2conv.passes.free_input_size import FreeInputSize
from onnx_fc2conv.passes.normalize import Normalize
from onnx_fc2conv.passes.reduce_outputs import ReduceOutputs
from onnx_fc2conv.passes.refine_stride import RefineStride
from onnx_fc2conv.passes.split_kernels import SplitKernels
from onnx_fc2conv.passes.upgrade_opset import UpgradeOpset

__all__ = [
    "ConvToFc",
    "FcToConv",
    "FreeInputSize",
    "Normalize",
    "ReduceOutputs",
    "RefineStride",
    "SplitKernels",
    "UpgradeOpset",
]
