"""Matrices stored by their nonzeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert_to_fc
from onnx_fc2conv.matrices import save_coordinates, sparse_proto
from tests.nets import Array, Net, Tensor, conv, session


def network() -> ir.Model:
    """A padded convolution, pooling by averages and a layer of the whole map."""
    net = Net(seed=2)
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1], channels=4, group=2)
    y = net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    return net.ir_model(conv(net, Tensor(y.value, (4, 4, 5)), (1, 1), (4, 5)))


def images() -> Array:
    return np.random.default_rng(0).normal(size=(3, 2, 8, 10)).astype(np.float32)


def test_onnxruntime_reads_sparse_initializers() -> None:
    model = convert_to_fc(network(), form="sparse").model
    proto = sparse_proto(model)
    assert len(proto.graph.sparse_initializer) == 3
    expected = session(network())({"x": images()})["y"]
    np.testing.assert_allclose(session(proto)({"x": images()})["y"], expected, rtol=1e-5, atol=1e-6)


def test_the_sparse_file_is_the_dense_model() -> None:
    """The same entries, so the same bits."""
    model = convert_to_fc(network(), form="dense").model
    dense, sparse = session(model)({"x": images()}), session(sparse_proto(model))({"x": images()})
    np.testing.assert_array_equal(sparse["y"], dense["y"])


def test_a_tool_without_onnx_reads_the_arrays(tmp_path: Path) -> None:
    """The net as three products of the stored coordinates, in NumPy."""
    save_coordinates(convert_to_fc(network(), form="sparse").model, tmp_path / "m.npz")
    stored = np.load(tmp_path / "m.npz")
    names = list(dict.fromkeys(key.rpartition(".")[0] for key in stored.files))
    assert len(names) == 3
    x = images().reshape(3, -1)
    for name in names:
        rows, columns = stored[f"{name}.shape"]
        matrix = np.zeros((rows, columns), np.float32)
        matrix[stored[f"{name}.row"], stored[f"{name}.column"]] = stored[f"{name}.value"]
        x = x @ matrix.T + stored.get(f"{name}.bias", 0)
    expected = session(network())({"x": images()})["y"].reshape(3, -1)
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_sparse_model_may_be_larger_than_a_dense_one(form: str) -> None:
    """Only what is stored counts."""
    layers = convert_to_fc(network(), form=form).layers  # type: ignore[arg-type]
    first = layers[0]
    assert first.nbytes == (first.nonzeros * 12 if form == "sparse" else 320 * 160 * 4)
