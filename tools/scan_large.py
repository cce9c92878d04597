"""Scan an image that is larger than memory: peak memory, speed against one pass, equality.

    python -m tools.scan_large                            (16384x16384; about 6 minutes)
    python -m tools.scan_large --side 8192 --memory 300MB

Each figure is taken in a process of its own, so that peaks do not mix: an untiled pass over
2048x2048 pixels (the fastest of three), the tiled scan through the command line, and an untiled
pass over a 4096x4096 part of the image, whose scores are compared with the tiled ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def make_image(path: Path, side: int) -> None:
    """Smooth noise of 8 bits, written in strips."""
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side))
    rng = np.random.default_rng(0)
    for top in range(0, side, 512):
        coarse = rng.integers(0, 256, (64, side // 8), dtype=np.uint8)
        image[top : top + 512] = coarse.repeat(8, 0).repeat(8, 1)


def untiled(model: Path, image: Path, side: int, times: int) -> tuple[float, np.ndarray]:
    """Seconds of one pass over the corner of the image, and its scores."""
    from onnx_fc2conv.scanning import Settings, prepare  # noqa: PLC0415
    from onnx_fc2conv.scanning.sources import ArraySource  # noqa: PLC0415

    prepared = prepare(model, Settings(memory=10**12, threshold={None: 2.0}))
    part = np.array(np.load(image, mmap_mode="r")[:side, :side, None])
    fastest = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        found = prepared.run(ArraySource(part))
        fastest = min(fastest, time.perf_counter() - start)
        assert len(found.levels[0].plan) == 1
    return fastest, found.scores


def in_child(*arguments: object) -> tuple[float, str, float]:
    """Seconds, output and peak memory in bytes of a process."""
    start = time.perf_counter()
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out, cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        assert os.waitstatus_to_exitcode(status) == 0
        out.seek(0)
        return seconds, out.read(), usage.ru_maxrss * 1024


def measure(model: Path, side: int, memory: str, part: int, folder: Path) -> None:
    """Print all figures."""
    image, scores = folder / "image.npy", folder / "image.scores.npy"
    make_image(image, side)
    _, text, peak = in_child(__file__, "--pass", 2048, "--image", image, "--model", model)
    once = json.loads(text)["seconds"]
    rate = 2048**2 / once
    print(f"untiled 2048x2048: {once:.2f} s, {rate / 1e6:.2f} Mpixel/s, peak {peak / 1e9:.2f} GB")
    options = ("--memory", memory, "--threshold", 2, "-o", folder, "-q")
    seconds, _, peak = in_child("-m", "onnx_fc2conv", "scan", model, image, *options)
    tiled = side**2 / seconds
    print(
        f"tiled {side}x{side}, --memory {memory}: {seconds:.1f} s with start and picture, "
        f"{tiled / 1e6:.2f} Mpixel/s = {tiled / rate:.0%} of untiled, peak {peak / 1e9:.2f} GB"
    )
    _, _, peak = in_child(
        __file__, "--pass", part, "--image", image, "--model", model, "--save", folder / "part.npy"
    )
    whole, expected = np.load(scores, mmap_mode="r"), np.load(folder / "part.npy")
    found = whole[:, : expected.shape[1], : expected.shape[2]]
    same = np.array_equal(found, expected)
    worst = float(np.abs(found - expected).max())
    print(
        f"untiled {part}x{part}: peak {peak / 1e9:.2f} GB; {expected.size:,} scores, "
        f"{'the same bytes' if same else f'largest difference {worst:.1e}'}"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "dress64x128.onnx")
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--part", type=int, default=4096)
    parser.add_argument("--pass", dest="once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once is not None:
        times = 1 if given.save else 3
        seconds, scores = untiled(given.model, given.image, given.once, times)
        if given.save:
            np.save(given.save, scores)
        print(json.dumps({"seconds": seconds}))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(given.model, given.side, given.memory, given.part, Path(folder))


if __name__ == "__main__":
    main()
