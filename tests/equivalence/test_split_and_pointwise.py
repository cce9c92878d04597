"""The check on split kernels and on pointwise layers, right ones and with planted faults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import EquivalenceReport, check, convert
from tests.equivalence.conftest import failed_tiers
from tests.equivalence.planting import Plant, constant_of, fc_convs, replace_constant
from tests.nets import Net, i64
from tests.oracle import converted_model


def split(plant: Plant) -> EquivalenceReport:
    net = Net()
    model = net.model(net.head(net.trunk()))
    conversion = convert(model, max_kernel=2, max_depth=8)
    plant(converted_model(conversion))
    return check(model, converted_model(conversion), geometry=conversion.geometry)


def edit_part(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    def plant(model: ir.Model) -> None:
        conv = fc_convs(model)[2]
        replace_constant(conv, 1, change(constant_of(conv, 1)))

    return plant


def swap_parts(model: ir.Model) -> None:
    """Two parts of one shape in each other's places."""
    one, two = fc_convs(model)[:2]
    kernels = constant_of(one, 1), constant_of(two, 1)
    replace_constant(one, 1, kernels[1])
    replace_constant(two, 1, kernels[0])


def one_bias_more(model: ir.Model) -> None:
    one, two = fc_convs(model)[:2]
    two.resize_inputs(3)
    two.replace_input_with(2, one.inputs[2])


def one_cell_further(model: ir.Model) -> None:
    """A part reads the same place as another."""
    slices = [node for node in model.graph if node.op_type == "Slice"]
    for position in (1, 2):
        slices[1].replace_input_with(position, slices[0].inputs[position])


@pytest.mark.parametrize(
    "plant",
    [
        edit_part(lambda kernel: kernel[::-1]),
        edit_part(lambda kernel: np.roll(kernel, 1, axis=-1)),
        swap_parts,
        one_bias_more,
        one_cell_further,
    ],
)
def test_a_fault_in_one_part_of_a_kernel_is_found(plant: Plant) -> None:
    assert not failed_tiers(split(lambda _: None))
    compared = {"native", "integers", "feature windows", "image windows"}
    assert failed_tiers(split(plant)) == compared


def tokens() -> tuple[Net, ir.Model]:
    net = Net(image=("T", 4))  # type: ignore[arg-type]
    return net, net.ir_model(net.op("MatMul", net.x, net.random(4, 6), name="layer"))


def pointwise(plant: Plant) -> EquivalenceReport:
    _, model = tokens()
    made = converted_model(convert(model, static=True, all_linear=True))
    plant(made)
    return check(model, made, input_shapes={"x": (1, 3, 4)}, geometry={})


def edit_kernel(model: ir.Model) -> None:
    (conv,) = fc_convs(model)
    replace_constant(conv, 1, constant_of(conv, 1)[::-1])


def bake_the_sequence(model: ir.Model) -> None:
    """Right at the native length only, which shape inference finds out: another interface."""
    (conv,) = fc_convs(model)
    shape = ir.val("baked", const_value=ir.tensor(i64(-1, 4, 3, 1), name="baked"))
    model.graph.register_initializer(shape)
    node = ir.node("Reshape", [conv.inputs[0], shape])  # type: ignore[list-item]
    model.graph.insert_before(conv, node)
    conv.replace_input_with(0, node.outputs[0])


def pick_tokens(model: ir.Model) -> None:
    """The first three tokens, which are all of them at the native length."""
    (conv,) = fc_convs(model)
    bounds = [i64(0), i64(3), i64(2)]
    stored = [ir.val(f"s{n}", const_value=ir.tensor(b, name=f"s{n}")) for n, b in enumerate(bounds)]
    for value in stored:
        model.graph.register_initializer(value)
    node = ir.node("Slice", [conv.inputs[0], *stored])
    model.graph.insert_before(conv, node)
    conv.replace_input_with(0, node.outputs[0])


@pytest.mark.parametrize(
    ("plant", "tiers"),
    [
        (lambda _: None, set()),
        (edit_kernel, {"native", "integers", "other sizes"}),
        (bake_the_sequence, {"integers", "feature windows"}),
        (pick_tokens, {"other sizes"}),
    ],
)
def test_a_model_that_keeps_its_symbolic_sizes_is_compared_at_others(
    plant: Plant, tiers: set[str]
) -> None:
    assert failed_tiers(pointwise(plant)) == tiers


def test_an_original_that_computes_at_one_size_only() -> None:
    net = Net(image=("T", 4))  # type: ignore[arg-type]
    y = net.op("Reshape", net.op("MatMul", net.x, net.random(4, 6)), i64(-1, 3, 6))
    model = net.model(y)
    made = converted_model(convert(model, static=True, all_linear=True))
    report = check(model, made, input_shapes={"x": (1, 3, 4)}, geometry={})
    # At other lengths the tokens of several samples happen to make whole ones.
    assert report, report.to_markdown()


def test_a_fixed_first_axis_need_not_be_that_of_samples() -> None:
    net = Net(batch=5, image=(4,))
    model = net.model(net.op("MatMul", net.random(3, 5), net.x))
    made = converted_model(convert(model, static=True, all_linear=True))
    report = check(model, made, geometry={})
    assert report, report.to_markdown()
    assert not failed_tiers(report)
