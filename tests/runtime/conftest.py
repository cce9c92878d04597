"""Reference models and their conversions, as the check's own tests take them."""

from __future__ import annotations

from tests.equivalence.conftest import case_of

__all__ = ["case_of"]
