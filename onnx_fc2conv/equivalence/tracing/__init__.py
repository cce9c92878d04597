"""What the two models have in common: tensors, layers, and where elements come from."""
