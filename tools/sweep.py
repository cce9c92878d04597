"""Convert and check every ONNX model below some folders; say what became of each.

    python tools/sweep.py models ../shared/models
    python tools/sweep.py --backend-tests --json sweep.json       # the models of the onnx wheel
    python tools/sweep.py classics --jobs 1 --timeout 300         # from tools/export_classics.py
    python tools/sweep.py classics --static                       # or --all-linear

Each model gets one line on standard output, in the order in which they were found:

    proven     converted, and every tier of the check passed
    refused    not converted; the refusal's code and reason follow (exit code 3 of fc2conv)
    failed     converted, but not equivalent, or onnxruntime takes the original only (1)
    invalid    not a valid model, or a native size is missing: see --input-shape (2)
    untested   converted, but the original does not run on random images, or gives them no number
    CRASHED    an exception that no user could act upon, or a dead process: always a bug
    timeout    took longer than --timeout

and at the end they are counted, refusals by the code of their first reason; of the --json file
tools/coverage_page.py makes a page with tables. With --static (static mode) the line says how many
layers were converted and which were left alone; a model in which a Gemm or MatMul by a constant is
left that nobody speaks of has failed. The exit code is 1 if any failed or crashed. Models are run
in worker processes with one onnxruntime thread each: one that dies or hangs takes no other with it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import textwrap
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import onnx
import onnx.backend.test
import onnx_ir as ir
import onnxruntime
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from onnx_fc2conv import Conversion, Fc2ConvError, RefusedError, check, convert
from onnx_fc2conv.equivalence.reporting.results import TierResult

OUTCOMES = ("proven", "refused", "failed", "untested", "invalid", "CRASHED", "timeout")
BAD = ("failed", "CRASHED")
BACKEND_FOLDERS = ("simple", "pytorch-converted", "pytorch-operator", "light")


@dataclass(frozen=True)
class Model:
    """A model to try: a file, or the bytes of a ModelProto."""

    name: str
    source: Path | bytes
    group: str = ""  # the folder, or the kind of backend test
    options: Mapping[str, bool] = field(default_factory=dict)  # of `convert`


@dataclass(frozen=True)
class Result:
    """What became of a model: one of `OUTCOMES`, the code of the first refusal, and why."""

    name: str
    outcome: str
    code: str = ""
    detail: str = ""  # one line
    reasons: tuple[str, ...] = ()  # every refusal or failed tier, or the traceback
    seconds: float = 0.0
    group: str = ""


def work(connection: Connection) -> None:
    """Answer every `Model` that arrives with its `Result`, until the connection is closed."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # onnxruntime's log would tear the progress bar
    use_one_thread()
    connection.send(None)
    while True:
        try:
            model = connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        outcome, code, detail, reasons = attempt(model.source, model.options)
        detail = textwrap.shorten(detail, 300, placeholder="…")
        seconds = round(time.perf_counter() - start, 3)
        connection.send(Result(model.name, outcome, code, detail, reasons, seconds))


def use_one_thread() -> None:
    """Make one the default number of onnxruntime's threads: the other cores have workers too."""

    class OneThread(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = self.inter_op_num_threads = 1

    onnxruntime.SessionOptions = OneThread


def attempt(
    source: Path | bytes, options: Mapping[str, bool] | None = None
) -> tuple[str, str, str, tuple[str, ...]]:
    """Convert and check as ``fc2conv`` does; (outcome, code, detail, reasons)."""
    model = str(source) if isinstance(source, Path) else onnx.ModelProto.FromString(source)
    converted = None
    try:
        conversion = convert(model, **(options or {}))
        converted = conversion.model
        assert converted is not None
        report = check(model, converted, geometry=conversion.geometry)
    except RefusedError as error:
        first, *others = error.refusals
        more = f" (and {len(others)} more)" if others else ""
        detail = f"{first.node}: {first.reason}{more}"
        return "refused", first.code, detail, tuple(map(str, error.refusals))
    except Fc2ConvError as error:
        if converted is not None and runs_in_onnxruntime(source):
            return "failed", "", f"the original loads in onnxruntime, but: {error}", ()
        return "invalid", "", str(error), ()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
        lines = tuple("".join(traceback.format_exception(error)).splitlines())
        return "CRASHED", "", f"{type(error).__name__}: {error} ({place})", lines
    if not report:
        failures = tuple(f"{r.tier}, {r.subject}: {r.detail}" for r in report.failures)
        if failures and all(map(nothing_to_compare_with, report.failures)):
            return "untested", "", "; ".join(failures), failures
        return "failed", "", "; ".join(failures) or "the native size was not compared", failures
    if options:
        return in_static_mode(conversion)
    grids = (f"{output}: {meaning.why}" for output, meaning in conversion.geometry.items())
    return "proven", "", f"{len(conversion.heads)} layers; {'; '.join(grids)}", ()


def nothing_to_compare_with(result: TierResult) -> bool:
    """Whether all that a tier found is that the original does not run, or gives no number."""
    if result.subject == "the reference":
        return result.detail.startswith("does not run")
    return result.detail.startswith("unproven: ")


def in_static_mode(conversion: Conversion) -> tuple[str, str, str, tuple[str, ...]]:
    """What static mode did to the layers of a model that it computes like the original."""
    stays = {layer.node: layer.reason for layer in conversion.left_alone}
    forgotten = [name for name in layers_left(conversion.model) if name not in stays]
    if forgotten:
        return "failed", "", f"layers left without a reason: {', '.join(forgotten)}", ()
    reasons = tuple(f"{node}: {reason}" for node, reason in stays.items())
    counts = Counter(stays.values())
    left = "".join(f"; {count} left alone: {why}" for why, count in counts.most_common())
    return "proven", "", f"{len(conversion.heads)} layers{left}", reasons


def layers_left(model: ir.Model) -> list[str]:
    """The Gemm and MatMul nodes of which one operand is computed from constants only."""
    fixed: set[ir.Value] = set(model.graph.initializers.values())
    left: list[str] = []
    for node in model.graph:
        if all(value is None or value in fixed for value in node.inputs):
            fixed.update(node.outputs)
        elif node.op_type in ("Gemm", "MatMul") and fixed.intersection(node.inputs[:2]):
            left.append(node.name or node.outputs[0].name or "")
    return left


def runs_in_onnxruntime(source: Path | bytes) -> bool:
    """Whether onnxruntime loads the original model."""
    model = str(source) if isinstance(source, Path) else source
    try:
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


class Worker:
    """A worker process, which answers one `Model` at a time with its `Result`."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()  # it has imported what it needs
        self.index, self.deadline = -1, 0.0

    def give(self, index: int, model: Model, timeout: float) -> None:
        """Hand over the next model; its time starts now."""
        self.connection.send(model)
        self.index, self.deadline = index, time.monotonic() + timeout

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def sweep(models: Sequence[Model], jobs: int, timeout: float) -> Iterator[tuple[int, Result]]:
    """The results with the index of their model, as they come."""
    waiting = iter(enumerate(models))
    idle = [Worker() for _ in range(min(jobs, len(models)))]
    busy: list[Worker] = []
    while True:
        for worker in idle:
            if (following := next(waiting, None)) is None:
                worker.stop()
            else:
                worker.give(*following, timeout)
                busy.append(worker)
        idle = []
        if not busy:
            return
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        ready = wait([worker.connection for worker in busy], max(0.0, patience))
        for worker in list(busy):
            answered = worker.connection in ready
            if not answered and time.monotonic() < worker.deadline:
                continue
            busy.remove(worker)
            name = models[worker.index].name
            if answered:
                try:
                    result = worker.connection.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    detail = f"the process died with exit code {worker.process.exitcode}"
                    result = Result(name, "CRASHED", detail=detail)
            else:
                worker.stop()
                result = Result(name, "timeout", detail=f"more than {timeout:g} s")
            idle.append(worker if worker.process.is_alive() else Worker())
            yield worker.index, result


def found(folders: Sequence[Path]) -> list[Model]:
    """Every .onnx file below the folders, and the files among them, in order of their names."""
    models: list[Model] = []
    for folder in folders:
        files = sorted(folder.rglob("*.onnx")) if folder.is_dir() else [folder]
        named = [part for part in folder.parts if part not in ("..", folder.anchor)]
        group = "/".join(named[-2:]) or folder.resolve().name
        models.extend(Model(str(file), file, group) for file in files)
    return models


def backend_tests() -> list[Model]:
    """The models of the backend tests in the onnx wheel; the node cases are built in memory."""
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute infinities on purpose
        cases = collect_testcases(None)
    models = [
        Model(f"node/{case.name}", case.model.SerializeToString(), "backend: node")
        for case in cases
    ]
    data = Path(onnx.backend.test.__file__).parent / "data"
    for folder in BACKEND_FOLDERS:
        files = sorted((data / folder).rglob("*.onnx"))
        models.extend(
            Model(f"{folder}/{_own_name(file)}", file, f"{folder} (backend tests)")
            for file in files
        )
    return models


def _own_name(file: Path) -> str:
    """What tells a model of the backend tests from others: the folder of a `model.onnx`."""
    return file.parent.name if file.stem == "model" else file.stem


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--help` is this module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="DIR", help="or single files")
    add("--backend-tests", action="store_true", help="add the ~2,000 models of the onnx wheel")
    add("--json", type=Path, metavar="FILE", help="write all reasons and tracebacks there")
    add("--jobs", type=int, default=2, metavar="N", help="processes; default 2")
    add("--timeout", type=float, default=120, metavar="S", help="seconds a model; default 120")
    add("--static", action="store_true", help="in static mode")
    add("--all-linear", action="store_true", help="in static mode, every Gemm and MatMul")
    options = parser.parse_args(arguments)
    if missing := [str(folder) for folder in options.folders if not folder.exists()]:
        parser.error(f"no such folder or file: {', '.join(missing)}")
    options.models = found(options.folders) + (backend_tests() if options.backend_tests else [])
    if not options.models:
        parser.error("no .onnx file found: give a folder, or --backend-tests")
    if options.static or options.all_linear:
        mode = {"static": True, "all_linear": options.all_linear}
        options.models = [replace(model, options=mode) for model in options.models]
    return options


def progress_bar() -> Progress:
    """A bar on standard error if that is a terminal; lines printed meanwhile go above it."""
    console = Console(stderr=True)
    return Progress(
        *(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
        ),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )


def summarize(results: Sequence[Result]) -> None:
    """Print how many models had each outcome, and the refused ones by code."""
    outcomes = Counter(result.outcome for result in results)
    codes = Counter(result.code for result in results if result.code)
    print(f"\n{len(results)} models")
    for outcome in OUTCOMES:
        if outcomes[outcome]:
            print(f"{outcomes[outcome]:6} {outcome}")
        if outcome == "refused":
            for code, count in codes.most_common():
                print(f"       {count:6} {code}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a model and the summary; 1 if any failed or crashed."""
    options = parse(arguments)
    results: dict[int, Result] = {}
    printed = 0
    with progress_bar() as progress:
        task = progress.add_task("", total=len(options.models))
        for index, result in sweep(options.models, max(1, options.jobs), options.timeout):
            results[index] = replace(result, group=options.models[index].group)
            progress.update(task, advance=1, description=result.name)
            while printed in results:
                line = results[printed]
                code = f" [{line.code}]" if line.code else ""
                print(f"{line.outcome:8} {line.name}:{code} {line.detail}", flush=True)
                printed += 1
    ordered = [results[index] for index in range(len(results))]
    if options.json:
        text = json.dumps([asdict(result) for result in ordered], indent=1)
        options.json.write_text(text, encoding="utf-8")
    summarize(ordered)
    return 1 if any(result.outcome in BAD for result in ordered) else 0


if __name__ == "__main__":
    sys.exit(main())
