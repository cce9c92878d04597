"""Convolutions as matrices: patches times filters, or one matrix for the whole layer."""

from onnx_fc2conv.matrices.layer import ConvLayer, filter_matrix, patch_index
from onnx_fc2conv.matrices.sparse_file import save_coordinates, save_sparse, sparse_proto
from onnx_fc2conv.matrices.toeplitz import MatrixSize, conv_coordinates, conv_matrix_size

__all__ = [
    "ConvLayer",
    "MatrixSize",
    "conv_coordinates",
    "conv_matrix_size",
    "filter_matrix",
    "patch_index",
    "save_coordinates",
    "save_sparse",
    "sparse_proto",
]
