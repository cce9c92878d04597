"""The results of a check, as an object and as text."""
