"""One head in every opset: from 7 on as they are, 1 to 6 upgraded, and said so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_fc2conv.equivalence import check
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.passes import old_operators
from onnx_fc2conv.pipeline import OpsetUpgrade, convert
from tests.cli.conftest import Run, run
from tests.nets import FC_TRACES, Array, Net, Tensor, i64, session
from tests.oracle import assert_refused, assert_slides, converted_model

__all__ = ["run"]

LAYERS = ("Gemm", "MatMul")
"""Until opset 12 Softmax works on the last axis only, which leaves its Transposes."""


def head(opset: int) -> Net:
    """Reshape, Gemm, BatchNormalization, Relu, Dropout, MatMul + Add, Softmax."""
    net = Net(opset=opset, ir_version=3 if opset < 9 else 8 if opset < 20 else 10)
    y = net.trunk()
    flat = net.op("Reshape", y, i64(0, -1), shape=(y.size,))
    hidden = net.fc(flat, 6)
    statistics = [np.abs(net.random(6)) + np.float32(0.5) for _ in range(4)]
    hidden = net.op("BatchNormalization", hidden, *statistics)
    if opset < 12:
        hidden = net.op("Dropout", net.op("Relu", hidden), ratio=0.5)
    else:
        hidden = net.op("Dropout", net.op("Relu", hidden), np.float32(0.5))
    scores = net.op("Add", net.op("MatMul", hidden, net.random(6, 4)), net.random(4))
    net.y: Tensor = net.op("Softmax", scores, axis=1)
    return net


def is_loaded(opset: int) -> bool:
    """Whether the installed onnxruntime loads it: 1.27 does up to 26, 1.32 up to 28."""
    net = head(opset)
    try:
        session(net.model(net.y))
    except Exception:
        return False
    return True


NEWEST = next(filter(is_loaded, range(onnx.defs.onnx_opset_version(), 0, -1)))


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_every_opset(opset: int) -> None:
    net = head(opset)
    gone = FC_TRACES if opset >= 13 else (*LAYERS, "Flatten", "Reshape")
    conversion = assert_slides(net.model(net.y), gone=gone)
    assert conversion.lifted is None
    assert converted_model(conversion).opset_imports[""] == opset


@pytest.mark.parametrize("opset", range(NEWEST + 1, onnx.defs.onnx_opset_version() + 1))
def test_an_opset_that_onnxruntime_does_not_load(opset: int) -> None:
    """It converts; the check says why it cannot be checked."""
    net = head(opset)
    model = net.model(net.y)
    made = converted_model(convert(model))
    with pytest.raises(InvalidModelError, match=f"official support .* till opset {NEWEST}"):
        check(model, made)


def test_an_opset_of_the_future_is_invalid() -> None:
    net = head(13)
    model = net.model(net.y)
    model.opset_import[0].version = 99
    with pytest.raises(InvalidModelError, match="is of opset 99; the installed onnx"):
        convert(model)


def zoo(opset: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A net as converters wrote them in 2017, and the same in words of opset 7."""
    rng = np.random.default_rng(1)

    def random(*shape: int) -> Array:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    arrays = {
        "k": random(3, 2, 3, 3),
        "kb": random(3),
        "s": np.abs(random(3)),
        "b": random(3),
        "m": random(3),
        "v": np.abs(random(3)),
        "p": random(3),
        "W": random(4, 36),
        "bias": random(4),
    }
    by_channel = {n: arrays[n].reshape(3, 1, 1) for n in ("kb", "p")} | {"shape": i64(-1, 36)}

    def model(version: int) -> onnx.ModelProto:
        old = version < 7
        hint = {"consumed_inputs": [0]} if version < 6 else {}
        hints = {"consumed_inputs": [0, 0]} if version < 6 else {}
        moments = {"consumed_inputs": [0, 0, 0, 1, 1]} if version < 6 else {}
        at_channels = {"broadcast": 1, "axis": 1} if old else {}
        test = {"is_test": 1} if old else {}
        if version < 5:
            flatten = helper.make_node("Reshape", ["pool"], ["flat"], shape=[-1, 36], **hint)
        else:
            flatten = helper.make_node("Reshape", ["pool", "shape"], ["flat"])
        broadcast = {"broadcast": 1} if old else {}
        nodes = [
            helper.make_node("Conv", ["x", "k"], ["conv"]),
            helper.make_node("Add", ["conv", "kb"], ["biased"], **at_channels, **hints),
            helper.make_node(
                "BatchNormalization", ["biased", "s", "b", "m", "v"], ["bn"], **test, **moments
            ),
            helper.make_node("PRelu", ["bn", "p"], ["act"], **hint),
            helper.make_node("MaxPool", ["act"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
            flatten,
            helper.make_node("Dropout", ["flat"], ["kept"], ratio=0.5, **test, **hint),
            helper.make_node("Gemm", ["kept", "W", "bias"], ["scores"], transB=1, **broadcast),
            helper.make_node("Softmax", ["scores"], ["y"]),
        ]
        used = {name for node in nodes for name in node.input}
        stored = arrays | ({"shape": by_channel["shape"]} if old else by_channel)
        tensors = [numpy_helper.from_array(a, n) for n, a in stored.items() if n in used]
        listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 10])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
        graph = helper.make_graph(nodes, "zoo", [x, *listed], [y], tensors)
        imports = [helper.make_opsetid("", version)]
        return helper.make_model(graph, ir_version=3, opset_imports=imports)

    return model(opset), model(7)


@pytest.mark.parametrize("opset", range(1, 7))
def test_old_opsets_are_upgraded(opset: int) -> None:
    model, twin = zoo(opset)
    conversion = convert(model)
    assert conversion.lifted == OpsetUpgrade(opset, 7)
    feeds = {"x": np.random.default_rng(2).normal(size=(3, 2, 12, 11)).astype(np.float32)}
    dense = assert_slides(twin, gone=LAYERS, free_batch=False)
    made, wanted = (session(converted_model(c))(feeds)["y"] for c in (conversion, dense))
    np.testing.assert_array_equal(made, wanted)


def test_the_check_says_that_nothing_runs_the_original() -> None:
    model, _ = zoo(3)
    report = check(model, converted_model(convert(model)))
    assert report
    (opset,) = (result for result in report.results if result.tier == "opset")
    assert opset.status == "skipped"
    assert "Could not find an implementation for Add(1)" in opset.detail


def small() -> onnx.ModelProto:
    """Operators of opset 6 that ONNX's reference implementation runs."""
    net = Net(opset=7, batch=1, ir_version=3)
    y = net.trunk(relu=False)
    made = net.model(net.op("Relu", net.fc(net.flat(y), name="fc")))
    made.opset_import[0].version = 6
    (gemm,) = (node for node in made.graph.node if node.op_type == "Gemm")
    gemm.attribute.append(helper.make_attribute("broadcast", 1))
    gemm.attribute.append(helper.make_attribute("alpha", 2.0))
    return made


def test_the_original_is_run_where_it_can_be() -> None:
    model = small()
    report = check(model, converted_model(convert(model)))
    assert report
    (opset,) = (result for result in report.results if result.tier == "opset")
    assert opset.status == "passed"
    assert "reference implementation" in opset.detail


def test_a_wrong_upgrade_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_alpha(node: ir.Node) -> None:
        for name in ("alpha", "broadcast"):
            node.attributes.pop(name)

    monkeypatch.setitem(old_operators.UPGRADES, "Gemm", lambda *_: forgets_alpha)
    model = small()
    report = check(model, converted_model(convert(model)))
    (failure,) = report.failures
    assert failure.tier == "opset"


def test_is_said_in_report_and_on_screen(run: Run, tmp_path: Path) -> None:
    model, _ = zoo(4)
    onnx.save(model, tmp_path / "old.onnx")
    report, table = tmp_path / "report.json", tmp_path / "report.md"
    arguments = (tmp_path / "old.onnx", tmp_path / "new.onnx", "--report", report)
    outcome = run(*arguments, "--report", table)
    assert outcome.code == 0, outcome.err
    assert "Upgraded from opset 4 to 7" in outcome.out
    assert json.loads(report.read_text())["lifted"] == {"from": 4, "to": 7}
    assert "upgraded from opset 4 to 7" in table.read_text()
    assert onnx.load(tmp_path / "new.onnx").opset_import[0].version == 7


def test_what_cannot_be_upgraded_is_refused(run: Run, tmp_path: Path) -> None:
    model = lp_pooled()
    assert_refused(model, "old-opset", "LpPool lp", "is LpPool-1, which no rule upgrades")
    onnx.save(model, tmp_path / "old.onnx")
    outcome = run(tmp_path / "old.onnx", tmp_path / "new.onnx")
    assert outcome.code == 3
    assert "old-opset" in outcome.err


def lp_pooled() -> onnx.ModelProto:
    """Its pooling is LpPool-1."""
    model, _ = zoo(1)
    model.graph.node[4].CopyFrom(
        helper.make_node("LpPool", ["act"], ["pool"], name="lp", kernel_shape=[2, 2], p=2.0)
    )
    return model


def unknown_operator() -> onnx.ModelProto:
    """Its pooling is no operator of ONNX."""
    model, _ = zoo(1)
    model.graph.node[4].op_type = "NoSuchPool"
    return model


@pytest.mark.parametrize("position", [0, 1], ids=["reference", "converted"])
@pytest.mark.parametrize(
    ("build", "code", "line"),
    [
        (lp_pooled, 3, "refused: LpPool lp: is LpPool-1, which no rule upgrades"),
        (unknown_operator, 2, "NoSuchPool"),
    ],
    ids=["no-rule", "no-such-operator"],
)
def test_what_cannot_be_upgraded_is_not_checked(
    run: Run,
    tmp_path: Path,
    build: Callable[[], onnx.ModelProto],
    code: int,
    line: str,
    position: int,
) -> None:
    files = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    models = [zoo(1)[0], zoo(1)[0]]
    models[position] = build()
    for file, model in zip(files, models, strict=True):
        onnx.save(model, file)
    outcome = run("check", *files)
    assert outcome.code == code
    assert len(outcome.error_lines) == code - 1  # a refusal also says what to do
    assert line in outcome.err


def test_statistics_for_every_position_fit_one_size() -> None:
    model, _ = zoo(6)
    for tensor in model.graph.initializer:
        if tensor.name in {"s", "b", "m", "v"}:
            array = np.full((3, 6, 8), 0.5, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            (listed,) = (i for i in model.graph.input if i.name == tensor.name)
            listed.CopyFrom(
                helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, array.shape)
            )
    model.graph.node[2].attribute.append(helper.make_attribute("spatial", 0))
    reason = "normalizes each position of [1, 3, 6, 8] by itself"
    assert_refused(model, "positional-constant", "BatchNormalization bn", reason)
