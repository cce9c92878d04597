"""Measure fc2conv beside its peers, on the same files, in one go; write docs/benchmarks.md.

    python tools/compare_peers.py                    # some minutes; 8 GB of disk for a while
    python tools/compare_peers.py --gigabytes 0.2 --repeats 1 --no-vgg --out /tmp    # a trial

Each peer gets a virtual environment of its own (`--venvs` keeps them). The peers do another job,
they simplify graphs; what is compared is what it costs to read, rewrite and write the same file. A
peer that cannot be installed is named on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools.benchmarks.measuring import Measured, measured  # noqa: E402 - needs the path
from tools.benchmarks.page import Goal, Section, page, plot  # noqa: E402

PEERS = {"onnxsim": "onnxsim", "onnxifier": "onnxify"}
"""The name of the package, and of its command, which takes IN and OUT."""

_NODES = (100, 1_000, 10_000, 50_000)
_LOAD_AND_SAVE = "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
_LOAD_AND_SAVE_EXTERNAL = (
    "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=True, "
    "location='load_save.data')"
)
_BARE = """
import typer
app = typer.Typer()
@app.command()
def one(file: str, number: int = 3) -> None: "One."
@app.command()
def two(file: str) -> None: "Two."
app()
"""
_LATENCIES = (
    ("vgg16", 1, 10),
    ("vgg16", 64, 1),
    ("dress64x128", 1, 2000),
    ("dress64x128", 64, 50),
    ("face25", 1, 10000),
    ("face25", 64, 500),
)


class Benchmarks:
    """What is measured, in a folder that is deleted afterwards."""

    def __init__(self, folder: Path, peers: dict[str, Path], arguments: argparse.Namespace) -> None:
        self.folder = folder
        self.peers = peers
        self.repeats: int = arguments.repeats
        self.gigabytes: float = arguments.gigabytes
        self.environment = {"PYTHONPATH": str(ROOT)}

    def make(self, kind: str, name: str, size: str = "") -> Path:
        """Write a model, in a process of its own."""
        file = self.folder / name
        command = [sys.executable, "-m", "tools.benchmarks.graphs", kind, file, size]
        subprocess.run(command, check=True, cwd=ROOT)
        return file

    def fc2conv(self, *arguments: str | Path) -> list[str | Path]:
        """Our own command."""
        return [sys.executable, "-m", "onnx_fc2conv", *arguments]

    def run(
        self, commands: dict[str, list[str | Path]], repeats: int | None = None
    ) -> dict[str, Measured]:
        """Measure commands whose outputs begin with ``out``."""
        print("  " + ", ".join(commands), flush=True)
        return measured(
            commands,
            repeats=repeats or self.repeats,
            limit=120,
            before=self.clean,
            written=lambda: sum(file.stat().st_size for file in self.outputs()),
            environment=self.environment,
        )

    def clean(self) -> None:
        """Delete what the last run wrote."""
        for file in self.outputs():
            file.unlink()

    def outputs(self) -> list[Path]:
        """What a run wrote."""
        return [*self.folder.glob("out*"), *self.folder.glob("load_save*")]

    def rewriting(self, source: Path) -> dict[str, list[str | Path]]:
        """The peers, on a file."""
        out = self.folder / "out.onnx"
        return {
            f"{name} {_installed(python, name)}": [python.with_name(PEERS[name]), source, out]
            for name, python in self.peers.items()
        }

    def embedded(self) -> Section:
        """VGG-16 in one file."""
        source, out = self.make("vgg16", "vgg16.onnx"), self.folder / "out.onnx"
        ours = self.fc2conv(source, out)
        rows = self.run(
            {
                "cp": ["cp", source, out],
                "onnx.load, onnx.save": [sys.executable, "-c", _LOAD_AND_SAVE, source, out],
                "fc2conv --no-check": [*ours, "--no-check"],
                **self.rewriting(source),
            }
        )
        checked = self.run({"fc2conv, with the check": ours}, 1)["fc2conv, with the check"]
        rows["fc2conv, with the check"] = checked
        copy, parsed, own = (rows[n] for n in ("cp", "onnx.load, onnx.save", "fc2conv --no-check"))
        size = source.stat().st_size
        return Section(
            f"VGG-16, {size / 1e6:.0f} MB in one file",
            "138 million weights; three fully connected layers become convolutions.",
            rows,
            [
                _faster("no slower than onnx.load and onnx.save", own, parsed.median),
                _smaller("less than half of their peak memory", own, parsed.peak / 2),
                _faster("at most 1.5 times cp", own, 1.5 * copy.median, _PYTHON),
                _smaller("at most 200 MB", own, 200e6),
                _faster("with the check, at most 15 s", checked, 15),
                _smaller("with the check, at most twice the model", checked, 2 * size, _MAPPED),
            ],
        )

    def external(self) -> Section:
        """Gigabytes in a data file."""
        source = self.make("wide", "wide.onnx", str(self.gigabytes))
        data = source.with_name("wide.onnx.data")
        out = self.folder / "out.onnx"
        ours = self.fc2conv(source, out, "--no-check")
        script = [sys.executable, "-c", _LOAD_AND_SAVE_EXTERNAL, source, out]
        rows = self.run(
            {
                "cp": ["cp", data, self.folder / "out.data"],
                "fc2conv --no-check": ours,
                "fc2conv --no-check --link-weights": [*ours, "--link-weights"],
                "onnx.load, onnx.save": script,
                **self.rewriting(source),
            },
            min(self.repeats, 2),
        )
        linked, copied = rows["fc2conv --no-check --link-weights"], rows["fc2conv --no-check"]
        return Section(
            f"{self.gigabytes:g} GB of external data",
            "By default OUT has a data file of its own; with `--link-weights` it reads that of IN.",
            rows,
            [
                _faster("linked in at most 0.5 s", linked, 0.5, _PYTHON),
                _smaller("linked with at most 200 MB", linked, 200e6),
                _faster("copied in at most 1.2 times cp", copied, 1.2 * rows["cp"].median, _PYTHON),
                _smaller("copied with at most 200 MB", copied, 200e6),
            ],
        )

    def sizes(self) -> tuple[Section, str]:
        """Graphs of many nodes, and the plot."""
        out = self.folder / "out.onnx"
        files = {n: self.make("nodes", f"nodes{n}.onnx", str(n)) for n in _NODES}
        rows: dict[str, Measured] = {}
        for number, file in files.items():
            command = {f"{number:,} nodes": self.fc2conv(file, out, "--no-check")}
            rows |= self.run(command, 1 if number > 10_000 else None)
        points = {n: rows[f"{n:,} nodes"].median for n in _NODES}
        own = rows["10,000 nodes"]
        added = (points[50_000] - points[10_000]) / max(1e-9, points[10_000] - points[1_000])
        peers = self.run(self.rewriting(files[1_000]), 1)
        rows |= {f"1,000 nodes: {name}": run for name, run in peers.items()}
        return Section(
            "Graph size",
            "Residual blocks of 1×1 convolutions and one fully connected layer, `--no-check`.\n\n"
            "![Seconds by number of nodes](benchmarks.svg)",
            rows,
            [
                _faster("10,000 nodes in at most 3 s", own, 3, _WALKS),
                Goal(
                    "time grows linearly: from 10,000 to 50,000 nodes at most 1.5 times 40/9 of "
                    "what it is from 1,000 to 10,000",
                    added <= 1.5 * 40 / 9,
                    f"{added:.1f} times, 40/9 is 4.4",
                ),
            ],
        ), plot(points, (10_000, 3))

    def startup(self) -> Section:
        """What one waits for before anything is done."""
        bare = self.folder / "bare.py"
        bare.write_text(_BARE, encoding="utf-8")
        rows = self.run(
            {
                "bare typer program --help": [sys.executable, bare, "--help"],
                "fc2conv --help": self.fc2conv("--help"),
                "import onnx_fc2conv": [sys.executable, "-c", "import onnx_fc2conv"],
                "import onnx_ir": [sys.executable, "-c", "import onnx_ir"],
            },
            max(5, self.repeats),
        )
        limit = 1.5 * rows["bare typer program --help"].median
        words = "onnx_ir, which every conversion needs, imports SymPy: most of the start of one."
        goal = _faster(
            "--help in at most 1.5 times a bare typer program", rows["fc2conv --help"], limit
        )
        return Section("Start-up", words, rows, [goal])

    def latency(self) -> Section:
        """The converted model at its native size, by onnxruntime."""
        print("  latency", flush=True)
        table = [("", "batch", "original", "converted", "ratio")]
        goals: list[Goal] = []
        for name, batch, passes in _LATENCIES:
            source = self.folder / f"{name}.onnx"
            source = source if source.exists() else ROOT / "models" / f"{name}.onnx"
            if not source.exists():
                continue
            dense = self.folder / f"dense-{name}.onnx"
            if not dense.exists():
                command = self.fc2conv(source, dense, "--no-check", "--quiet")
                subprocess.run(command, check=True, cwd=ROOT)
            command = [sys.executable, "-m", "tools.benchmarks.latency", source, dense]
            words = [*command, str(batch), str(passes)]
            done = subprocess.run(words, check=True, cwd=ROOT, capture_output=True, text=True)
            one, two = json.loads(done.stdout)
            row = (
                name,
                str(batch),
                f"{one * 1e3:.2f} ms",
                f"{two * 1e3:.2f} ms",
                f"{two / one:.2f}",
            )
            table.append(row)
            if batch == 1:
                found = f"{two / one:.2f} times"
                goal = f"{name}, batch 1: at most 1.05 times"
                why = f"What is above it is {1e6 * (two - 1.05 * one):.1f} microseconds a run."
                goals.append(Goal(goal, two / one <= 1.05, found, why))
        words = (
            "onnxruntime, CPU, native size. At large batches a Conv whose kernel is the whole map "
            "is slower than the Gemm that it was: onnxruntime's CPU kernel takes the samples of a "
            "batch one by one. A converted model is for large images, where its one pass replaces "
            "the batch of crops. Who runs crops of the native size in batches keeps the original; "
            "`fc2conv bench` measures both ways on any model."
        )
        return Section("Running the result at its native size", words, {}, goals, table)


_PYTHON = "What is above it is the start of Python and of onnx_ir."
_WALKS = (
    "The graph is read, validated, planned, rewritten, walked again to see that it is fully "
    "convolutional, given shapes and written: each step takes some tenths of a second."
)
_MAPPED = (
    "One model runs at a time, on its file; the pages are the file system's, and are given back "
    "when memory is short."
)


def _faster(words: str, run: Measured, limit: float, why: str = "") -> Goal:
    found = f"{run.median:.2f} s, the limit is {limit:.2f} s"
    return Goal(words, run.median <= limit, run.failure or found, why)


def _smaller(words: str, run: Measured, limit: float, why: str = "") -> Goal:
    found = f"{run.peak / 1e6:,.0f} MB, the limit is {limit / 1e6:,.0f} MB"
    return Goal(words, not run.failure and run.peak <= limit, run.failure or found, why)


def install(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Each peer's own environment; the Pythons by name, and which could not be had."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name, command in PEERS.items():
        python = folder / name / "bin" / "python"
        if not python.with_name(command).exists():
            print(f"installing {name}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", name]
            done = subprocess.run(pip, check=False, capture_output=True, text=True)
            if done.returncode:
                why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                missing.append(f"{name} could not be installed: {why}")
                continue
        found[name] = python
    return found, missing


def _installed(python: Path, name: str) -> str:
    script = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def machine() -> list[str]:
    """What all of this ran on."""
    names = ("onnx-fc2conv", "onnx", "onnx-ir", "onnxruntime", "typer")
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((n.split(":")[1].strip() for n in lines if n.startswith("model name")), cpu)
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.release()}",
        f"{cpu}, {os.cpu_count()} cores; load average at the start: {load}",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names if _has(name)),
    ]


def _has(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


def main() -> None:
    """Install, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command")
    parser.add_argument("--gigabytes", type=float, default=2.4, help="of external data")
    parser.add_argument("--no-vgg", action="store_true", help="leave VGG-16 out")
    parser.add_argument("--venvs", type=Path, help="where the peers are, or are to be kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of benchmarks.md")
    arguments = parser.parse_args()
    lines = machine()
    with tempfile.TemporaryDirectory(prefix="benchmarks.") as temporary:
        folder = Path(temporary)
        venvs = arguments.venvs or folder / "venvs"
        peers, missing = install(venvs)
        models = folder / "models"
        models.mkdir()
        benchmarks = Benchmarks(models, peers, arguments)
        sections = [benchmarks.startup()]
        if not arguments.no_vgg:
            sections.append(benchmarks.embedded())
        sections.append(benchmarks.latency())
        for file in models.glob("*vgg16*"):
            file.unlink()
        sections.append(benchmarks.external())
        shutil.rmtree(models)
        models.mkdir()
        section, picture = benchmarks.sizes()
        sections.append(section)
    (arguments.out / "benchmarks.svg").write_text(picture + "\n", encoding="utf-8")
    file = arguments.out / "benchmarks.md"
    file.write_text(page([*lines, *missing], sections), encoding="utf-8")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
