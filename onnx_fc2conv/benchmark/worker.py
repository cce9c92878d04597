"""One model in a process of its own, so that its peak memory is its own too.

Reads a task as one line of JSON, then runs the model once for each further line; each answer is a
line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

__all__ = ["main"]


def main() -> None:
    """Load, then measure whenever a line comes."""
    task: Any = json.loads(sys.stdin.readline())
    options = ort.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    options.log_severity_level = 4
    # A process that waits must not keep a core busy while another one is measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(task["model"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    image = np.random.default_rng(0).random(task["shape"]).astype(task["dtype"])
    run = _dense if task["window"] is None else _crops
    cells = run(session, name, image, task)
    _answer({"cells": cells})
    for _ in sys.stdin:
        start = time.perf_counter()
        run(session, name, image, task)
        seconds = time.perf_counter() - start
        _answer({"seconds": seconds, "peak": _peak_bytes()})


def _dense(session: Any, name: str, image: Any, _: Any) -> list[int]:
    """One pass; the shape of the first output."""
    (scores, *_) = session.run(None, {name: image})
    return list(scores.shape)


def _crops(session: Any, name: str, image: Any, task: Any) -> list[int]:
    """Cut out windows, ``batch`` at a time, and run them; how many."""
    done = 0
    for first in range(0, len(task["corners"]), task["batch"]):
        corners = task["corners"][first : first + task["batch"]]
        # A model of a fixed batch gets its last one filled up.
        corners += corners[-1:] * (task["batch"] - len(corners))
        crops = [
            image[
                0,
                :,
                *(slice(a, a + n) for a, n in zip(corner, task["window"], strict=True)),
            ]
            for corner in corners
        ]
        session.run(None, {name: np.stack(crops)})
        done += len(crops)
    return [done]


def _peak_bytes() -> int:
    """Peak resident memory of this process.

    Linux counts the memory of the parent into a child's ru_maxrss (getrusage(2)); VmHWM begins
    anew when the child's own program does (proc(5)).
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _answer(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
