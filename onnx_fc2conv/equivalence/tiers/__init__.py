"""The tiers of a check."""
