"""A journal of the tiles that are on the disk, from which an interrupted scan resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_fc2conv.errors import ArgumentError

__all__ = ["Journal"]


class Journal:
    """A file of JSON lines: the job, then each finished tile.

    Every line is on the disk before `add` returns. A last line that was cut off counts as not
    written; a tile that was written without its line is computed again, to the same bytes.

    Attributes:
        done: (level, tile) of all tiles done.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.path = path
        self.done: set[tuple[int, int]] = set()
        self._job = dict(job)

    def start(self) -> None:
        """Start a new journal."""
        self.done.clear()
        with self.path.open("wb") as file:
            _append(file, self._job)
        _sync_folder(self.path.parent)

    def resume(self) -> None:
        """Continue from the file.

        Raises:
            ArgumentError: If it is of another job; names what differs.
        """
        *lines, cut_off = self.path.read_bytes().split(b"\n")
        if not lines:
            self.start()
            return
        before = json.loads(lines[0])
        differ = sorted(
            key for key in {*before, *self._job} if before.get(key) != self._job.get(key)
        )
        if differ:
            raise ArgumentError(
                f"cannot resume: the interrupted scan had another {', '.join(differ)}; "
                "--overwrite begins anew"
            )
        self.done = {(level, tile) for level, tile in map(json.loads, lines[1:])}
        if cut_off:
            os.truncate(self.path, self.path.stat().st_size - len(cut_off))

    def add(self, level: int, tile: int) -> None:
        """Record that a tile is done."""
        with self.path.open("ab") as file:
            _append(file, [level, tile])
        self.done.add((level, tile))

    def finish(self) -> None:
        """Delete the journal: everything is done."""
        self.path.unlink()


def _append(file: Any, line: object) -> None:
    file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the file's name in the folder permanent, where folders can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
