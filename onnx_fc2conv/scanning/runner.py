"""Running tiles: the next one is read and the last one written while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.scanning.model import ScanModel
from onnx_fc2conv.scanning.preprocessing import Preprocessing
from onnx_fc2conv.scanning.score_maps import ScoreMap
from onnx_fc2conv.scanning.sources import ImageSource
from onnx_fc2conv.scanning.tiles import Tile, TilePlan
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Scanner"]


class Scanner:
    """A model that is ready to run on tiles.

    Attributes:
        scanning: The model.
        preprocessing: How pixels become its input.
    """

    def __init__(self, scanning: ScanModel, preprocessing: Preprocessing) -> None:
        self.scanning = scanning
        self.preprocessing = preprocessing
        self._session = Session(scanning.model)

    def run(
        self,
        source: ImageSource,
        plan: TilePlan,
        scores: ScoreMap,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Compute the map of an image, except the tiles that are done.

        Args:
            source: The image.
            plan: Its tiles.
            scores: The map to write.
            progress: Called with the number of pixels of each finished tile, halo included.

        Raises:
            ArgumentError: If the model does not compute on a tile, or the map cannot be written.
        """
        height, width = plan.tile_size
        waiting = [(n, tile) for n, tile in enumerate(plan) if not scores.is_done(n)]
        for _ in range(len(plan) - len(waiting)):
            progress(height * width)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            written: Future[None] | None = None
            ahead = reader.submit(self._input, source, waiting[0][1]) if waiting else None
            for position, (number, tile) in enumerate(waiting):
                assert ahead is not None
                image = ahead.result()
                if position + 1 < len(waiting):
                    ahead = reader.submit(self._input, source, waiting[position + 1][1])
                cells = self._cells(image, tile.inner, last=position + 1 == len(waiting))
                if written is not None:
                    written.result()
                    progress(height * width)
                written = writer.submit(scores.write, number, tile, cells)
            if written is not None:
                written.result()
                progress(height * width)

    def cells(self, pixels: AnyArray, inner: tuple[slice, slice]) -> AnyArray:
        """Compute the map of one tile.

        Args:
            pixels: The tile, [height, width, channels].
            inner: Rows and columns of its cells that are wanted.

        Returns:
            [K, h, w].

        Raises:
            ArgumentError: If the model does not compute on it.
        """
        return self._cells(self._prepared(pixels), inner, last=True)

    def _input(self, source: ImageSource, tile: Tile) -> AnyArray:
        return self._prepared(source.read(*tile.pixels))

    def _prepared(self, pixels: AnyArray) -> AnyArray:
        """The model's input for a tile."""
        planes = self.preprocessing.apply(pixels, self.scanning.channels, self.scanning.dtype)
        return self.scanning.sample(planes)

    def _cells(self, image: AnyArray, inner: tuple[slice, slice], *, last: bool) -> AnyArray:
        """Compute the tile's own cells, [K, h, w]; the last tile of a size frees the memory."""
        name = self.scanning.output
        try:
            found = self._session.run({self.scanning.input: image}, [name], shrink_arena=last)
        except RunError as error:
            raise ArgumentError(f"the model does not compute on a tile: {error}") from error
        scores = found[name]
        planes = scores.reshape(-1, *scores.shape[-2:])
        return planes[:, *inner]
