"""The check of a denser map (--stride), right ones and with planted faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnx_fc2conv import EquivalenceReport, check, convert
from onnx_fc2conv.geometry import Geometry, SizeRule, write_geometry
from tests.equivalence.conftest import failed_tiers
from tests.equivalence.planting import Plant, constant_of, fc_convs, first, last, replace_constant
from tests.nets import Net, Tensor, conv
from tests.oracle import converted_model

MODELS = Path(__file__).parents[2] / "models"


def report(plant: Plant | None = None, *, padded: bool) -> EquivalenceReport:
    pads = [1, 1, 1, 1] if padded else [0, 0, 0, 0]
    net = Net(image=(2, 18, 20))
    y = conv(net, net.x, (9, 10) if padded else (8, 9), 3, strides=[2, 2], pads=pads)
    y = net.op("MaxPool", net.op("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    y = Tensor(y.value, (3, 4, 5) if padded else (3, 4, 4))
    y = conv(net, y, (4, 5) if padded else (2, 2), 3, pads=pads)
    model = net.model(net.head(y))
    conversion = convert(model, stride=1)
    if plant is not None:
        plant(converted_model(conversion))
    return check(model, converted_model(conversion), geometry=conversion.geometry)


def attribute(op_type: str, name: str, *values: int, at_end: bool = False) -> Plant:
    def plant(model: ir.Model) -> None:
        node = last(model, op_type) if at_end else first(model, op_type)
        node.attributes.add(ir.AttrInt64s(name, list(values)))

    return plant


def second_conv(name: str, *values: int) -> Plant:
    def plant(model: ir.Model) -> None:
        node = [n for n in model.graph if n.op_type == "Conv" and n not in fc_convs(model)][1]
        node.attributes.add(ir.AttrInt64s(name, list(values)))

    return plant


def other_kernel(model: ir.Model) -> None:
    node = first(model, "Conv")
    replace_constant(node, 1, constant_of(node, 1)[:, ::-1])


FAULTS: dict[str, Plant] = {
    "a dilation forgotten": attribute("MaxPool", "dilations", 1, 1),
    "a dilation too large": second_conv("dilations", 4, 8),
    "the head's dilation forgotten": attribute("Conv", "dilations", 1, 1, at_end=True),
    "a stride kept": attribute("MaxPool", "strides", 2, 2),
    "a kernel's channels swapped": other_kernel,
}


@pytest.mark.parametrize("padded", [False, True])
def test_a_right_one_passes(padded: bool) -> None:
    found = report(padded=padded)
    assert found
    (run,) = found.runs
    passed = {r.tier for r in run.results if r.status == "passed"}
    assert {"native", "geometry", "integers", "feature windows"} <= passed
    assert ("image windows" in passed) == (not padded)
    assert found.geometry["y"].stride == (1, 1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_fault_is_found(fault: str, padded: bool) -> None:
    found = report(FAULTS[fault], padded=padded)
    assert not found
    assert {"native", "feature windows"} <= failed_tiers(found)


def test_a_pad_that_was_not_scaled_is_found() -> None:
    found = report(second_conv("pads", 1, 1, 1, 1), padded=True)
    assert {"native", "feature windows"} <= failed_tiers(found)


@pytest.mark.parametrize("name", ["dress64x128", "dress64x128_padded"])
def test_real_models_at_stride_4(name: str) -> None:
    model = MODELS / f"{name}.onnx"
    conversion = convert(model, stride=4)
    assert check(model, converted_model(conversion), geometry=conversion.geometry)


@pytest.mark.parametrize("layer", [True, False])
def test_windows_that_are_pooled_come_closer(layer: bool) -> None:
    """With an FC layer behind the pooling, and without one: then there is nothing to convert."""
    net = Net(image=(2, 18, 20))
    y = conv(net, net.x, (8, 9), 3, strides=[2, 2])
    y = conv(net, net.op("Relu", y, shape=y.shape), (3, 4), 3, strides=[2, 2])
    y = net.flat(Tensor(net.op("GlobalAveragePool", y).value, (3,)))
    model = net.model(net.fc(y) if layer else y)
    conversion = convert(model, stride=2, pool="window")
    found = check(model, converted_model(conversion), geometry=conversion.geometry)
    assert found
    tiers = {result.tier for result in found.runs[0].results if result.status == "passed"}
    assert {"native", "feature windows", "image windows"} <= tiers


@pytest.mark.parametrize(
    ("claim", "wrong"),
    [
        ({}, ""),
        ({"remainder": (2, 3)}, "cells"),
        ({"sizes": (SizeRule(2, (1,)), SizeRule())}, "not to compute at the native size"),
    ],
    ids=["as it is", "cells", "sizes"],
)
def test_what_is_said_of_a_grid_that_finds_room_in_a_window(
    claim: dict[str, Any], wrong: str
) -> None:
    """The layers leave three pixels of a window over; closer windows begin there too."""
    net = Net(image=(1, 31, 31))
    y = net.op("Conv", net.x, net.random(4, 1, 3, 3), shape=(4, 29, 29))
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[4, 4], shape=(4, 7, 7))
    y = net.op("Conv", y, net.random(4, 4, 3, 3), strides=[4, 4], shape=(4, 2, 2))
    original = net.model(net.head(y))
    conversion = convert(original, stride=2)
    model = converted_model(conversion)
    said: Geometry = replace(conversion.geometry["y"], **claim)
    assert conversion.geometry["y"].remainder == (3, 3)
    write_geometry(model, {"y": said})
    found = [r for r in check(original, model).results if r.tier == "geometry"]
    assert [(r.status, wrong in r.detail) for r in found] == [
        ("failed" if wrong else "passed", True)
    ]
