from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.cli.conftest import MODELS, Run


@pytest.fixture
def dense(run: Run, face25: Path, tmp_path: Path) -> Path:
    """Our conversion of face25."""
    assert run(face25, tmp_path / "dense.onnx", "-q", "--no-check").code == 0
    return tmp_path / "dense.onnx"


@pytest.fixture
def wrong(dense: Path) -> Path:
    """The same with the weights of a layer off by a percent."""
    model = onnx.load(dense)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4 and tensor.dims[0] == 48:
            weight = numpy_helper.to_array(tensor) * np.float32(1.01)
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, dense.with_name("wrong.onnx"))
    return dense.with_name("wrong.onnx")


@pytest.fixture
def peer(face25: Path, tmp_path: Path) -> Path:
    """face25 as a simplifier writes it: Reshape → 1×1 Conv → Reshape for each Gemm; sizes freed."""
    model = onnx.load(face25)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        x, weight, bias = node.input
        outputs, features = weights[weight].dims
        weights[weight].dims.extend((1, 1))
        cell, row = f"{node.name}.cell", f"{node.name}.row"
        for name, shape in ((cell, [-1, features, 1, 1]), (row, [-1, outputs])):
            graph.initializer.append(numpy_helper.from_array(np.array(shape), f"{name}.shape"))
        nodes += [
            helper.make_node("Reshape", [x, f"{cell}.shape"], [cell]),
            helper.make_node("Conv", [cell, weight, bias], [f"{node.name}.conv"]),
            helper.make_node("Reshape", [f"{node.name}.conv", f"{row}.shape"], [node.output[0]]),
        ]
    del graph.node[:]
    graph.node.extend(n for n in nodes if n.op_type != "Flatten")
    for dim in graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "any"
    del graph.value_info[:]
    onnx.save(model, tmp_path / "peer.onnx")
    return tmp_path / "peer.onnx"


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_equivalent(run: Run, face25: Path, dense: Path) -> None:
    result = run("check", face25, dense)
    assert (result.code, result.err) == (0, "")
    assert last_line(result.out) == f"{dense}: equivalent: a map of windows at any size"
    assert "✓ image windows: scores" in result.out


def test_different(run: Run, face25: Path, wrong: Path) -> None:
    result = run("check", face25, wrong)
    assert result.code == 1
    assert result.error_lines == [f"fc2conv: {wrong} is not equivalent to {face25}"]
    assert "✗ native: scores" in result.out


def test_a_conversion_that_explodes_the_batch(run: Run, face25: Path, peer: Path) -> None:
    """It runs at larger sizes without an error; that it is no map must be said."""
    result = run("check", face25, peer)
    assert result.code == 0
    assert last_line(result.out) == (
        f"{peer}: equal at the native size only: at larger sizes it returns 5 samples for 2 images "
        "instead of a map (at 31×33)"
    )
    demanded = run("check", face25, peer, "--expect", "map")
    assert demanded.code == 1
    assert "✗ relation: all outputs" in demanded.out
    assert run("check", face25, peer, "--expect", "same").code == 0


def test_quiet(run: Run, face25: Path, dense: Path, wrong: Path) -> None:
    result = run("check", face25, dense, "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    result = run("check", face25, wrong, "-q")
    assert (result.code, result.out) == (1, "")
    assert len(result.error_lines) == 1


def test_reports_of_every_format(run: Run, face25: Path, dense: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"report{ending}" for ending in (".json", ".md", ".xml")]
    options = [word for file in files for word in ("--report", file)]
    assert run("check", face25, dense, *options, "-q").code == 0
    report = json.loads(files[0].read_text(encoding="utf-8"))
    assert (report["status"], report["relation"]["kind"]) == ("equivalent", "map")
    assert (report["reference"], report["converted"]) == (str(face25), str(dense))
    assert report["geometry"]["scores"]["stride"] == [2, 2]
    assert files[1].read_text(encoding="utf-8").startswith("## fc2conv check: `")
    assert int(ET.parse(files[2]).getroot().attrib["tests"]) == len(report["checks"])


def test_a_report_says_what_is_wrong(run: Run, face25: Path, wrong: Path, tmp_path: Path) -> None:
    assert run("check", face25, wrong, "-q", "--report", tmp_path / "r.xml").code == 1
    root = ET.parse(tmp_path / "r.xml").getroot()
    cases = [c for c in root.iter("testcase") if c.find("failure") is not None]
    assert [c.attrib["classname"].rpartition(".")[2] for c in cases] == ["native", "integers"]
    assert [c.attrib["name"] for c in cases] == ["scores", "scores"]
    assert int(root.attrib["failures"]) == len(cases)


def test_options_reach_the_check(run: Run, face25: Path, dense: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", image=np.zeros((2, 1, 25, 25), np.float32))
    options = ("--data", tmp_path / "samples.npz", "--sizes", "41x33,27x51", "--seed", "7")
    more = ("--max-windows", "5", "--rtol", "1e-3", "--rtol", "scores=1e-4", "--atol", "scores=1")
    twice = ("--provider", "cpu", "--provider", "cpu")
    result = run("check", face25, dense, *options, *more, *twice)
    assert result.code == 0, result.out
    assert "✓ data: scores on " in result.out
    assert "15 cells at 2 larger sizes" in result.out
    assert result.out.count("cpu, seed 7, ") == 1


def test_symbolic_sizes_are_asked_for(run: Run, dense: Path) -> None:
    result = run("check", dense, dense)
    assert result.code == 2
    assert "'image' has symbolic dims: give its native size with --input-shape" in result.err
    assert run("check", dense, dense, "--input-shape", "image:1,1,25,25").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rtol", "much"], "--rtol 'much' is not written like --rtol 1e-4"),
        (["--rtol", "=1"], "is not written like --rtol 1e-4 or --rtol scores=1e-4"),
        (["--rtol", "-1"], "is not written like"),
        (["--atol", "scores=nan"], "--atol 'scores=nan' is not written like"),
        (["--rtol", "logits=1e-3"], "rtol names 'logits', but the model's outputs are: scores"),
        (["--sizes", "64"], "size 64 is not one of 'image', whose size is 25×25"),
        (["--sizes", "64x"], "--sizes '64x' is not written like --sizes 512x1024,300x200"),
        (["--sizes", "0x64"], "is not written like"),
        (["--sizes", "12x64"], "is smaller than the native size 25×25"),
        (["--data", "gone.npz"], "cannot read the samples gone.npz: No such file or directory"),
        (["--report", "report.html"], "must end in .json, .md or .xml"),
        (["--report", "gone/report.md"], "cannot be written there"),
        (["--input-shape", "image:1,1,30,30"], "does not fit the model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments_give_one_line_and_exit_2(
    run: Run, face25: Path, dense: Path, options: list[str], message: str
) -> None:
    result = run("check", face25, dense, *options)
    assert result.code == 2
    assert len(result.error_lines) == 1
    assert message in result.err


def test_other_files(run: Run, face25: Path, digits8: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for other, message in (
        (tmp_path / "gone.onnx", "No such file"),
        (tmp_path / "text.onnx", "is not an ONNX model"),
    ):
        result = run("check", face25, other)
        assert (result.code, len(result.error_lines)) == (2, 1)
        assert message in result.err
    assert run("check", face25, digits8).code == 1


def test_missing_cuda_is_found_before_any_work(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run("check", face25, tmp_path / "gone.onnx", "--provider", "cuda")
    if "gone.onnx" in result.err:
        pytest.skip("this onnxruntime has CUDA")
    assert result.code == 2
    assert "onnx-fc2conv[gpu]" in result.err


def test_help_teaches_by_example_and_states_the_exit_codes(run: Run) -> None:
    text = " ".join(run("check", "--help").out.split())
    assert "fc2conv check classifier.onnx dense.onnx --provider cpu --provider cuda" in text
    assert "0 equivalent · 1 different" in text


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fc2conv ch", ["check"]),
        ("fc2conv check a b --expect ", ["map", "same"]),
        ("fc2conv check a b --provider c", ["cpu", "cuda"]),
        ("fc2conv check --max", ["--max-windows"]),
    ],
)
def test_tab_completion(words: str, found: list[str]) -> None:
    environment = {
        **os.environ,
        "_FC2CONV_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "onnx_fc2conv"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout.split() == found


def test_convert_takes_the_options_of_a_check_too(run: Run, face25: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    options = ("--rtol", "scores=1e-3", "--provider", "cpu", "--report", report)
    assert run(face25, tmp_path / "out.onnx", *options).code == 0
    assert [suite.attrib["name"] for suite in ET.parse(report).getroot()] == [
        "fc2conv",
        "fc2conv on cpu",
    ]
    assert (MODELS / "face25.onnx").exists()
