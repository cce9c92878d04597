"""Running models: on which inputs, in which session, in which arithmetic."""
