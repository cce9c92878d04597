"""A file of matrices is compared with the layers that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert_to_fc
from onnx_fc2conv.equivalence.tiers.stored_matrices import check_matrices
from onnx_fc2conv.matrices import save_coordinates
from tests.nets import Array, Net, Tensor, conv

Arrays = dict[str, Array]


def network(dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Model:
    """A padded convolution, normalization, averages and a layer of the whole map."""
    net = Net(seed=2, dtype=dtype)
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1], channels=4, group=2)
    moments = [net.random(4), net.random(4), net.random(4), np.abs(net.random(4)) + 1]
    parameters = [array.astype(dtype.numpy()) for array in moments]
    y = net.op("BatchNormalization", net.op("Relu", y), *parameters, shape=(4, 8, 10))
    y = net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    return net.ir_model(conv(net, Tensor(y.value, (4, 4, 5)), (1, 1), (4, 5)))


def stored(model: ir.Model, path: Path, **options: Any) -> Path:
    save_coordinates(convert_to_fc(model, form="sparse", **options).model, path)
    return path


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_the_matrices_of_every_layer(dtype: ir.DataType, tmp_path: Path) -> None:
    results = check_matrices(
        network(dtype), stored(network(dtype), tmp_path / "m.npz"), input_shapes={}
    )
    assert [result.status for result in results] == ["passed"] * 4
    assert [result.elements for result in results] == [640, 640, 160, 6]


def test_sizes_that_are_given(tmp_path: Path) -> None:
    model, shapes = network(), {"x": (1, 2, 8, 10)}
    model.graph.inputs[0].shape = ir.Shape(["N", 2, "H", "W"])
    file = stored(model, tmp_path / "m.npz", input_shapes=shapes)
    assert all(r.status == "passed" for r in check_matrices(model, file, input_shapes=shapes))


def _swap(arrays: Arrays, name: str) -> None:
    row = arrays[f"{name}.row"]
    row[[0, -1]] = row[[-1, 0]]


def _scale(arrays: Arrays, name: str) -> None:
    arrays[f"{name}.value"][3] *= np.float32(1.01)


def _drop(arrays: Arrays, name: str) -> None:
    for part in ("row", "column", "value"):
        arrays[f"{name}.{part}"] = arrays[f"{name}.{part}"][:-1]


def _shift(arrays: Arrays, name: str) -> None:
    arrays[f"{name}.bias"][0] += np.float32(0.01)


def _grow(arrays: Arrays, name: str) -> None:
    arrays[f"{name}.shape"] += 1


def _rename(arrays: Arrays, name: str) -> None:
    for key in [key for key in arrays if key.startswith(f"{name}.")]:
        arrays[f"other{key}"] = arrays.pop(key)


@pytest.mark.parametrize("fault", [_swap, _scale, _drop, _shift, _grow, _rename])
def test_a_wrong_matrix_is_found(fault: Callable[[Arrays, str], None], tmp_path: Path) -> None:
    file = stored(network(), tmp_path / "m.npz")
    with np.load(file) as found:
        arrays = dict(found)
    name = next(key for key in arrays if key.endswith(".row")).removesuffix(".row")
    fault(arrays, name)
    np.savez(file, **arrays)
    results = check_matrices(network(), file, input_shapes={})
    assert [result.status for result in results].count("failed") == 1
