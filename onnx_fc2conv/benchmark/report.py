"""The results of a benchmark, for people and machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["BenchReport", "Latency", "SizeResult", "Timing"]


@dataclass(frozen=True)
class Timing:
    """Runs of one model.

    Attributes:
        seconds: Time of each run.
        peak: Peak memory of the process, in bytes: Python and onnxruntime included.
        cells: Shape of the first output; of crops, their number.
    """

    seconds: tuple[float, ...]
    peak: int
    cells: tuple[int, ...]

    @property
    def median(self) -> float:
        """The median time."""
        return median(self.seconds)

    def as_dict(self) -> dict[str, object]:
        """Median and spread, and every run."""
        return {
            "seconds": {
                "median": self.median,
                "min": min(self.seconds),
                "max": max(self.seconds),
                "runs": list(self.seconds),
            },
            "peak_bytes": self.peak,
        }


@dataclass(frozen=True)
class SizeResult:
    """One image size.

    Attributes:
        size: Spatial size of the image.
        stride: Pixels between neighboring windows.
        windows: Number of windows in the image.
        dense: The dense pass over the image.
        batched: Crops through the original, in batches.
        single: Crops through the original, one by one.
        tiled: The dense pass in tiles of a quarter of the image at most; None where there are none.
        tile: Spatial size of a tile.
        batch: Crops in a batch.
        dense_macs: Multiply-adds of the dense pass; None where shapes are not known.
        crop_macs: Multiply-adds of the original for one crop.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    windows: int
    dense: Timing
    batched: Timing
    single: Timing
    tiled: Timing | None
    tile: tuple[int, ...] | None
    batch: int
    dense_macs: int | None
    crop_macs: int | None

    @property
    def rates(self) -> dict[str, float]:
        """Windows per second of each way."""
        rates = {
            "dense": self.windows / self.dense.median,
            "batched": self.batched.cells[0] / self.batched.median,
            "single": self.single.cells[0] / self.single.median,
        }
        if self.tiled is not None:
            rates["tiled"] = self.windows / self.tiled.median
        return rates

    @property
    def ratio(self) -> float:
        """How much faster the dense pass is than batched crops.

        The median over the ratios of consecutive runs: whatever slows the machine
        slows both.
        """
        crops = self.batched.cells[0]
        return median(
            (self.windows / dense) / (crops / batched)
            for dense, batched in zip(self.dense.seconds, self.batched.seconds, strict=True)
        )

    @property
    def ceiling(self) -> float | None:
        """The ratio that multiply-adds promise."""
        if not self.dense_macs or self.crop_macs is None:
            return None
        return self.windows * self.crop_macs / self.dense_macs

    def as_dict(self) -> dict[str, object]:
        """All of it as plain values."""
        rates = self.rates
        ways = {"dense": self.dense, "batched": self.batched, "single": self.single}
        if self.tiled is not None:
            ways["tiled"] = self.tiled
        return {
            "size": list(self.size),
            "stride": list(self.stride),
            "windows": self.windows,
            "batch": self.batch,
            "tile": None if self.tile is None else list(self.tile),
            **{
                name: {"windows_per_second": rates[name], **timing.as_dict()}
                for name, timing in ways.items()
            },
            "multiply_adds": {"dense": self.dense_macs, "crop": self.crop_macs},
            "ratio": self.ratio,
            "ceiling": self.ceiling,
            "share_of_ceiling": None if self.ceiling is None else self.ratio / self.ceiling,
        }


@dataclass(frozen=True)
class Latency:
    """Both models at the native size.

    Attributes:
        batch: Number of images.
        original: Time of the original.
        converted: Time of the converted model.
    """

    batch: int
    original: Timing
    converted: Timing


@dataclass(frozen=True)
class BenchReport:
    """A benchmark of one model.

    Attributes:
        model: Its file.
        runtime: Version of onnxruntime.
        threads: Threads within an operator; 0 for onnxruntime's own choice.
        load: Load average of the machine when it began and ended: above the number of cores, the
            figures are those of a busy machine. Windows does not know it: None.
        sizes: Image sizes.
        latencies: The native size.
    """

    model: str
    runtime: str
    threads: int
    load: tuple[float | None, float | None]
    sizes: tuple[SizeResult, ...]
    latencies: Sequence[Latency]

    def as_dict(self) -> dict[str, object]:
        """All of it as plain values."""
        return {
            "schema": 1,
            "model": self.model,
            "onnxruntime": self.runtime,
            "threads": self.threads,
            "load_average": list(self.load),
            "sizes": [size.as_dict() for size in self.sizes],
            "native": [
                {
                    "batch": latency.batch,
                    "original": latency.original.as_dict(),
                    "converted": latency.converted.as_dict(),
                }
                for latency in self.latencies
            ],
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"
