from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_fc2conv.hints import HINTS
from tests.cli.conftest import MODELS, Run
from tests.nets import Net
from tests.refused_models import REFUSED


def test_converts_checks_and_writes(run: Run, face25: Path, tmp_path: Path) -> None:
    before = face25.read_bytes()
    out = tmp_path / "dense.onnx"
    result = run(face25, out)
    assert result.code == 0
    assert face25.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["dense.onnx"]
    onnx.checker.check_model(out, full_check=True)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": np.zeros((2, 1, 41, 33), np.float32)})
    assert scores.shape == (2, 2, 9, 5)


def test_the_report_names_layers_shapes_grid_and_errors(
    run: Run, face25: Path, tmp_path: Path
) -> None:
    out = run(face25, tmp_path / "dense.onnx").out
    for expected in (
        "Gemm node_linear    48×864  → Conv 48×24×6×6",
        "N×1×25×25  → N×1×H×W",
        "N×2        → N×2×scores_H×scores_W",
        "window 25×25, stride 2×2  windows exact",
        "✓ native: scores",
        "✓ integers: 3 comparisons",
        "✓ geometry: scores",
        "smallest rtol",
        "(equivalent) in",
    ):
        assert expected in out


def test_convert_may_be_written_out(run: Run, face25: Path, tmp_path: Path) -> None:
    assert run("convert", face25, tmp_path / "dense.onnx").code == 0
    assert (tmp_path / "dense.onnx").exists()


def test_options_may_come_first(run: Run, face25: Path, tmp_path: Path) -> None:
    assert run("--quiet", face25, tmp_path / "dense.onnx").code == 0


def test_quiet_prints_nothing(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "dense.onnx", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_no_check_says_so(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "dense.onnx", "--no-check")
    assert result.code == 0
    assert "(not checked)" in result.out
    assert (tmp_path / "dense.onnx").exists()


def test_no_check_needs_no_onnxruntime(
    run: Run, face25: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert run(face25, tmp_path / "a.onnx", "--no-check").code == 0
    result = run(face25, tmp_path / "b.onnx")
    assert result.code == 2
    assert "onnx-fc2conv[cpu]" in result.err
    assert not (tmp_path / "b.onnx").exists()


def test_dry_run_writes_nothing(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "dense.onnx", "--dry-run")
    assert result.code == 0
    assert "Conv 48×24×6×6" in result.out
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_kept(run: Run, face25: Path, tmp_path: Path) -> None:
    out = tmp_path / "dense.onnx"
    out.write_text("precious")
    result = run(face25, out)
    assert result.code == 2
    assert "--overwrite" in result.err
    assert out.read_text() == "precious"
    assert run(face25, out, "--overwrite").code == 0
    assert out.stat().st_size > 1000


def test_the_input_is_never_overwritten(run: Run, face25: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(face25.read_bytes())
    result = run(model, model, "--overwrite")
    assert result.code == 2
    assert "OUT is IN" in result.err
    assert model.read_bytes() == face25.read_bytes()


def test_a_conversion_that_is_not_equivalent_is_not_written(
    run: Run, face25: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    arguments = ("--rtol", "0", "--atol", "0", "--report", report)
    result = run(face25, tmp_path / "dense.onnx", *arguments)
    assert result.code == 1
    assert result.error_lines[-1].startswith("fc2conv: not equivalent")
    assert "✗ native: scores" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert json.loads(report.read_text())["status"] == "different"


def test_reports(run: Run, face25: Path, tmp_path: Path) -> None:
    as_json, as_markdown = tmp_path / "r.json", tmp_path / "r.md"
    result = run(
        face25, tmp_path / "dense.onnx", "--report", as_json, "--report", as_markdown, "-q"
    )
    assert result.code == 0
    report = json.loads(as_json.read_text(encoding="utf-8"))
    assert report["schema"] == 1
    assert report["status"] == "equivalent"
    assert [head["kernel_shape"] for head in report["heads"]] == [[48, 24, 6, 6], [2, 48, 1, 1]]
    assert report["refusals"] == []
    assert report["geometry"]["scores"]["window"] == [25, 25]
    assert report["geometry"]["scores"]["windows_exact"] is True
    assert {check["tier"] for check in report["checks"]} == {
        "integers",
        "native",
        "geometry",
        "feature windows",
        "image windows",
    }
    assert "**equivalent**" in as_markdown.read_text(encoding="utf-8")


def test_a_refusal_is_reported_and_exits_3(run: Run, tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    shape = [1, 3, 8, 8]
    graph = onnx.helper.make_graph(
        [node],
        "relu",
        [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.helper.make_tensor_value_info("y", 1, shape)],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(model, tmp_path / "relu.onnx")
    report = tmp_path / "report.json"
    result = run(tmp_path / "relu.onnx", tmp_path / "out.onnx", "--report", report)
    assert result.code == 3
    assert result.error_lines == [
        "fc2conv: refused: model: the model has no Gemm or MatMul: there is nothing to convert "
        "[nothing-to-convert]",
        f"fc2conv: what to do [nothing-to-convert]: {HINTS['nothing-to-convert']}",
    ]
    assert not (tmp_path / "out.onnx").exists()
    assert json.loads(report.read_text())["status"] == "refused"


@pytest.mark.parametrize("command", [["convert"], ["inspect"]])
def test_a_refusal_says_what_static_mode_would_do(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    onnx.save(REFUSED["pool-indices"].model(), tmp_path / "in.onnx")
    output = [tmp_path / "out.onnx"] if command == ["convert"] else []
    result = run(*command, tmp_path / "in.onnx", *output)
    assert result.code == 3
    refused, hint, static = result.error_lines
    assert refused.startswith("fc2conv: refused: MaxPool n: ")
    assert hint.startswith("fc2conv: what to do [pool-indices]: Export without unpooling. ")
    assert static == "fc2conv: --static would convert 1 of 1 fully connected layers"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-shape", "image"], "is not written like --input-shape image:1,3,224,224"),
        (["--input-shape", "image:1,x"], "is not written like"),
        (["--input-shape", "picture:1,1,25,25"], "the model's inputs are: image"),
        (["--input-shape", "image:1,1,30,30"], "does not fit the model"),
        (["--report", "report.pdf"], "must end in .json, .md or .xml"),
        (["--provider", "cuda"], "CUDAExecutionProvider"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments_give_one_line_and_exit_2(
    run: Run, face25: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if "cuda" in arguments and "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    result = run(face25, tmp_path / "out.onnx", *arguments)
    assert result.code == 2
    assert len(result.error_lines) == 1
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_global_pooling_head_becomes_a_map(run: Run, tmp_path: Path) -> None:
    net = Net()
    pooled = net.op("GlobalAveragePool", net.trunk(), shape=(3, 1, 1), name="pool")
    onnx.save(net.model(net.head(pooled)), tmp_path / "model.onnx")
    for pool, cells in (("keep", (1, 1)), ("window", (3, 2))):
        out = tmp_path / f"{pool}.onnx"
        result = run(tmp_path / "model.onnx", out, "--pool", pool)
        assert result.code == 0, result.out
        assert ("GlobalAveragePool pool  → AveragePool 3×4" in result.out) == (pool == "window")
        session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {"x": np.zeros((1, 2, 12, 12), np.float32)})
        assert scores.shape == (1, 4, *cells)
        run("inspect", tmp_path / "model.onnx", "--pool", pool, "--json")


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_one_vector_for_an_image_of_any_size(
    run: Run, face25: Path, tmp_path: Path, reduce: str
) -> None:
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run(face25, out, "--reduce", reduce, "--report", report)
    assert result.code == 0, result.out
    assert "one cell at any size" in result.out
    assert {"mean": "the mean over", "max": "the maximum over"}[reduce] in result.out
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": np.zeros((2, 1, 41, 33), np.float32)})
    assert scores.shape == (2, 2)
    assert json.loads(report.read_text())["geometry"]["scores"]["reduction"] == reduce


def test_static_mode_has_no_other_pooling(run: Run, face25: Path, tmp_path: Path) -> None:
    result = run(face25, tmp_path / "out.onnx", "--static", "--pool", "window")
    assert result.code == 2
    assert "leave out --pool window" in result.err


def test_symbolic_sizes_are_asked_for(run: Run, face25: Path, tmp_path: Path) -> None:
    model = ir.load(face25)
    model.graph.inputs[0].shape = ir.Shape(["N", 1, "height", "width"])
    ir.save(model, tmp_path / "symbolic.onnx")
    result = run(tmp_path / "symbolic.onnx", tmp_path / "out.onnx")
    assert result.code == 2
    assert "--input-shape image:1,…,…,…" in result.err
    shape = "image:1,1,25,25"
    assert run(tmp_path / "symbolic.onnx", tmp_path / "out.onnx", "--input-shape", shape).code == 0


def test_all_models_of_the_project_convert(run: Run, tmp_path: Path) -> None:
    models = sorted(MODELS.glob("*.onnx"))
    assert len(models) == 5
    for model in models:
        assert run(model, tmp_path / model.name).code == 0, model.name


def test_all_linear_converts_what_no_image_leads_to(run: Run, tmp_path: Path) -> None:
    net = Net(image=("T", 8), batch="N")  # type: ignore[arg-type]
    path, out = tmp_path / "tokens.onnx", tmp_path / "convs.onnx"
    onnx.save(net.model(net.op("MatMul", net.x, net.random(8, 4), name="project")), path)
    shape = ("--input-shape", "x:1,5,8")
    assert run(path, out, "--all-linear").error_lines == [
        "fc2conv: --all-linear goes with --static only: a model without feature maps has no windows"
    ]
    result = run(path, out, "--static", "--all-linear", *shape)
    assert result.code == 0
    assert "MatMul project  4×8  → Conv 4×8×1×1" in result.out
    assert "other sizes: y" in result.out
    assert [node.op_type for node in onnx.load(out).graph.node].count("Conv") == 1


def test_split_kernels_are_reported(run: Run, face25: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    limits = ("--max-kernel", "3", "--max-depth", "108")
    result = run(face25, tmp_path / "out.onnx", *limits, "--report", report)
    assert result.code == 0
    assert "→ 8 Convs of at most 48×12×3×3" in result.out
    heads = json.loads(report.read_text())["heads"]
    assert [(head["parts"], head["kernel_shape"]) for head in heads] == [
        (8, [48, 12, 3, 3]),
        (1, [2, 48, 1, 1]),
    ]


@pytest.mark.parametrize("option", ["--max-kernel", "--max-depth"])
def test_a_limit_below_one_is_bad_usage(
    run: Run, face25: Path, tmp_path: Path, option: str
) -> None:
    assert run(face25, tmp_path / "out.onnx", option, "0").code == 2


def test_a_conversion_is_no_model_to_convert(run: Run, face25: Path, tmp_path: Path) -> None:
    assert run(face25, tmp_path / "dense.onnx", "--quiet").code == 0
    result = run(tmp_path / "dense.onnx", tmp_path / "again.onnx")
    assert result.code == 3
    assert "it is a conversion already" in result.err
    seen = run("inspect", tmp_path / "dense.onnx")
    assert seen.code == 3
    assert "scores  window 25×25, stride 2×2  windows exact" in seen.out
