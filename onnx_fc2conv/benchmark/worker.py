"""One model in a process of its own, so that its peak memory is its own too.

Reads a task as one line of JSON, then runs the model once for each further line; each answer is a
line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

__all__ = ["main"]


def main() -> None:
    """Load the model, then measure one run for each line."""
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
    """Run one pass; return the shape of the first output."""
    (scores, *_) = session.run(None, {name: image})
    return list(scores.shape)


def _crops(session: Any, name: str, image: Any, task: Any) -> list[int]:
    """Cut out windows, ``batch`` at a time, and run them; return their number."""
    done = 0
    for first in range(0, len(task["corners"]), task["batch"]):
        corners = task["corners"][first : first + task["batch"]]
        # A model of a fixed batch gets its last batch filled up.
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

    Linux counts the memory of the parent into a child's ru_maxrss (getrusage(2)); VmHWM starts at
    zero with the child's own program (proc(5)). Windows has neither.
    """
    if sys.platform == "win32":
        return _peak_working_set()
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        (line,) = (one for one in lines if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415 - Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS (psapi.h)."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("WorkingSetSize", ctypes.c_size_t),
        ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
        ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
        ("PagefileUsage", ctypes.c_size_t),
        ("PeakPagefileUsage", ctypes.c_size_t),
    )


def _peak_working_set() -> int:
    """Return the peak resident memory of this process on Windows."""
    counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
    library: Any = ctypes
    kernel = library.WinDLL("kernel32", use_last_error=True)
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    process = kernel.GetCurrentProcess()
    if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb):
        raise library.WinError(library.get_last_error())
    return int(counters.PeakWorkingSetSize)


def _answer(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
