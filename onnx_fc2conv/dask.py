"""Score maps as dask arrays, which any scheduler computes, on one machine or on many.

The image is cut into the tiles of `onnx_fc2conv.scan`, and each tile is a task. Tiles begin at
multiples of the stride and overlap by the exact halo (`TileCells`), so the map equals that of the
whole image. (``map_overlap`` would not do: it has one depth for all chunks, and no stride.)
"""

from __future__ import annotations

import hashlib
import importlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.reading import ModelSource
from onnx_fc2conv.files.staging import needs_data_file
from onnx_fc2conv.scanning.memory import bytes_per_pixel, parse_memory
from onnx_fc2conv.scanning.model import ScanModel, scan_model
from onnx_fc2conv.scanning.prepared import as_preprocessing
from onnx_fc2conv.scanning.preprocessing import Preprocessing
from onnx_fc2conv.scanning.runner import Scanner
from onnx_fc2conv.scanning.tiles import AxisTile, TilePlan, plan_tiles
from onnx_fc2conv.views.maps.labels import AnyArray

if TYPE_CHECKING:
    import dask.array

__all__ = ["scores"]

_SESSIONS = 2
"""Models that a worker process keeps loaded."""

_LOADING = threading.Lock()


def scores(  # noqa: PLR0913 - those options of scan that a map depends on
    array: dask.array.Array,
    model: ModelSource,
    *,
    preprocess: Preprocessing | str | None = None,
    memory: str | int = "256MB",
    output: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dask.array.Array:
    """The score of every window of an image, as an array that is computed lazily.

    The model is sent to the workers in the task graph, and each process loads it once. Workers
    read a model that does not fit into a single ONNX file from its own path.

    Args:
        array: The image, [H, W] or [H, W, C], in any chunks.
        model: A converted model, or an original one that is converted on the fly.
        preprocess: As for `onnx_fc2conv.scan`.
        memory: Memory for the tensors of one tile on a worker, which limits the size of the tiles.
        output: The output to read, where there are several.
        input_shapes: As for `onnx_fc2conv.convert`.

    Returns:
        The map [K, h, w], with a chunk for each tile.

    Raises:
        ArgumentError: If dask is not installed, the image does not fit, or an argument is wrong.
        RefusedError: If the model cannot be converted or gives no map, or cannot be tiled.
        InvalidModelError: If the model is not valid.
    """
    da, delayed = _dask("dask.array"), _dask("dask.delayed").delayed
    if array.ndim not in (2, 3) or np.isnan(array.shape).any():
        raise ArgumentError(
            f"an image has the shape [H, W] or [H, W, C], all known; not {array.shape}"
        )
    image: Any = array[:, :, None] if array.ndim == 2 else array
    scanning = scan_model(model, input_shapes=input_shapes, output=output)
    preprocessing = scanning.preprocessing.overridden(as_preprocessing(preprocess))
    preprocessing.check(image.shape[2], scanning.channels)
    budget = parse_memory(memory) if isinstance(memory, str) else memory
    most_pixels = max(1, int(budget / bytes_per_pixel(scanning)))
    plan = plan_tiles(scanning.geometry, image.shape[:2], most_pixels)
    sent = _Sent.of(scanning, preprocessing, model, input_shapes or {})
    dtype = _dtype(scanning)
    lazily: dask.array.Array = da.map_blocks(
        _cells,
        _crops(da, image, plan).transpose(2, 0, 1),
        sent=delayed(sent, name=f"fc2conv-model-{sent.digest}", traverse=False),
        rows=plan.rows.tiles,
        columns=plan.columns.tiles,
        chunks=((scanning.classes,), _lengths(plan.rows.tiles), _lengths(plan.columns.tiles)),
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
    )
    return lazily


@dataclass(frozen=True)
class _Sent:
    """What a worker needs to run the model.

    Attributes:
        digest: Identifies the model.
        source: The converted model as one protobuf, or the path of a model.
        input_shapes: As for `scores`.
        output: Name of the map.
        preprocessing: How pixels become the input.
    """

    digest: str
    source: bytes | str = field(compare=False)
    input_shapes: Mapping[str, tuple[int, ...]] = field(compare=False)
    output: str
    preprocessing: Preprocessing

    @classmethod
    def of(
        cls,
        scanning: ScanModel,
        preprocessing: Preprocessing,
        given: ModelSource,
        input_shapes: Mapping[str, tuple[int, ...]],
    ) -> _Sent:
        """Send the model as bytes if one protobuf can hold it, else as the path that was given.

        Raises:
            ArgumentError: If it is too large, and was not given as a path.
        """
        source: bytes | str
        if not needs_data_file(scanning.model):
            whole = ir.to_proto(scanning.model).SerializeToString()
            source, digest = whole, hashlib.sha256(whole).hexdigest()
        elif isinstance(given, str | os.PathLike):
            source = str(Path(given).resolve())
            digest = f"{source} {Path(source).stat().st_mtime_ns}"
        else:
            raise ArgumentError(
                "the model is too large to be sent to workers: save it where they can read it, and "
                "give its path"
            )
        return cls(digest, source, dict(input_shapes), scanning.output, preprocessing)

    def load(self) -> Scanner:
        """The model, ready to run."""
        source = self.source
        model = onnx.load_model_from_string(source) if isinstance(source, bytes) else source
        scanning = scan_model(model, input_shapes=self.input_shapes, output=self.output)
        return Scanner(scanning, self.preprocessing)


def _crops(da: Any, image: Any, plan: TilePlan) -> Any:
    """The tiles side by side, one chunk each; pixels that tiles share are repeated."""
    for axis, (tiles, length) in enumerate(
        ((plan.rows.tiles, plan.rows.length), (plan.columns.tiles, plan.columns.length))
    ):
        before = (slice(None),) * axis
        parts = [image[(*before, slice(tile.start, tile.start + length))] for tile in tiles]
        image = da.concatenate(parts, axis=axis)
    height, width = plan.tile_size
    return image.rechunk((height, width, -1))


def _cells(
    planes: AnyArray,
    sent: _Sent,
    rows: tuple[AxisTile, ...],
    columns: tuple[AxisTile, ...],
    block_id: tuple[int, int, int],
) -> AnyArray:
    """Compute the cells [K, h, w] of one tile [C, H, W]."""
    inner = rows[block_id[1]].inner, columns[block_id[2]].inner
    with _LOADING:
        scanner = _scanner(sent)
    return scanner.cells(np.asarray(planes).transpose(1, 2, 0), inner)


@lru_cache(_SESSIONS)
def _scanner(sent: _Sent) -> Scanner:
    """The model that was sent, loaded once in each process."""
    return sent.load()


def _lengths(tiles: tuple[AxisTile, ...]) -> tuple[int, ...]:
    return tuple(tile.cells.stop - tile.cells.start for tile in tiles)


def _dtype(scanning: ScanModel) -> np.dtype[Any]:
    (value,) = (v for v in scanning.model.graph.outputs if v.name == scanning.output)
    assert value.dtype is not None
    return np.dtype(value.dtype.numpy())


def _dask(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(
            f'{module} is not installed: pip install "onnx-fc2conv[dask]"'
        ) from error
