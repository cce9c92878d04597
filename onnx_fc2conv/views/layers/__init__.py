"""Fully connected layers as convolutions: their operands, kernels, biases, integers."""
