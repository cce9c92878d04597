"""fc2conv bench: what it counts is exact; what it measures is not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from onnx_fc2conv.benchmark.report import SizeResult, Timing
from tests.cli.conftest import Run
from tests.nets import Net


def test_the_ratio_and_its_ceiling() -> None:
    dense = Timing((2.0, 1.0, 4.0), 1 << 20, (1, 2, 10, 10))
    crops = Timing((4.0, 2.0, 8.0), 1 << 20, (50,))
    found = SizeResult((64, 64), (4, 4), 100, dense, crops, crops, dense, (40, 40), 50, 1000, 40)
    assert found.rates == {"dense": 50.0, "batched": 12.5, "single": 12.5, "tiled": 50.0}
    assert found.ratio == 4.0
    assert found.ceiling == 4.0


def test_a_benchmark_reports_every_way(run: Run, face25: Path, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    result = run(
        *("bench", face25, "--size", "101,65", "--size", "25x25"),
        *("--repeats", "2", "--batch", "4", "--threads", "1", "--json", target),
    )
    assert result.code == 0
    for expected in (
        "819 windows at stride 2×2",
        "15 tiles of 39×37",
        "crops, 4 at once",
        "multiply-adds promise",
    ):
        assert expected in result.out
    report = json.loads(target.read_text())
    first = report["sizes"][0]
    assert first["windows"] == 819
    assert len(first["dense"]["seconds"]["runs"]) == 2
    assert first["dense"]["peak_bytes"] > 0
    assert first["ceiling"] == pytest.approx(
        819 * first["multiply_adds"]["crop"] / first["multiply_adds"]["dense"]
    )
    alone = report["sizes"][1]
    assert (alone["tile"], "tiled" in alone) == (None, False)
    assert [native["batch"] for native in report["native"]] == [1, 64]


def test_it_measures_a_denser_grid(run: Run, face25: Path) -> None:
    result = run("bench", face25, "--size", "41,33", "--stride", "1", "--repeats", "1")
    assert result.code == 0
    assert "153 windows at stride 1×1" in result.out
    assert run("bench", face25, "--size", "25,25", "--repeats", "1", "--quiet").out == ""


def test_a_model_of_one_image_at_a_time(run: Run, tmp_path: Path) -> None:
    net = Net(image=(2, 8, 10), batch=1)
    onnx.save(net.model(net.head(net.trunk())), tmp_path / "one.onnx")
    result = run("bench", tmp_path / "one.onnx", "--size", "12,14", "--repeats", "1")
    assert result.code == 0
    assert "crops, 1 at once" in result.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--size", "24,25"], 2, "holds no window of 25×25"),
        (["--size", "wide"], 2, "is not written like --size 1024,512"),
        (["--size", "30"], 2, "holds no window"),
        (["--size", "30,30", "--stride", "3"], 2, "must divide"),
        (["--size", "30,30", "--json", "/no/such/folder/bench.json"], 2, "no folder"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, face25: Path, options: list[str], code: int, message: str
) -> None:
    result = run("bench", face25, *options)
    assert result.code == code
    assert message in result.err
    assert len(result.error_lines) == 1


def test_a_plot_without_matplotlib_names_the_extra(
    run: Run, face25: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("bench", face25, "--size", "30,30", "--plot", tmp_path / "bench.png")
    assert result.code == 2
    assert 'pip install "onnx-fc2conv[plot]"' in result.err
