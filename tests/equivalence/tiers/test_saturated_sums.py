"""What the user will see is measured, where onnxruntime's own sums of bytes saturate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert
from onnx_fc2conv.equivalence import EquivalenceReport
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.runtime import byte_products
from onnx_fc2conv.runtime.byte_products import saturates
from tests.nets import Net
from tests.quantized_nets import dq, integers, qdq, qdq_trunk

SUBJECTS = [
    "this CPU",
    "y of the original, from its exact value",
    "y of the converted model, from its exact value",
    "y, from the original to the converted model",
]


@pytest.fixture
def _saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU is taken for one that saturates."""
    monkeypatch.setattr(byte_products, "saturates", lambda: True)


def quantized(weight: Any = np.int8) -> tuple[ir.Model, str]:
    """A quantized net of one layer, and its output."""
    net = Net(image=(2, 8, 10), seed=1)
    flat = net.flat(qdq_trunk(net, np.uint8, weight))
    y = qdq(net, net.op("MatMul", flat, dq(net, integers(net, 36, 4, dtype=weight)), shape=(4,)))
    return net.ir_model(y), y.value.name or ""


def measured(report: EquivalenceReport) -> list[TierResult]:
    return [result for result in report.results if result.tier == "saturation"]


@pytest.fixture
def report() -> EquivalenceReport:
    model, _ = quantized()
    return check(model, convert(model).model)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_saturating")
def test_equal_in_exact_sums_and_what_a_default_session_gives(report: EquivalenceReport) -> None:
    """The models are equivalent; three distances say what this CPU makes of them."""
    assert report, report.to_markdown()
    diagnosis, *distances = measured(report)
    name = quantized()[1]
    assert [diagnosis.subject] == SUBJECTS[:1]
    assert [d.subject for d in distances] == [s.replace("y", name, 1) for s in SUBJECTS[1:]]
    assert {result.status for result in measured(report)} == {"measured"}
    for words in ("QLinearConv", "reduce_range=True", "session.x64quantprecision", "VNNI"):
        assert words in diagnosis.detail
    seen = [distance.worst_error or 0.0 for distance in distances[:2]]
    assert (max(seen) > 0) == saturates(), "with VNNI, a default session is exact too"
    assert all("the largest score agrees in" in distance.detail for distance in distances)


@pytest.mark.usefixtures("_saturating")
@pytest.mark.parametrize(
    "text",
    [
        lambda report: json.dumps(json.loads(report.to_json())["checks"]),
        EquivalenceReport.to_markdown,
        EquivalenceReport.to_junit,
    ],
    ids=["json", "markdown", "junit"],
)
def test_every_report_says_it(
    text: Callable[[EquivalenceReport], str], report: EquivalenceReport
) -> None:
    assert "reduce_range=True" in text(report)
    assert "from its exact value" in text(report)


@pytest.mark.usefixtures("_saturating")
def test_your_own_samples_are_what_is_measured(tmp_path: Path) -> None:
    model, _ = quantized()
    images = np.random.default_rng(0).random((5, 2, 8, 10), dtype=np.float32)
    np.savez(tmp_path / "mine.npz", x=images)
    report = check(model, convert(model).model, data=[tmp_path / "mine.npz"])  # type: ignore[arg-type]
    diagnosis, *distances = measured(report)
    assert "your samples" in diagnosis.detail
    assert all("of 5 samples" in distance.detail for distance in distances)


@pytest.mark.usefixtures("_saturating")
def test_unsigned_weights_do_not_saturate() -> None:
    model, _ = quantized(np.uint8)
    report = check(model, convert(model).model)  # type: ignore[arg-type]
    assert report
    assert measured(report) == []


def test_nothing_is_said_where_sums_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_products, "saturates", lambda: False)
    model, _ = quantized()
    # On a CPU that saturates, the check is fooled here: it is not what this test is about.
    assert measured(check(model, convert(model).model)) == []  # type: ignore[arg-type]
