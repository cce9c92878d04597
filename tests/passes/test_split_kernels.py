"""--max-kernel and --max-depth: a kernel that is too large is a sum of Convs that each fit."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import ArgumentError, Conversion, SplitKernels, check, convert
from onnx_fc2conv.passes.split_kernels import Block
from tests.nets import Net, conv, op_types, session
from tests.oracle import Oracle, assert_close, converted_model

NO_LAYER = ("Gemm", "MatMul", "Flatten", "Reshape")


def kernels(conversion: Conversion, node: str = "Gemm") -> list[tuple[int, ...]]:
    """The shapes of the kernels of the layers' Convs."""
    return [
        tuple(conv.inputs[1].const_value.shape.numpy())  # type: ignore[union-attr]
        for conv in converted_model(conversion).graph
        if conv.op_type == "Conv" and node in conv.metadata_props.get("fc2conv.origin", "")
    ]


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize(
    ("limits", "shapes"),
    [
        ({"max_kernel": 4}, {(4, 3, 3, 4): 1}),
        ({"max_kernel": 3}, {(4, 3, 3, 2): 2}),
        ({"max_kernel": 2}, {(4, 3, 2, 2): 2, (4, 3, 1, 2): 2}),
        ({"max_kernel": 1}, {(4, 3, 1, 1): 12}),
        ({"max_depth": 36}, {(4, 3, 3, 4): 1}),
        ({"max_depth": 24}, {(4, 2, 3, 4): 1, (4, 1, 3, 4): 1}),
        ({"max_depth": 12}, {(4, 1, 3, 4): 3}),
        ({"max_depth": 7}, {(4, 1, 3, 2): 6}),
        ({"max_depth": 1}, {(4, 1, 1, 1): 36}),
        (
            {"max_kernel": 2, "max_depth": 8},
            {(4, 2, 2, 2): 2, (4, 2, 1, 2): 2, (4, 1, 2, 2): 2, (4, 1, 1, 2): 2},
        ),
    ],
)
def test_the_parts_fit_and_slide(
    limits: dict[str, int], shapes: dict[tuple[int, ...], int], opset: int
) -> None:
    net = Net(opset=opset)
    model = net.model(net.head(net.trunk()))
    conversion = Oracle(gone=NO_LAYER, options=limits).check(model)
    made = kernels(conversion)
    assert {shape: made.count(shape) for shape in made} == shapes
    for _, *positions in [shape[1:] for shape in made]:
        assert max(positions) <= limits.get("max_kernel", 4)
    assert max(prod(shape[1:]) for shape in made) <= limits.get("max_depth", 36)
    (head,) = conversion.heads
    assert head.parts == len(made)
    assert head.kernel_shape == max(made, key=prod)
    report = check(model, converted_model(conversion))
    assert report, report.to_markdown()
    passed = {r.tier for r in report.results if r.status == "passed"}
    assert passed >= {"native", "integers", "feature windows", "image windows"}


@pytest.mark.parametrize("image", [(2, 20), (2, 7, 6, 8)], ids=["1-D", "3-D"])
def test_any_number_of_axes(image: tuple[int, ...]) -> None:
    net = Net(image=image)
    y = net.fc(net.op("Relu", net.head(net.trunk(), 6), shape=(6,)))
    conversion = Oracle(gone=NO_LAYER, options={"max_kernel": 2, "max_depth": 4}).check(
        net.model(y)
    )
    assert all(head.parts > 1 for head in conversion.heads)


def test_strides_stay() -> None:
    """A layer on two maps whose cells lie 1 and 2 pixels apart: one of its Convs has a stride."""
    net = Net(image=(2, 6, 6))
    fine = conv(net, net.x, (4, 4))
    coarse = net.op("MaxPool", fine, kernel_shape=[2, 2], strides=[2, 2], shape=(3, 2, 2))
    y = net.op("Concat", net.flat(fine), net.flat(coarse), axis=1, shape=(60,))
    options = {"max_kernel": 2, "max_depth": 5}
    conversion = Oracle(gone=NO_LAYER, options=options).check(net.model(net.fc(y)))
    assert max(prod(shape[1:]) for shape in kernels(conversion)) <= 5


def test_static_mode_and_pointwise_layers() -> None:
    net = Net(image=("T", 8))  # type: ignore[arg-type]
    model = net.model(net.op("MatMul", net.op("MatMul", net.x, net.random(8, 6)), net.random(6, 5)))
    conversion = convert(model, static=True, all_linear=True, max_depth=3)
    assert {shape[1:] for shape in kernels(conversion, "MatMul")} == {(3, 1, 1), (2, 1, 1)}
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    assert_close(
        session(converted_model(conversion))({"x": x})["y"], session(model)({"x": x})["y"], 1e-5, ""
    )


def test_integers_are_exact() -> None:
    """Sums of small integers are exact in whichever order."""
    net = Net(image=(2, 6, 6))
    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 5, (3, 72)).astype(np.float32)
    y = net.op("Gemm", net.flat(net.op("Relu", net.x, shape=(2, 6, 6))), weight, transB=1)
    model = net.model(y)
    split = converted_model(convert(model, static=True, max_kernel=4, max_depth=9))
    x = rng.integers(-100, 100, (4, 2, 6, 6)).astype(np.float32)
    assert np.array_equal(session(split)({"x": x})["y"], session(model)({"x": x})["y"])


def test_one_bias_and_the_name_of_the_output() -> None:
    net = Net()
    split = converted_model(convert(net.model(net.head(net.trunk())), max_kernel=2))
    convs = [node for node in split.graph if node.op_type == "Conv"][1:]
    assert [len(node.inputs) for node in convs] == [3, 2, 2, 2]
    assert [value.name for value in split.graph.outputs] == ["y"]
    assert op_types(split).count("Add") == 3


def test_the_trunk_is_left_alone() -> None:
    net = Net()
    y = conv(net, net.x, (8, 10), pads=[1, 1, 1, 1])
    split = converted_model(convert(net.model(net.head(y)), max_kernel=2))
    assert split.graph[0].inputs[1].const_value.shape == ir.Shape([3, 2, 3, 3])  # type: ignore[union-attr]


def test_a_grouped_kernel() -> None:
    """Rows of other channels each: a grouped Conv, whose groups are split alike."""
    net = Net()
    y = net.op("Reshape", net.head(net.trunk(), 8), np.array([-1, 2, 4]), shape=(2, 4))
    model = net.model(net.op("MatMul", y, net.random(4, 3), shape=(2, 3)))
    whole = convert(model)
    assert [h.kernel_shape for h in whole.heads][1] == (6, 4, 1, 1)
    Oracle(options={"max_depth": 3}, gone=("Gemm", "MatMul")).check(model)


def test_the_pass_alone_and_twice() -> None:
    net = Net()
    model = converted_model(convert(net.model(net.head(net.trunk()))))
    split = SplitKernels(max_kernel=2)
    assert repr(split) == "SplitKernels(max_kernel=2, max_depth=None)"
    assert split(model).modified
    before = ir.to_onnx_text(model, exclude_initializers=True)
    assert not split(model).modified
    assert ir.to_onnx_text(model, exclude_initializers=True) == before
    assert not SplitKernels()(model).modified


@pytest.mark.parametrize("option", ["max_kernel", "max_depth"])
def test_a_limit_below_one(option: str) -> None:
    with pytest.raises(ArgumentError, match="no kernel is smaller than 1"):
        SplitKernels(**{option: 0})


def test_a_block_is_a_part_of_the_kernel() -> None:
    block = Block((1, 3), ((0, 2),))
    assert block.shape(5) == (5, 2, 2)
    assert np.zeros((5, 4, 4))[block.slices].shape == (5, 2, 2)
