"""Models that are undefined on some numbers: those are left out, others are tried."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from tests.equivalence.conftest import SQUARE
from tests.equivalence.planting import edit_constant, one_element
from tests.nets import Net, Tensor

DEFINED = {"Sqrt": "positive", "Log": "positive", "Acos": "uniform", "Acosh": "above 1"}


def models(op_type: str, factor: float = 1.0) -> tuple[ir.Model, ir.Model]:
    net = Net(image=SQUARE, seed=1)
    scaled = net.op("Mul", net.x, np.float32(factor))
    made = Tensor(net.op(op_type, scaled).value, SQUARE)
    reference = net.ir_model(net.head(made))
    converted = convert(reference).model
    assert converted is not None
    return reference, converted


@pytest.mark.parametrize("op_type", DEFINED)
def test_right_conversion_passes(op_type: str) -> None:
    report = check(*models(op_type))
    print(report.to_markdown())
    assert report
    assert all(r.elements for r in report.results if r.status == "passed")
    native, *_ = (r for r in report.results if r.tier == "native")
    assert native.not_finite
    assert "positive" in native.detail


@pytest.mark.parametrize("op_type", DEFINED)
def test_wrong_conversion_fails(op_type: str) -> None:
    reference, converted = models(op_type)
    edit_constant(0, 1, one_element(lambda w: w * np.float32(1.01)))(converted)
    report = check(reference, converted)
    assert {r.tier for r in report.failures} >= {"native", "feature windows", "image windows"}


def test_undefined_everywhere_is_unproven() -> None:
    report = check(*models("Acosh", factor=-1e-3))
    assert not report
    assert any("nothing finite could be compared" in r.detail for r in report.failures)
