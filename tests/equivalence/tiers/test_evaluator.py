"""The reference evaluator as a second oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from onnx_fc2conv.equivalence import EquivalenceReport
from tests.equivalence.conftest import MODELS, Case
from tests.equivalence.planting import edit_constant
from tests.nets import Net, Tensor

TIER = "native (reference evaluator)"


def statuses(report: EquivalenceReport) -> list[str]:
    return [r.status for r in report.results if r.tier == TIER]


@pytest.mark.parametrize("net", ["plain", "softmax_11", "half", "one_dimension", "fixed_batch"])
def test_right_conversion_passes(net: str, case_of: Callable[[str], Case]) -> None:
    report = case_of(net).check()
    assert set(statuses(report)) == {"passed"}


def test_wrong_conversion_fails(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.01))(case.converted)
    assert statuses(case.check()) == ["failed"]


def test_dropped_batch_axis() -> None:
    net = Net(image=(2, 8, 8), batch=1)
    flat = net.op("Reshape", net.trunk(), net.constant(np.array([27])), shape=(27,))
    reference = net.model(net.op("MatMul", flat, net.random(27, 4), shape=(4,)))
    report = check(reference, convert(reference).model)  # type: ignore[arg-type]
    assert report
    assert statuses(report) == ["passed"]


def test_disagreement_of_the_oracles_is_no_finding(case_of: Callable[[str], Case]) -> None:
    """The evaluator computes BatchNormalization-9 as in training."""
    (result,) = (r for r in case_of("batch_norm").check().results if r.tier == TIER)
    assert result.status == "skipped"
    assert "does not agree with onnxruntime about the original" in result.detail


def test_wrong_shape_of_the_evaluator_is_no_finding() -> None:
    """It loses a row of a pooling whose pads lead; found with onnx 1.23."""
    net = Net(image=(3, 32, 32), seed=1)
    pool = net.op("MaxPool", net.x, kernel_shape=[2, 2], auto_pad="SAME_LOWER")
    reference = net.model(net.head(Tensor(pool.value, (3, 32, 32))))
    report = check(reference, convert(reference).model)  # type: ignore[arg-type]
    assert report, report.to_markdown()


def test_operator_that_it_lacks_is_no_finding(case_of: Callable[[str], Case]) -> None:
    net = Net(image=(2, 8, 8))
    y = net.op("FusedMatMul", net.flat(net.trunk()), net.random(27, 4), domain="com.microsoft")
    model = net.ir_model(y)
    model.graph.opset_imports["com.microsoft"] = 1
    proto = ir.to_proto(model)
    assert statuses(check(proto, proto)) == ["skipped"]


def test_large_models_are_left_out() -> None:
    file = MODELS / "dress64x128.onnx"
    report = check(file, convert(file).model)  # type: ignore[arg-type]
    assert statuses(report) == []
