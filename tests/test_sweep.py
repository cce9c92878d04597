"""The sweep says what became of each model, and takes its exit code from the bad ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_fc2conv import Conversion, convert
from onnx_fc2conv.equivalence.reporting.results import TierResult
from tests.nets import Net
from tools import sweep

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of each kind: to convert, with nothing to convert, and broken."""
    path = tmp_path_factory.mktemp("models")
    (path / "below").mkdir()
    face = (ROOT / "models/face25.onnx").read_bytes()
    (path / "below" / "face25.onnx").write_bytes(face)
    (path / "broken.onnx").write_bytes(face[: len(face) // 2])
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 8, 8])
    scores = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 6, 6])
    kernel = numpy_helper.from_array(np.ones((3, 2, 3, 3), np.float32), "k")
    conv = helper.make_node("Conv", ["x", "k"], ["y"])
    graph = helper.make_graph([conv], "conv", [image], [scores], [kernel])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path / "conv.onnx")
    return path


def test_says_what_became_of_each_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder / "report.json"
    assert sweep.main([str(folder), "--json", str(report)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"proven   {folder / 'below' / 'face25.onnx'}: 2 layers")
    assert lines[1].startswith(f"invalid  {folder / 'broken.onnx'}: ")
    assert lines[2].startswith(f"refused  {folder / 'conv.onnx'}: [nothing-to-convert] ")
    summary = ["3 models", "1 proven", "1 refused", "1 nothing-to-convert", "1 invalid"]
    assert [line.strip() for line in lines[4:]] == summary

    results = json.loads(report.read_text(encoding="utf-8"))
    assert [result["outcome"] for result in results] == ["proven", "invalid", "refused"]
    assert results[2]["code"] == "nothing-to-convert"


@pytest.mark.parametrize(("outcome", "code"), [("failed", 1), ("CRASHED", 1), ("timeout", 0)])
def test_exit_code(outcome: str, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stub(models: list[sweep.Model], *_: object) -> Iterator[tuple[int, sweep.Result]]:
        yield from ((i, sweep.Result(model.name, outcome)) for i, model in enumerate(models))

    monkeypatch.setattr(sweep, "sweep", stub)
    assert sweep.main([str(folder)]) == code


def test_an_exception_of_our_own_making_is_a_crash(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(sweep, "convert", stumble)
    outcome, _, detail, traceback = sweep.attempt(folder / "conv.onnx")
    assert outcome == "CRASHED"
    assert detail.startswith("KeyError: 'lost' (test_sweep.py:")
    assert traceback[-1] == "KeyError: 'lost'"


def test_a_wrong_conversion_has_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(path: str) -> Conversion:
        conversion = convert(path)
        assert conversion.model is not None
        weights = conversion.model.graph.initializers.values()
        weight = max(weights, key=lambda value: value.const_value.size)
        weight.const_value = ir.tensor(weight.const_value.numpy()[::-1].copy())
        return conversion

    monkeypatch.setattr(sweep, "convert", spoil)
    outcome, _, detail, _ = sweep.attempt(folder / "below" / "face25.onnx")
    assert outcome == "failed"
    assert "native, scores" in detail


def test_static_mode_says_what_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(folder / "below"), "--static"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("face25.onnx: 2 layers")


def test_a_layer_left_without_a_reason_has_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def idle(path: str, **_: bool) -> Conversion:
        return replace(convert(path, static=True), model=ir.load(path))

    monkeypatch.setattr(sweep, "convert", idle)
    outcome, _, detail, _ = sweep.attempt(folder / "below" / "face25.onnx", {"static": True})
    assert outcome == "failed"
    assert detail.startswith("layers left without a reason: node_linear")


def dies(connection: Connection) -> None:
    """A worker that ends at its first model."""
    connection.send(None)
    connection.recv()
    os._exit(7)


def hangs(connection: Connection) -> None:
    """A worker that never answers."""
    connection.send(None)
    time.sleep(60)


@pytest.mark.parametrize(
    ("worker", "outcome", "detail"),
    [
        (dies, "CRASHED", "the process died with exit code 7"),
        (hangs, "timeout", "more than 0.2 s"),
    ],
)
def test_a_worker_takes_no_other_model_with_it(
    worker: Callable[[Connection], None],
    outcome: str,
    detail: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "work", worker)
    models = [sweep.Model("one", b""), sweep.Model("two", b"")]
    results = dict(sweep.sweep(models, jobs=1, timeout=0.2 if worker is hangs else 60))
    assert [results[index].name for index in range(2)] == ["one", "two"]
    assert {(result.outcome, result.detail) for result in results.values()} == {(outcome, detail)}


@pytest.mark.parametrize(
    ("subject", "detail", "nothing"),
    [
        ("the reference", "does not run: INVALID_ARGUMENT", True),
        ("the converted model", "does not run: INVALID_ARGUMENT", False),
        ("y", "unproven: nothing finite could be compared, 4 values are NaN", True),
        ("y", "4 of 5 values differ", False),
    ],
)
def test_where_there_is_nothing_to_compare_with(subject: str, detail: str, nothing: bool) -> None:
    result = TierResult("native", subject, "failed", detail)
    assert sweep.nothing_to_compare_with(result) == nothing


def test_a_model_that_gives_no_numbers_is_untested(tmp_path: Path) -> None:
    """The logarithm of numbers below zero."""
    net = Net()
    y = net.trunk()
    squares = net.op("Mul", y, y, shape=y.shape)
    negative = net.op("Sub", np.array(-1, np.float32), squares, shape=y.shape)
    logarithms = net.op("Log", negative, shape=y.shape)
    onnx.save(net.model(net.head(logarithms)), tmp_path / "log.onnx")
    outcome, _, detail, _ = sweep.attempt(tmp_path / "log.onnx")
    assert outcome == "untested"
    assert "nothing finite could be compared" in detail
