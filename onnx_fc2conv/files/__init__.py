"""Model files: reading, mapping and writing them."""
