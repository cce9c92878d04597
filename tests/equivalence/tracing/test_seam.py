"""What a cell is compared with is found by running, however the head reads its maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import EquivalenceReport, check, convert
from onnx_fc2conv.equivalence.tracing.seam import SlidingMap, grown_axes
from tests.equivalence.conftest import Case, failed_tiers
from tests.equivalence.planting import Plant, append
from tests.nets import Net, Tensor, i64

END = np.iinfo(np.int32).max


def step(net: Net, y: Tensor) -> Tensor:
    """Every other row."""
    channels, height, width = y.shape
    return net.op(
        "Slice", y, i64(0), i64(END), i64(2), i64(2), shape=(channels, -(-height // 2), width)
    )


def blocks(net: Net, y: Tensor) -> Tensor:
    channels, height, width = y.shape
    shape = (4 * channels, height // 2, width // 2)
    return net.op("SpaceToDepth", y, blocksize=2, shape=shape)


def channels_last(net: Net, y: Tensor) -> Tensor:
    channels, height, width = y.shape
    return net.op("Transpose", y, perm=[0, 2, 3, 1], shape=(height, width, channels))


def rows_with_channels(net: Net, y: Tensor) -> Tensor:
    """The features of each row side by side: [N, H, C·W], whose size is written in."""
    channels, height, width = y.shape
    moved = net.op("Transpose", y, perm=[0, 2, 1, 3])
    return net.op(
        "Reshape", moved, i64(-1, height, channels * width), shape=(height, channels * width)
    )


def channels_with_rows(net: Net, y: Tensor) -> Tensor:
    """It grows by three rows for each cell, and does not move by three."""
    channels, height, width = y.shape
    return net.op("Reshape", y, i64(0, -1, width), shape=(channels * height, width))


def itself_twice(net: Net, y: Tensor) -> Tensor:
    return net.op("Concat", y, net.op("Neg", y), axis=1, shape=(2 * y.shape[0], *y.shape[1:]))


HEADS = (step, blocks, channels_last, rows_with_channels, channels_with_rows, itself_twice)


def padded(head: Callable[[Net, Tensor], Tensor]) -> onnx.ModelProto:
    """A trunk with a border effect, so that only feature windows are asserted."""
    net = Net(image=(2, 8, 8), seed=3)
    y = net.op("Relu", net.op("Conv", net.x, net.random(3, 2, 3, 3), pads=[1, 1, 1, 1]))
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], shape=(3, 4, 4))
    return net.model(net.fc(net.flat(head(net, y)), 5))


def windows(report: EquivalenceReport) -> str:
    (result,) = (r for r in report.results if r.tier == "feature windows")
    assert result.status == "passed", report.to_markdown()
    return result.detail


@pytest.mark.parametrize("head", HEADS)
def test_data_is_moved_before_the_layer(head: Callable[[Net, Tensor], Tensor]) -> None:
    model = padded(head)
    report = check(model, convert(model).model)
    assert report, report.to_markdown()
    assert "each the head on its window of" in windows(report)


@pytest.mark.parametrize("head", HEADS)
def test_a_fault_after_the_movement_is_found(head: Callable[[Net, Tensor], Tensor]) -> None:
    """At larger sizes alone: it adds what pads beyond the native size would."""
    model = padded(head)
    converted = convert(model).model
    assert converted is not None
    beyond_the_native_size(converted)
    assert "feature windows" in failed_tiers(check(model, converted))


def shuffled() -> onnx.ModelProto:
    """A channel shuffle whose size is written in stands between two padded layers."""
    net = Net(image=(2, 8, 8), seed=4)
    y = net.op("Conv", net.x, net.random(4, 2, 3, 3), pads=[1, 1, 1, 1])
    groups = net.op("Reshape", y, i64(-1, 2, 2, 8, 8))
    moved = net.op("Transpose", groups, perm=[0, 2, 1, 3, 4])
    y = net.op("Reshape", moved, i64(-1, 4, 8, 8))
    y = net.op("Relu", net.op("Conv", y, net.random(3, 4, 3, 3), pads=[1, 1, 1, 1]))
    y = Tensor(y.value, (3, 8, 8))
    return net.model(net.fc(net.flat(y), 5))


def test_maps_of_the_converted_model_stand_in_where_a_size_is_written_in() -> None:
    model = shuffled()
    report = check(model, convert(model).model)
    assert report, report.to_markdown()
    assert "the original's trunk has its size written in" in windows(report)


def conditional(condition: Callable[[Callable[..., ir.Value]], ir.Value]) -> Plant:
    """A tenth is added to the output where a condition on the shape of the image holds."""

    def plant(model: ir.Model) -> None:
        graph = model.graph
        output, image = graph.outputs[0], graph.inputs[0]

        def op(op_type: str, *inputs: ir.Value | np.ndarray, **attributes: object) -> ir.Value:
            values = []
            for operand in inputs:
                if isinstance(operand, ir.Value):
                    values.append(operand)
                    continue
                name = f"planted_{len(graph.initializers)}"
                tensor = ir.tensor(operand, name=name)
                stored = ir.val(name, dtype=tensor.dtype, shape=tensor.shape, const_value=tensor)
                graph.register_initializer(stored)
                values.append(stored)
            node = ir.node(op_type, values, attributes)
            graph.append(node)
            return node.outputs[0]

        height = op("Gather", op("Shape", image), np.array(2))
        holds = op("Cast", condition(lambda kind, *rest: op(kind, height, *rest)), to=1)
        wrong = op("Add", output, op("Mul", holds, np.array(0.1, np.float32)))
        wrong.name, output.name = output.name, "planted_output"
        wrong.type, wrong.shape = output.type, output.shape
        graph.outputs[0] = wrong

    return plant


beyond_the_native_size = conditional(lambda height: height("Greater", np.array(8)))


@pytest.mark.parametrize("remainder", range(4))
def test_a_fault_at_every_fourth_size_is_found(
    remainder: int, case_of: Callable[[str], Case]
) -> None:
    """Every remainder of the stride is run; a layer of stride 4 leaves four."""
    net = Net(image=(2, 9, 9), seed=1)
    y = net.op("Conv", net.x, net.random(3, 2, 3, 3), strides=[2, 2], shape=(3, 4, 4))
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], shape=(3, 2, 2))
    model = net.model(net.head(y))
    converted = convert(model).model
    assert converted is not None
    assert check(model, converted).relation.words == "a map of windows at any size"

    def rest(height: Callable[..., ir.Value]) -> ir.Value:
        return height("Greater", np.array(9))

    conditional(rest)(converted)
    every = converted.graph
    greater = next(node for node in every if node.op_type == "Greater")
    modulo = ir.node("Mod", [greater.inputs[0], constant(every, 4)])
    equal = ir.node("Equal", [modulo.outputs[0], constant(every, remainder)])
    every.insert_before(greater, [modulo, equal])
    both = ir.node("And", [greater.outputs[0], equal.outputs[0]])
    every.insert_after(greater, both)
    cast = next(node for node in every if node.op_type == "Cast")
    cast.replace_input_with(0, both.outputs[0])
    assert failed_tiers(check(model, converted)) & {"feature windows", "image windows"}


def constant(graph: ir.Graph, number: int) -> ir.Value:
    name = f"planted_{len(graph.initializers)}"
    tensor = ir.tensor(np.array(number), name=name)
    value = ir.val(name, dtype=tensor.dtype, shape=tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def test_samples_that_are_mixed_at_a_larger_size_are_found(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    append("ReduceMean", axes=[0], keepdims=1)(case.converted)
    assert not case.check()


def test_windows_of_a_map() -> None:
    array = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    sliding = SlidingMap("m", (3, 2, 3), (1, 2), (1, 2), (1, 1))
    cells = sliding.count(array.shape)
    assert cells == (4, 3)
    found = sliding.windows(array, cells)
    assert found.shape == (2, 4, 3, 3, 2, 3)
    for row, column in np.ndindex(*cells):
        crop = array[:, :, row : row + 2, 2 * column : 2 * column + 3]
        np.testing.assert_array_equal(found[:, row, column], crop)


def test_axes_that_grow() -> None:
    assert grown_axes((1, 3, 4, 4), (1, 3, 5, 6)) == (2, 3)
    assert grown_axes((1, 3, 4, 4), (2, 3, 5, 6)) == ()
    assert grown_axes((1, 48), (1, 3, 5, 6)) == ()
