"""Score maps that are written tile by tile: in memory, or in files that survive a crash."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.scanning.journal import Journal
from onnx_fc2conv.scanning.tiles import Tile
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["FileMap", "MemoryMap", "ScoreMap"]


class ScoreMap(Protocol):
    """A map [K, h, w] under construction."""

    def is_done(self, tile: int) -> bool:
        """Whether the tile's cells are there already."""
        ...

    def write(self, number: int, tile: Tile, scores: AnyArray) -> None:
        """Store the cells of a tile, and record that it is done."""
        ...

    def array(self) -> AnyArray:
        """Return the map, read-only."""
        ...


class MemoryMap:
    """A map in memory.

    Args:
        shape: Its shape, [K, h, w].
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._scores: AnyArray | None = None

    def is_done(self, tile: int) -> bool:
        """Return False: a scan in memory starts anew."""
        return False

    def write(self, number: int, tile: Tile, scores: AnyArray) -> None:
        """Store the cells of a tile."""
        if self._scores is None:
            self._scores = np.empty(self._shape, scores.dtype)
        self._scores[:, *tile.cells] = scores

    def array(self) -> AnyArray:
        """The map."""
        assert self._scores is not None
        return self._scores


@dataclass(frozen=True)
class FileMap:
    """A map in an .npy file, with a journal of the tiles that are in it.

    The cells of a tile reach the disk before the journal says so. The file is mapped for each tile
    only, so that it takes no memory.

    Attributes:
        path: The file.
        shape: Its shape, [K, h, w].
        journal: The journal of finished tiles.
        level: Index of this map in the journal.
    """

    path: Path
    shape: tuple[int, ...]
    journal: Journal
    level: int

    def is_done(self, tile: int) -> bool:
        """Whether the journal says so."""
        return (self.level, tile) in self.journal.done

    def write(self, number: int, tile: Tile, scores: AnyArray) -> None:
        """Store the cells of a tile, then its line in the journal.

        Raises:
            ArgumentError: If the disk is full.
        """
        if not self.path.exists():
            _allocate(self.path, self.shape, scores.dtype)
        mapped = np.lib.format.open_memmap(self.path, mode="r+")
        mapped[:, *tile.cells] = scores
        mapped.flush()
        self.journal.add(self.level, number)

    def array(self) -> AnyArray:
        """The map, as it lies in the file."""
        return np.lib.format.open_memmap(self.path, mode="r")


def _allocate(path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Write an .npy file of zeros and reserve its blocks: writing to the mapping cannot fail."""
    try:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": tuple(shape)})
            end = file.tell() + int(np.prod(shape)) * dtype.itemsize
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, end)
            else:
                file.truncate(end)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error
