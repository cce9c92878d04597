"""Feature maps, and the views of them that flattened tensors are."""
