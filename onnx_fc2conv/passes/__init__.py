"""The passes, for anybody's ``onnx_ir.passes.Sequential``; one concern a file."""

from onnx_fc2conv.passes.conv_to_fc import ConvToFc
from onnx_fc2conv.passes.fc_to_conv import FcToConv
from onnx_fc2conv.passes.free_input_size import FreeInputSize
from onnx_fc2conv.passes.lift_opset import LiftOpset
from onnx_fc2conv.passes.normalize import Normalize
from onnx_fc2conv.passes.reduce_outputs import ReduceOutputs
from onnx_fc2conv.passes.split_kernels import SplitKernels

__all__ = [
    "ConvToFc",
    "FcToConv",
    "FreeInputSize",
    "LiftOpset",
    "Normalize",
    "ReduceOutputs",
    "SplitKernels",
]
