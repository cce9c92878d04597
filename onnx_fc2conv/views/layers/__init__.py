"""Fully connected layers as convolutions: what they read, kernels, biases, integers."""
