"""Several workers that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_fc2conv.benchmark.report import Timing
from onnx_fc2conv.errors import Fc2ConvError

__all__ = ["Task", "measure"]


@dataclass(frozen=True)
class Task:
    """The run that one worker repeats.

    Attributes:
        model: File of the model.
        shape: Shape of its random input.
        dtype: Its type.
        threads: Threads within an operator; 0 leaves that to onnxruntime.
        window: Size of the crops to cut out of the array; None feeds all of it.
        corners: First pixel of each crop.
        batch: Crops in one run.
    """

    model: str
    shape: tuple[int, ...]
    dtype: str
    threads: int
    window: tuple[int, ...] | None = None
    corners: tuple[tuple[int, ...], ...] = ()
    batch: int = 1


def measure(
    tasks: Mapping[str, Task], repeats: int, say: Callable[[str], None]
) -> dict[str, Timing]:
    """Run every task ``repeats`` times, in turns, after one run that does not count.

    Raises:
        Fc2ConvError: If a model does not run.
    """
    with ExitStack() as stack:
        workers: dict[str, subprocess.Popen[str]] = {}
        shapes: dict[str, Sequence[int]] = {}
        for name, task in tasks.items():
            say(f"Loading: {name}")
            workers[name] = stack.enter_context(_worker(task))
            shapes[name] = _answer(name, workers[name])["cells"]
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
        for turn in range(repeats):
            for name, worker in workers.items():
                say(f"Measuring {turn + 1} of {repeats}: {name}")
                _tell(worker, "go")
                found[name].append(_answer(name, worker))
    return {
        name: Timing(
            tuple(answer["seconds"] for answer in answers),
            max(answer["peak"] for answer in answers),
            tuple(shapes[name]),
        )
        for name, answers in found.items()
    }


@contextmanager
def _worker(task: Task) -> Generator[subprocess.Popen[str]]:
    # By its path: the process imports only NumPy and onnxruntime, whose memory is measured.
    command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    ) as worker:
        try:
            _tell(worker, json.dumps(asdict(task)))
            yield worker
        finally:
            worker.kill()


def _tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _answer(name: str, worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    assert worker.stderr is not None
    line = worker.stdout.readline()
    if not line:
        *_, last = worker.stderr.read().strip().splitlines() or ["it was killed"]
        raise Fc2ConvError(f"{name} does not run: {last[:300]}")
    answer: dict[str, Any] = json.loads(line)
    return answer
