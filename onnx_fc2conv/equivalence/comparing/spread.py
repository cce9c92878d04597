"""How relative errors are spread: a histogram and quantiles, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["BINS", "ErrorSpread"]

BINS = ("<1e-9", *(f"1e-{n}…1e-{n - 1}" for n in range(9, 1, -1)), "≥1e-1")
"""The ten bins of a histogram, by relative error; an error of 0 is in the first."""

_PER_DECADE = 20
_LOWEST, _HIGHEST = -20, 20
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(eq=False)
class ErrorSpread:
    """Relative errors ``|a - b| / |a|``, counted by their decimal logarithm.

    Attributes:
        counts: Numbers of errors per twentieth of a decade, from 1e-20 to 1e20; the first holds
            what is smaller, the last what is larger (any error of a zero).
    """

    counts: AnyArray = field(
        default_factory=lambda: np.zeros((_HIGHEST - _LOWEST) * _PER_DECADE, np.int64)
    )

    def add(self, difference: AnyArray, size: AnyArray) -> None:
        """Count the errors of numbers of this size."""
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(difference == 0, 0.0, difference / size)
            places = np.floor((np.log10(relative) - _LOWEST) * _PER_DECADE)
        last = len(self.counts) - 1
        self.counts += np.bincount(
            np.clip(places, 0, last).astype(np.int64).ravel(), minlength=last + 1
        )

    def quantile(self, share: float) -> float:
        """Return the relative error below which this share of the numbers lies, to 12 percent."""
        reached = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return 0.0 if reached == 0 else float(10 ** (_LOWEST + (reached + 1) / _PER_DECADE))

    @property
    def quantiles(self) -> dict[str, float]:
        """The 50th, 90th and 99th percentiles of the relative errors, by share."""
        return {f"{share:g}": self.quantile(share) for share in _QUANTILES}

    @property
    def histogram(self) -> tuple[int, ...]:
        """Numbers of errors in each of `BINS`."""
        edges = [(decade - _LOWEST) * _PER_DECADE for decade in range(-9, 0)]
        return tuple(int(part.sum()) for part in np.split(self.counts, edges))
