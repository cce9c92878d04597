"""When two arrays count as equal."""
