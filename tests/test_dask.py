"""Score maps by a cluster: lazily, the map of the whole image, whoever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_fc2conv
from onnx_fc2conv import ArgumentError, RefusedError
from onnx_fc2conv.files.reading import load
from tests.nets import Array, Net
from tests.scanning.test_tiles import IntegerNet

da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

from onnx_fc2conv.dask import scores  # noqa: E402 - only where dask is

RAW = "scale=1"


def integer_net(*, padded: bool) -> onnx.ModelProto:
    """Sums of small integers: exact in any order."""
    net = IntegerNet(image=(3, 9, 11))
    pads = [1, 1, 1, 1] if padded else [0] * 4
    y = net.op("Conv", net.x, net.random(4, 3, 3, 3), pads=pads, shape=(4,))
    y = net.op("MaxPool", net.op("Relu", y), kernel_shape=[2, 2], strides=[2, 3])
    height, width = (4, 4) if padded else (3, 3)
    weight = net.random(3, 4 * height * width)
    return net.model(net.op("Gemm", net.op("Flatten", y), weight, transB=1))


def picture(*size: int) -> Array:
    return np.random.default_rng(0).integers(0, 7, size, dtype=np.uint8)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("chunks", [(40, 60, 3), (17, 31, 2), -1])
def test_the_map_is_that_of_the_whole_image(padded: bool, chunks: Any) -> None:
    model, image = integer_net(padded=padded), picture(150, 170, 3)
    whole = onnx_fc2conv.scan(model, image, preprocess=RAW, threshold=1e9).scores
    array = da.from_array(image, chunks=chunks)
    tiled = scores(array, model, preprocess=RAW, memory="200kB")
    assert tiled.npartitions > 4
    assert tiled.dtype == whole.dtype
    found = tiled.compute(scheduler="threads")
    assert found.tobytes() == whole.tobytes()


def test_an_image_without_channels() -> None:
    image = picture(60, 80) * np.uint8(30)
    expected = onnx_fc2conv.scan("models/face25.onnx", image).scores
    found = scores(da.from_array(image, chunks=50), "models/face25.onnx").compute()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def test_nothing_is_read_before_it_is_needed() -> None:
    read: list[tuple[int, int]] = []

    def chunk(block_id: tuple[int, int, int]) -> Array:
        read.append(block_id[:2])
        return np.zeros((50, 50, 3), np.uint8)

    empty = np.empty((0, 0, 0), np.uint8)  # or else dask 2024.8 calls it to find the type
    image = da.map_blocks(chunk, chunks=((50,) * 8, (50,) * 8, (3,)), dtype=np.uint8, meta=empty)
    lazily = scores(image, integer_net(padded=True), memory="300kB")
    assert not read
    lazily[:, :3, :3].compute(scheduler="synchronous")
    assert 0 < len(read) < 16


@pytest.mark.filterwarnings("ignore")  # of a worker that dies
def test_a_worker_that_is_killed_midway(client: Any) -> None:
    model, image = integer_net(padded=True), picture(220, 260, 3)
    whole = onnx_fc2conv.scan(model, image, preprocess=RAW, threshold=1e9).scores
    array = da.from_array(image, chunks=60).map_blocks(slowly, dtype=np.uint8)
    persisted = client.persist(scores(array, model, preprocess=RAW, memory="300kB"))
    tiles = distributed.futures_of(persisted)
    while not any(tile.done() for tile in tiles):
        time.sleep(0.01)
    assert not all(tile.done() for tile in tiles)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    assert persisted.compute().tobytes() == whole.tobytes()


def slowly(block: Array) -> Array:
    time.sleep(0.05)
    return block


def test_a_model_with_its_weights_beside_it_is_read_at_its_path(tmp_path: Path) -> None:
    model, image = integer_net(padded=True), picture(60, 80, 3)
    expected = onnx_fc2conv.scan(model, image, preprocess=RAW, threshold=1e9).scores
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    array = da.from_array(image, chunks=50)
    found = scores(array, path, preprocess=RAW).compute()
    assert found.tobytes() == expected.tobytes()
    with pytest.raises(ArgumentError, match="give its path"):
        scores(array, load(path))


def test_what_cannot_be_scored() -> None:
    image = da.zeros((60, 80, 3), dtype=np.uint8)
    model = integer_net(padded=False)
    with pytest.raises(ArgumentError, match=r"\[H, W, C\]"):
        scores(da.zeros((1, 60, 80, 3)), model)
    with pytest.raises(ArgumentError, match="all known"):
        scores(image[image[:, 0, 0] > 0], model)
    with pytest.raises(ArgumentError, match="4 channels"):
        scores(da.zeros((60, 80, 4)), model)
    net = Net(image=(3, 8, 10))
    pooled = net.op("GlobalAveragePool", net.trunk(), shape=(3, 1, 1))
    with pytest.raises(RefusedError, match="no-map"):
        scores(image, net.model(net.head(pooled)))
