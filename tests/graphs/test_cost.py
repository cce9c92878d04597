from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv import convert
from onnx_fc2conv.graphs.cost import multiply_adds
from onnx_fc2conv.graphs.shapes import shapes_at
from tests.nets import Net
from tests.oracle import converted_model


def cost(model: ir.Model, *image: int) -> int | None:
    return multiply_adds(model, shapes_at(model, {"x": image}))


def test_multiply_adds_are_counted_from_shapes() -> None:
    net = Net(image=(2, 8, 10))
    source = net.ir_model(net.head(net.trunk()))
    own = 3 * 6 * 8 * 2 * 9 + 4 * 36  # Conv [3, 6, 8] from 2 channels of 3×3, Gemm of 36 to 4
    assert cost(source, 1, 2, 8, 10) == own
    assert cost(source, 5, 2, 8, 10) == 5 * own
    dense = converted_model(convert(source))
    assert cost(dense, 1, 2, 8, 10) == own
    assert cost(dense, 1, 2, 10, 14) == 3 * 8 * 12 * 2 * 9 + 4 * 36 * 2 * 3


def test_grouped_convolutions_count_their_own_channels() -> None:
    net = Net(image=(4, 6, 6))
    y = net.op("Conv", net.x, net.random(4, 1, 3, 3), group=4, shape=(4, 4, 4))
    assert cost(net.ir_model(net.head(y)), 1, 4, 6, 6) == 4 * 16 * 9 + 64 * 4


def test_a_layer_of_unknown_size_has_no_cost() -> None:
    net = Net(image=(2, 8, 10))
    source = net.ir_model(net.head(net.trunk()))
    assert multiply_adds(source, {}) is None
