"""Large weights stay in the model file until somebody reads them, whatever the file is like."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_fc2conv import convert
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.files.embedded import MappedTensor, read_model, write_model
from onnx_fc2conv.files.reading import load
from tests.oracle import converted_model

TYPES = (1, 6, 7, 10, 11, 16)  # float, int32, int64, float16, double, bfloat16


def net(weight: onnx.TensorProto | None = None) -> onnx.ModelProto:
    """Flatten and a layer of 64 KB and more."""
    rng = np.random.default_rng(0)
    if weight is None:
        stored = rng.standard_normal((40, 600)).astype(np.float32)
        weight = numpy_helper.from_array(stored, "w")
    nodes = [helper.make_node("Flatten", ["x"], ["f"])]
    nodes.append(helper.make_node("Gemm", ["f", "w"], ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 6, 10, 10])],
        [helper.make_tensor_value_info("y", 1, ["N", 40])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def as_it_is(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString()


def weight_as_floats(model: onnx.ModelProto) -> bytes:
    tensor = model.graph.initializer[0]
    tensor.float_data.extend(numpy_helper.to_array(tensor).reshape(-1).tolist())
    tensor.ClearField("raw_data")
    return model.SerializeToString()


def two_graph_fields(model: onnx.ModelProto) -> bytes:
    """Protobuf merges a message that comes in two parts."""
    weights = onnx.ModelProto()
    weights.graph.initializer.extend(model.graph.initializer)
    model.graph.ClearField("initializer")
    return model.SerializeToString() + weights.SerializeToString()


def bytes_first(model: onnx.ModelProto) -> bytes:
    """The weight's bytes before its dims, name and type: the order of fields is free."""
    tensor = model.graph.initializer[0]
    raw = onnx.TensorProto(raw_data=tensor.raw_data).SerializeToString()
    tensor.ClearField("raw_data")
    whole = raw + tensor.SerializeToString()
    model.graph.ClearField("initializer")
    graph = model.graph.SerializeToString() + b"\x2a" + varint(len(whole)) + whole
    model.ClearField("graph")
    return model.SerializeToString() + b"\x3a" + varint(len(graph)) + graph


def field_of_the_future(model: onnx.ModelProto) -> bytes:
    return b"\xa2\x06\x04spam" + model.SerializeToString()


def varint(number: int) -> bytes:
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


@pytest.mark.parametrize(
    ("write", "mapped"),
    [
        (as_it_is, True),
        (bytes_first, True),
        (field_of_the_future, True),
        (two_graph_fields, True),
        (weight_as_floats, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_reads_every_form(
    write: Callable[[onnx.ModelProto], bytes], mapped: bool, tmp_path: Path
) -> None:
    expected = numpy_helper.to_array(net().graph.initializer[0])
    file = tmp_path / "net.onnx"
    file.write_bytes(write(net()))
    weight = read_model(file).graph.initializers["w"].const_value
    assert weight is not None
    assert isinstance(weight, MappedTensor) == mapped
    np.testing.assert_array_equal(weight.numpy(), expected)
    assert load(file).graph.num_nodes() == 2


@pytest.mark.parametrize("dtype", TYPES, ids=lambda number: ir.DataType(number).name)
def test_keeps_bytes_of_every_type(dtype: int, tmp_path: Path) -> None:
    bits = ir.DataType(dtype).bitwidth
    raw = np.random.default_rng(0).integers(0, 256, 24000 * bits // 8, np.uint8).tobytes()
    weight = onnx.TensorProto(name="w", data_type=dtype, dims=[40, 600], raw_data=raw)
    model = net(weight)
    file, again = tmp_path / "net.onnx", tmp_path / "again.onnx"
    onnx.save(model, file)
    write_model(read_model(file), again)
    assert onnx.load(again).graph.initializer[0] == weight


def test_writes_what_protobuf_would(tmp_path: Path) -> None:
    """Conversions with mapped, permuted and small weights, compared as messages."""
    for file in sorted((Path(__file__).parents[2] / "models").glob("*.onnx")):
        model = converted_model(convert(file))
        write_model(model, tmp_path / file.name)
        assert onnx.load(tmp_path / file.name) == ir.to_proto(model)


def test_result_does_not_refer_to_the_file(tmp_path: Path) -> None:
    """A library user serializes the result, and deletes the model that it came from."""
    file = tmp_path / "net.onnx"
    onnx.save(net(), file)
    model = converted_model(convert(file))
    file.unlink()
    (kernel,) = ir.to_proto(model).graph.initializer
    weight = net().graph.initializer[0]
    assert (kernel.raw_data, kernel.data_location) == (weight.raw_data, 0)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_weights_do_not_fill_memory(tmp_path: Path) -> None:
    """64 MB are read and written; the process grows by much less."""
    weight = onnx.TensorProto(name="w", data_type=1, dims=[40, 419430], raw_data=bytes(67108800))
    model = net(weight)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 41943
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 1
    file = tmp_path / "net.onnx"
    onnx.save(model, file)
    del weight, model

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    write_model(converted_model(convert(file)), tmp_path / "out.onnx")
    assert resident() - before < 40e6


def too_short(tensor: onnx.TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-4]


def too_long(tensor: onnx.TensorProto) -> None:
    tensor.raw_data += b"\0\0\0\0"


def no_type(tensor: onnx.TensorProto) -> None:
    tensor.data_type = 0


def unknown_type(tensor: onnx.TensorProto) -> None:
    tensor.data_type = 99


def negative_length(tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [-40, -600]


def absurd_lengths(tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [1 << 62, 1 << 62]


def few_floats(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 5)


@pytest.mark.parametrize(
    "spoil",
    [too_short, too_long, no_type, unknown_type, negative_length, absurd_lengths, few_floats],
)
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_damaged_weight_is_named(
    spoil: Callable[[onnx.TensorProto], None], where: str, tmp_path: Path
) -> None:
    model = net()
    spoil(model.graph.initializer[0])
    if where == "constant":
        node = helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
        model.graph.node.insert(0, node)
        model.graph.ClearField("initializer")
    file = tmp_path / "net.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError) as found:
        load(file)
    assert "'w'" in str(found.value) or spoil in (negative_length, unknown_type)
    assert "\n" not in str(found.value)
