"""Graphs of onnx_ir: names, a writer, shapes, cost, and what ONNX says of its operators."""
