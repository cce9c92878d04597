"""Model files: read, mapped, written, and what is left in place."""
