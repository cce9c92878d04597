"""Running models: on which inputs, at which sizes, with which weights."""
