"""The structure that two models share: tensors, layers, and where elements come from."""
