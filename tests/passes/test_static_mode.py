"""Static mode: the interface stays, and every FC layer that can be is a convolution."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import Conversion, FcToConv, RefusedError, check, convert
from tests.nets import Net, Tensor, conv, i64, op_types, session
from tests.oracle import assert_close, converted_model

SHARED = Path(__file__).parents[3] / "shared" / "models"


def assert_static(
    model: Any, *, layers: int, left: int = 0, batches: tuple[int, ...] = (1, 3)
) -> Conversion:
    """Convert statically: same interface, same numbers, no layer left but ``left``."""
    conversion = convert(model, static=True)
    made = converted_model(conversion)
    assert conversion.after == conversion.before
    assert len(conversion.heads) == layers
    assert len(conversion.left_alone) == left
    operators = Counter(node.op_type for node in made.graph)
    assert operators["Gemm"] + operators["MatMul"] == left
    original, static = session(model), session(made)
    rng = np.random.default_rng(0)
    for batch in batches:
        feeds = {
            name: rng.normal(size=(batch, *shape[1:])).astype(np.float32)
            for name, shape in conversion.before.inputs.items()
        }
        expected, actual = original(feeds), static(feeds)
        for name, array in expected.items():
            assert_close(actual[name], array, 1e-5, f"{name} at batch {batch}")
    assert check(model, made)
    return conversion


def test_a_head_of_two_layers() -> None:
    net = Net()
    y = net.op("Relu", net.head(net.trunk(), 6), shape=(6,))
    conversion = assert_static(net.model(net.fc(y)), layers=2)
    operators = [node.op_type for node in converted_model(conversion).graph]
    assert operators.count("Reshape") == 1


def test_auto_pad_and_baked_reshapes_of_the_trunk_stay() -> None:
    net = Net()
    y = conv(net, net.x, (8, 10), auto_pad="SAME_UPPER")
    y = net.op("Reshape", y, np.array([-1, 3, 10, 8]), shape=(3, 10, 8))
    y = conv(net, y, (8, 6))
    conversion = assert_static(net.model(net.head(y)), layers=1)
    nodes = list(converted_model(conversion).graph)
    assert nodes[0].attributes.get_string("auto_pad") == "SAME_UPPER"
    assert "Reshape" in [node.op_type for node in nodes[:2]]


def test_a_layer_after_an_operator_without_a_rule() -> None:
    net = Net()
    y = net.op("CumSum", net.trunk(), np.array(2), shape=(3, 3, 4))
    assert_static(net.model(net.head(y)), layers=1)


def test_an_operator_without_a_rule_after_a_layer_reads_the_tensor_made_anew() -> None:
    net = Net()
    y = net.op("Relu", net.head(net.trunk()), shape=(4,))
    y = net.op("CumSum", y, np.array(1), shape=(4,))
    assert_static(net.model(y), layers=1)


def test_features_that_are_an_output_too() -> None:
    net = Net()
    features = net.flat(net.trunk())
    hidden = net.fc(features, 6)
    assert_static(net.model(net.fc(hidden), features, hidden), layers=2)


def test_a_slice_of_the_features_as_an_output() -> None:
    net = Net()
    y = net.head(net.trunk(), 6)
    y = net.op("Gather", y, np.array([4, 1, 1]), axis=1, shape=(3,))
    assert_static(net.model(y), layers=1)


def test_an_output_with_the_samples_last() -> None:
    net = Net()
    y = net.op("Transpose", net.head(net.trunk()), perm=[1, 0])
    assert_static(net.model(y), layers=1)


def test_a_layer_that_cannot_be_converted_is_left_and_explained() -> None:
    net = Net()
    y = net.head(net.trunk())
    y = net.op("MatMul", y, net.op("Transpose", y, perm=[1, 0]), name="gram")
    y = net.op("ReduceSum", y, np.array([0, 1]), keepdims=1, shape=(1,))
    conversion = assert_static(net.model(y), layers=1, left=1, batches=(1,))
    (left,) = conversion.left_alone
    assert left.node == "gram"
    assert "both change with the input" in left.reason


def test_a_tensor_of_several_maps_is_made_anew() -> None:
    net = Net()
    y = net.trunk()
    one, two = net.op("Relu", net.head(y, 4), shape=(4,)), net.head(y, 3)
    joined = net.op("CumSum", net.op("Concat", one, two, axis=1, shape=(7,)), i64(1), shape=(7,))
    assert_static(net.model(net.fc(joined), joined), layers=3)


def test_a_tensor_with_a_deferred_scale_is_made_anew() -> None:
    """A scale of each position is deferred to the next layer, and CumSum is none."""
    net = Net()
    y = net.op("Transpose", net.op("Reshape", net.trunk(), i64(0, 3, 12)), perm=[0, 2, 1])
    y = net.op("MatMul", y, net.random(3, 5))
    scaled = net.op("Add", net.op("Mul", y, net.random(12, 1)), net.random(12, 1))
    y = net.op("CumSum", scaled, i64(1), shape=(12, 5))
    y = net.op("Reshape", y, i64(-1, 60), shape=(60,))
    assert_static(net.model(net.fc(y), scaled), layers=2)


def test_constants_beside_the_features_lead_to_no_layer_left() -> None:
    """Constants have one sample only: the tensor keeps its node; what that reads is made anew."""
    net = Net(batch=2)
    constants = np.repeat(net.random(1, 2), 2, axis=0)
    joined = net.op("Concat", net.head(net.trunk()), constants, axis=1, shape=(6,))
    y = net.op("CumSum", joined, i64(1), shape=(6,))
    conversion = assert_static(net.model(net.fc(y), joined), layers=2, batches=(2,))
    stored = converted_model(conversion).graph.initializers
    assert all(layer.kernel in stored for layer in conversion.heads)


def test_a_convolution_behind_a_layer_and_a_layer_behind_that() -> None:
    net = Net()
    y = net.op("Relu", net.head(net.trunk(), 32), shape=(32,))
    y = net.op("Reshape", y, i64(-1, 2, 4, 4), shape=(2, 4, 4))
    y = net.op("Relu", conv(net, y, (2, 2)), shape=(3, 2, 2))
    assert_static(net.model(net.head(y)), layers=2)


def test_a_layer_of_maps_that_are_not_in_step() -> None:
    net = Net()
    two = net.op("Resize", net.trunk(), None, np.array([1, 1, 1.5, 1.5], np.float32))
    y = net.op("Concat", net.flat(net.x), net.op("Flatten", two), axis=1, shape=(160 + 3 * 4 * 6,))
    assert_static(net.model(net.fc(y)), layers=1)


@pytest.mark.parametrize("shape", [(3, 12), (12, 3)], ids=["along positions", "along channels"])
def test_tokens_take_no_matrix_each(shape: tuple[int, int]) -> None:
    net = Net()
    y = net.op("Reshape", net.trunk(), i64(-1, 3, 12), shape=(3, 12))
    if shape == (12, 3):
        y = net.op("Transpose", y, perm=[0, 2, 1])
    y = net.op("MatMul", Tensor(y.value, shape), net.random(shape[1], 5), shape=(shape[0], 5))
    conversion = assert_static(net.model(net.op("Relu", y)), layers=1)
    assert np.prod(conversion.heads[0].kernel_shape) == shape[1] * 5


def test_the_positions_of_tokens_stay_where_they_are_added() -> None:
    """A class token and a position embedding: constants behind no layer are left as they were."""
    net = Net()
    y = net.op("Transpose", net.op("Reshape", net.trunk(), i64(0, 3, 12)), perm=[0, 2, 1])
    y = net.op("Add", y, net.random(1, 12, 3))
    y = net.op("LayerNormalization", y, net.random(3), net.random(3), axis=-1)
    y = net.op("MatMul", Tensor(y.value, (12, 3)), net.random(3, 5), shape=(12, 5))
    net.opset = 17
    conversion = assert_static(net.model(y), layers=1)
    assert "Gather" not in op_types(converted_model(conversion))


def test_a_first_axis_of_length_one_is_not_that_of_the_samples() -> None:
    """[1, N, 6]: at batch 1 its first axis could be that of the batch, at 3 it is not."""
    net = Net()
    y = net.op("CumSum", net.op("Unsqueeze", net.head(net.trunk(), 6), i64(0)), i64(2))
    assert_static(net.model(net.op("MatMul", y, net.random(6, 4))), layers=2)


def test_the_batch_of_the_model_stays() -> None:
    net = Net(batch=2)
    assert_static(net.model(net.head(net.trunk())), layers=1, batches=(2,))


def test_nothing_to_convert() -> None:
    net = Net()
    with pytest.raises(RefusedError, match="nothing-to-convert"):
        convert(net.model(net.trunk()), static=True)


def test_the_pass_alone() -> None:
    net = Net()
    model = ir.from_proto(net.model(net.head(net.trunk())))
    result = ir.passes.Sequential(FcToConv(static=True))(model)
    assert result.modified
    assert not FcToConv(static=True)(model).modified


@pytest.mark.skipif(not SHARED.is_dir(), reason="the models made by others are not here")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.onnx")), ids=lambda path: path.stem)
def test_models_by_others(path: Path) -> None:
    if path.stem == "mtcnn__pnet":
        pytest.skip("it has no FC layer")
    conversion = convert(path, static=True)
    made = converted_model(conversion)
    assert conversion.after == conversion.before
    assert not {"Gemm", "MatMul"} & {node.op_type for node in made.graph}
    report = check(path, made)
    assert report, report.to_markdown()
