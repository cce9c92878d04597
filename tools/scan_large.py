"""Scan an image that is larger than memory: peak memory, speed against one pass, equality.

    python -m tools.scan_large                            (16384x16384; about 3 minutes)
    python -m tools.scan_large --side 8192 --memory 300MB

Each figure is taken in a process of its own, so that peaks do not mix: by turns 50 untiled passes
over 2048x2048 pixels (the model alone in onnxruntime, warm) and the tiled scan, by itself and
through the command line; at last an untiled pass over a 4096x4096 part of the image, whose scores
are compared with the tiled ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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
    """Seconds of a run of the model alone on the corner of the image, the mean, and its scores."""
    from onnx_fc2conv.runtime.session import Session  # noqa: PLC0415
    from onnx_fc2conv.scanning import Settings, prepare  # noqa: PLC0415

    prepared = prepare(model, Settings(memory=10**12, threshold={None: 2.0}))
    scanning = prepared.scanning
    pixels = np.load(image, mmap_mode="r")[:side, :side, None]
    planes = prepared.preprocessing.apply(pixels, scanning.channels, scanning.dtype)
    feeds = {scanning.input: scanning.sample(planes)}
    session = Session(scanning.model)
    for turn in range(1 + times):
        if turn == 1:  # the first one touches the memory
            start = time.perf_counter()
        scores = session.run(feeds, [scanning.output])[scanning.output]
    seconds = (time.perf_counter() - start) / times
    return seconds, scores.reshape(-1, *scores.shape[-2:])


def tiled(model: Path, image: Path, memory: str) -> float:
    """Seconds of a scan of the image: reading, preprocessing, running, writing into memory."""
    from onnx_fc2conv.scanning import Settings, prepare  # noqa: PLC0415
    from onnx_fc2conv.scanning.memory import parse_memory  # noqa: PLC0415
    from onnx_fc2conv.scanning.sources import open_image  # noqa: PLC0415

    prepared = prepare(model, Settings(memory=parse_memory(memory), threshold={None: 2.0}))
    source = open_image(image)
    start = time.perf_counter()
    prepared.run(source)
    return time.perf_counter() - start


def in_child(*arguments: object) -> tuple[float, str, float]:
    """Seconds, output and peak memory in bytes of a process."""
    start = time.perf_counter()
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        child = subprocess.Popen(command, stdout=out, cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        assert os.waitstatus_to_exitcode(status) == 0
        out.seek(0)
        return seconds, out.read(), usage.ru_maxrss * 1024


def measure(model: Path, side: int, memory: str, part: int, rounds: int, folder: Path) -> None:
    """Print all figures."""
    image, scores = folder / "image.npy", folder / "image.scores.npy"
    make_image(image, side)
    given = (__file__, "--image", image, "--model", model)
    options = ("--memory", memory, "--threshold", 2, "-o", folder, "-q", "--overwrite")
    once: list[float] = []
    scans: list[float] = []
    whole: list[float] = []
    peaks: list[list[float]] = [[], [], []]
    for turn in range(2 * rounds + 1):  # the machine's speed may drift: by turns
        if turn % 2 == 0:
            _, text, peak = in_child(*given, "--untiled", 2048)
            once.append(2048**2 / 1e6 / json.loads(text)["seconds"])
            peaks[0].append(peak)
            continue
        _, text, peak = in_child(*given, "--tiled", "--memory", memory)
        scans.append(side**2 / 1e6 / json.loads(text)["seconds"])
        peaks[1].append(peak)
        seconds, _, peak = in_child("-m", "onnx_fc2conv", "scan", model, image, *options)
        whole.append(side**2 / 1e6 / seconds)
        peaks[2].append(peak)
    names = (
        "untiled 2048x2048",
        f"tiled {side}x{side}, --memory {memory}",
        "the same by the command line, with start and picture",
    )
    for name, rates, most in zip(names, (once, scans, whole), peaks, strict=True):
        rate = statistics.median(rates)
        print(
            f"{name}: {rate:.1f} Mpixel/s ({min(rates):.1f} to {max(rates):.1f}, {len(rates)} runs)"
            f" = {rate / statistics.median(once):.0%} of untiled; peak {max(most) / 1e9:.2f} GB"
        )
    corner = (*given, "--untiled", part, "--save", folder / "part.npy")
    _, _, peak = in_child(*corner)
    all_scores, expected = np.load(scores, mmap_mode="r"), np.load(folder / "part.npy")
    found = all_scores[:, : expected.shape[1], : expected.shape[2]]
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--untiled", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tiled", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tiled:
        print(json.dumps({"seconds": tiled(given.model, given.image, given.memory)}))
        return
    if given.untiled is not None:
        seconds, scores = untiled(
            given.model, given.image, given.untiled, times=1 if given.save else 50
        )
        if given.save:
            np.save(given.save, scores)
        print(json.dumps({"seconds": seconds}))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(given.model, given.side, given.memory, given.part, given.rounds, Path(folder))


if __name__ == "__main__":
    main()
