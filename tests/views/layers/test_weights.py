"""Where weights come from, what kernels share with them, and that nobody changes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.pipeline import Conversion, convert, inspect
from tests.nets import Array, Net, Tensor
from tests.oracle import (
    assert_slides,
    converted_model,
)

K = 4


def kernels(conversion: Conversion) -> list[ir.TensorProtocol]:
    initializers = converted_model(conversion).graph.initializers
    tensors = [initializers[layer.kernel].const_value for layer in conversion.heads]
    return [tensor for tensor in tensors if tensor is not None]


WEIGHTS: dict[str, Callable[[Net, Array], Tensor]] = {
    "initializer": lambda net, w: net.weight(w),
    "constant": lambda net, w: net.constant(w),
    "identity": lambda net, w: net.op("Identity", net.weight(w)),
    "transpose": lambda net, w: net.op("Transpose", net.weight(w.T.copy()), perm=[1, 0]),
    "cast": lambda net, w: net.op("Cast", net.weight(w.astype(np.float64)), to=1),
    "reshape": lambda net, w: net.op("Reshape", net.weight(w.reshape(-1)), np.array(w.shape)),
    "sum": lambda net, w: net.op("Add", net.weight(w), net.weight(w)),
}


@pytest.mark.parametrize("spelling", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_weight_spellings(spelling: Callable[[Net, Array], Tensor], op_type: str) -> None:
    net = Net()
    flat = net.flat(net.trunk())
    y = net.op(op_type, flat, spelling(net, net.random(flat.size, K)))
    assert_slides(net.model(y))


def test_weight_shared_by_two_layers() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    weight, bias = net.weight(net.random(flat.size, flat.size)), net.weight(net.random(flat.size))
    hidden = net.op("Gemm", flat, weight, bias, transB=1)
    y = net.op("Gemm", net.op("Relu", hidden), weight, bias, transB=1)
    source = net.ir_model(y)
    before = source.graph.initializers[weight.value.name or ""].const_value
    conversion = assert_slides(source)
    assert [layer.kernel_shape for layer in conversion.heads] == [(36, 3, 3, 4), (36, 36, 1, 1)]
    assert source.graph.initializers[weight.value.name or ""].const_value is before


def test_weight_that_is_also_a_convolution_kernel() -> None:
    """The shared initializer keeps its value for its other reader."""
    net = Net(image=(2, 3, 3))
    weight = net.weight(net.random(4, 4))
    y = net.op("Conv", net.x, net.random(4, 2, 3, 3), shape=(4,))
    scaled = net.op(
        "Mul", y, net.op("Reshape", net.op("ReduceSum", weight), np.array([1, 1, 1, 1]))
    )
    out = net.op("Gemm", net.op("Flatten", scaled), weight, alpha=2.0)
    assert_slides(net.model(out), gone=("Gemm", "Flatten"))


@pytest.mark.parametrize("trans_b", [0, 1], ids=["permuted", "same"])
def test_row_major_kernel_shares_the_weights_bytes(trans_b: int) -> None:
    net = Net()
    flat = net.flat(net.trunk())
    array = net.random(K, flat.size) if trans_b else net.random(flat.size, K)
    weight = net.weight(array, "fc.weight")
    model = net.ir_model(net.op("Gemm", flat, weight, transB=trans_b))
    stored = model.graph.initializers["fc.weight"].const_value
    assert stored is not None
    (kernel,) = kernels(convert(model))
    assert np.shares_memory(kernel.numpy(), stored.numpy()) == bool(trans_b)
    assert np.array_equal(stored.numpy(), array)


def test_external_weight_stays_in_its_file(tmp_path: Path) -> None:
    net = Net()
    flat = net.flat(net.trunk())
    hidden = net.op("Gemm", flat, net.weight(net.random(8, flat.size), "fc1.weight"), transB=1)
    model = net.ir_model(
        net.op("Gemm", hidden, net.weight(net.random(K, 8), "fc2.weight"), transB=1)
    )
    path = tmp_path / "net.onnx"
    ir.save(model, path, external_data="net.data", size_threshold_bytes=0)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    stored = ir.load(path).graph.initializers
    conversion = convert(path)
    for layer, kernel in zip(conversion.heads, kernels(conversion), strict=True):
        weight = stored[layer.weight].const_value
        assert isinstance(weight, ir.ExternalTensor)
        assert isinstance(kernel, ir.ExternalTensor)
        assert (kernel.path, kernel.offset, kernel.length) == (
            weight.path,
            weight.offset,
            weight.length,
        )
        assert kernel.shape == layer.kernel_shape
        kernel.release()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


@pytest.mark.parametrize("form", ["proto", "ir", "path"])
def test_the_argument_is_not_changed(form: str, tmp_path: Path) -> None:
    net = Net(opset=11)
    flat = net.flat(net.op("Conv", net.x, net.random(3, 2, 3, 3), auto_pad="SAME_UPPER"))
    hidden = net.op("Gemm", flat, net.random(240, 5), net.random(5), alpha=0.5)
    model = net.ir_model(net.op("Softmax", net.op("Gemm", hidden, net.random(5, K))))
    proto = ir.to_proto(model)
    bytes_before = proto.SerializeToString()
    if form == "proto":
        convert(proto)
        assert proto.SerializeToString() == bytes_before
    elif form == "ir":
        convert(model)
        inspect(model)
        assert ir.to_proto(model).SerializeToString() == bytes_before
    else:
        path = tmp_path / "net.onnx"
        onnx.save(proto, path)
        convert(path)
        assert path.read_bytes() == bytes_before
