"""Graphs of onnx_ir: names, and what is true of them whatever is done to them."""
