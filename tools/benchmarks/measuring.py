"""How long a command takes, and how much memory.

This module and what imports it load nothing large: Linux counts the memory of a parent into the
peak of its children (getrusage(2)).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

__all__ = ["Measured", "measured"]


@dataclass(frozen=True)
class Measured:
    """Several runs of one command.

    Attributes:
        seconds: Wall clock of each run that ended well.
        peak: The largest resident memory of all runs, in bytes.
        written: The bytes that it left behind.
        failure: The last line that it printed, where it did not end well; else empty.
    """

    seconds: tuple[float, ...]
    peak: int
    written: int = 0
    failure: str = ""

    @property
    def median(self) -> float:
        """Median wall clock in seconds; not a number where it failed."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def measured(
    commands: Mapping[str, Sequence[str | Path]],
    *,
    repeats: int,
    limit: float,
    before: Callable[[], None],
    written: Callable[[], int],
    environment: Mapping[str, str] | None = None,
) -> dict[str, Measured]:
    """Run commands in turn, so that what else the machine does meets all of them.

    Args:
        commands: The commands by name.
        repeats: How often each is run.
        limit: Seconds after which one is killed, which is a failure.
        before: Called before each run: it deletes what the last one wrote.
        written: Called after each run: the bytes that it left behind.
        environment: Variables to add.
    """
    runs: dict[str, list[tuple[float, int, str]]] = {name: [] for name in commands}
    left = dict.fromkeys(commands, 0)
    for _ in range(repeats):
        for name, command in commands.items():
            if any(failure for _, _, failure in runs[name]):
                continue
            before()
            runs[name].append(_one(command, limit, {**os.environ, **(environment or {})}))
            left[name] = written()
    return {
        name: Measured(
            tuple(seconds for seconds, _, failure in found if not failure),
            max((peak for _, peak, _ in found), default=0),
            left[name],
            next((failure for _, _, failure in found if failure), ""),
        )
        for name, found in runs.items()
    }


def _one(
    command: Sequence[str | Path], limit: float, environment: Mapping[str, str]
) -> tuple[float, int, str]:
    """Seconds, peak in bytes, and what went wrong."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.DEVNULL,
            stderr=words,
            env=dict(environment),
        )
        timer = Timer(limit, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        lines = [line.strip() for line in words if line.strip()]
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if not process.returncode:
        return seconds, peak, ""
    why = f"killed after {limit:.0f} s" if seconds >= limit else f"exit code {process.returncode}"
    return seconds, peak, f"{why}: {lines[-1][:120]}" if lines else why
