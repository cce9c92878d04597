"""Count how often the check calls a right conversion wrong.

    python tools/false_alarms.py models ../shared/models --count 3000 --jobs 2
    python tools/false_alarms.py --family movement --count 200
    python tools/false_alarms.py --only movement --seed 17      # repeat one model, and say more

Models are those below the folders, those of the sweep (the backend tests of the onnx wheel, which
tools/sweep.py tries) and random small networks (tools/random_nets.py), by family. Each is converted
by us (dense, static, with a stride, a pooling or a reduction), and what came out, or the original,
is rewritten by means that are not ours (tools/rewrites.py: onnxruntime's optimizers, other names,
another order, weights elsewhere). Each pair is checked once. It is right as far as anybody knows:
a check that is false, and one that raises, is an alarm. What `convert` refuses is counted apart.

The tables have a line a family and a line a way; a pair that was rewritten twice counts for each.
Behind each alarm stands what an oracle found that takes nothing from the check
(tools/brute_force.py), on crops, and between what a rewrite was given and what it made at many
sizes and batches: a difference that roundings do not explain would mean that the conversion is
wrong and the check is right. The exit code is 1 if there was an alarm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
from onnx.external_data_helper import load_external_data_for_model

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onnx_fc2conv import Fc2ConvError, check, convert  # noqa: E402
from tools import brute_force, random_nets  # noqa: E402
from tools.rewrites import REWRITES  # noqa: E402
from tools.sweep import backend_tests, use_one_thread  # noqa: E402

OURS: dict[str, dict[str, Any]] = {
    "dense": {},
    "static": {"static": True},
    "every linear layer": {"static": True, "all_linear": True},
    "stride 1": {"stride": 1},
    "pool window": {"pool": "window"},
    "reduce mean": {"reduce": "mean"},
    "reduce max": {"reduce": "max"},
}
Given = TypeVar("Given")
Found = TypeVar("Found")

SECONDS = 60
"""What takes longer is an alarm."""
BYTES = 6 << 30
"""And so is what takes more address space: all models here are tiny."""


@dataclass(frozen=True)
class Task:
    """A model to be made: the network of a family with a seed, or a file by its number."""

    family: str
    seed: int
    folders: tuple[Path, ...] = ()

    @property
    def again(self) -> str:
        """The options that repeat it."""
        return f"--only {self.family} --seed {self.seed}"


@dataclass
class Tally:
    """What was counted of a model or family."""

    models: int = 0
    conversions: int = 0
    refused: int = 0
    not_run: int = 0  # the original does not run
    numbers: int = 0
    seconds: float = 0.0
    alarms: list[str] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)  # how often each was checked
    alarmed: Counter[str] = field(default_factory=Counter)  # and how often that was an alarm

    def add(self, other: Tally) -> None:
        """Count what the other counted."""
        self.models += other.models
        self.conversions += other.conversions
        self.refused += other.refused
        self.not_run += other.not_run
        self.numbers += other.numbers
        self.seconds += other.seconds
        self.alarms += other.alarms
        self.ways += other.ways
        self.alarmed += other.alarmed


# The models


@cache
def files(folders: tuple[Path, ...]) -> list[Path]:
    """All model files below the folders."""
    found = [sorted(f.rglob("*.onnx")) if f.is_dir() else [f] for f in folders]
    return list(itertools.chain.from_iterable(found))


@cache
def swept() -> list[Path | bytes]:
    """The backend tests, but for the ImageNet classifiers with their constant weights."""
    return [model.source for model in backend_tests() if not model.name.startswith("light/")]


def model_of(task: Task) -> onnx.ModelProto:
    """The model of a task."""
    match task.family:
        case "files":
            source: Path | bytes = files(task.folders)[task.seed]
        case "sweep":
            source = swept()[task.seed]
        case _:
            return random_nets.make(task.family, task.seed)
    if isinstance(source, bytes):
        return onnx.ModelProto.FromString(source)
    model = onnx.load(source, load_external_data=False)
    load_external_data_for_model(model, str(source.parent))
    return model


def runs(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime runs the model at a native size that it states."""
    native = brute_force.native_shapes(model)
    if native is None:
        return False
    try:
        runner = brute_force.Runner(model)
        types = {v.name: brute_force.dtype_of(v) for v in brute_force.free_inputs(model)}
        rng = np.random.default_rng(0)
        feeds = {n: next(brute_force.images(rng, types[n], s)) for n, s in native.items()}
    except Exception:  # what this onnxruntime cannot load or feed
        return False
    return runner(feeds) is not None


# One model


@dataclass(frozen=True)
class Pair:
    """A right conversion: how it was made, and what ``convert`` stated of it."""

    base: str
    steps: tuple[str, ...]  # rewrites
    converted: onnx.ModelProto
    exact: dict[str, Any]  # geometry of the outputs whose windows are exact
    rewritten: onnx.ModelProto | None = None  # what the first rewrite was given

    @property
    def way(self) -> str:
        """How it was made, in words."""
        return ", then ".join((self.base, *self.steps))


def pairs(task: Task, model: onnx.ModelProto, tally: Tally) -> Iterator[Pair]:
    """The original converted and rewritten in some of the ways that there are."""
    rng = random.Random(f"ways/{task.family}/{task.seed}")
    ours = ["dense", *rng.sample(sorted(OURS.keys() - {"dense"}), 2)]
    made: dict[str, Pair] = {}
    for way in ours:
        try:
            with in_time():
                conversion = convert(model, **OURS[way])
        except Fc2ConvError:
            tally.refused += 1
            continue
        assert conversion.model is not None
        proto = ir.to_proto(conversion.model)
        plain = way in ("dense", "pool window", "stride 1")
        made[way] = Pair(way, (), proto, exact_windows(proto) if plain else {})
        yield made[way]
    if not made:
        return
    for base in ("dense", rng.choice(("static", "the original"))):
        source = model if base == "the original" else made[base].converted if base in made else None
        if source is None:
            continue
        steps = rng.sample(sorted(REWRITES), rng.choice((1, 1, 2)))
        rewritten = source
        done: list[str] = []
        for step in steps:
            with in_time():
                following = REWRITES[step](rewritten, rng)
            if following is not None:
                rewritten = following
                done.append(step)
        if done:
            exact = made[base].exact if base in made else {}
            yield Pair(base, tuple(done), rewritten, exact, source)


def exact_windows(converted: onnx.ModelProto) -> dict[str, Any]:
    """The geometry in the metadata of outputs whose windows are exact."""
    stored = [p.value for p in converted.metadata_props if p.key == "fc2conv.geometry"]
    outputs = json.loads(stored[0])["outputs"] if stored else {}
    return {name: meaning for name, meaning in outputs.items() if meaning["windows_exact"]}


def tried(task: Task) -> Tally:
    """Check each conversion of a model."""
    start = time.perf_counter()
    tally = Tally()
    way = "making it"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = model_of(task)
            if not runs(model):
                return Tally(not_run=1)
            tally.models = 1
            for pair in pairs(task, model, tally):
                way = pair.way
                judged(task, model, pair, tally)
    except Exception as error:  # convert, or a rewrite
        tally.alarms.append(f"{task.again}: after {way}: {_place(error)}")
    tally.seconds = time.perf_counter() - start
    return tally


def judged(task: Task, model: onnx.ModelProto, pair: Pair, tally: Tally) -> None:
    """Check a pair, and count what came of it."""
    tally.conversions += 1
    tally.ways.update((pair.base, *pair.steps))
    try:
        with in_time():
            report = check(model, pair.converted)
    except Exception as error:  # also what no user could act upon
        what = _place(error)
    else:
        tally.numbers += sum(result.elements for result in report.results)
        if report:
            return
        failures = [f"{r.tier}, {r.subject}: {r.detail}"[:200] for r in report.failures]
        what = "; ".join(failures[:3]) or report.verdict
    tally.alarmed.update((pair.base, *pair.steps))
    native = brute_force.native_shapes(model)
    assert native is not None
    with in_time():
        found = brute_force.on_windows(model, pair.converted, native, pair.exact)
        if pair.rewritten is not None:
            other = brute_force.between(pair.rewritten, pair.converted, native)
            found = max(found, other, key=lambda difference: difference.size)
    oracle = found.where if found else "no difference that roundings do not explain"
    tally.alarms.append(f"{task.again}: {pair.way}: {what}\n      oracle: {oracle}")


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"


@contextmanager
def in_time() -> Iterator[None]:
    """Raise a TimeoutError in what takes longer than ``SECONDS``."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _too_long(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"takes longer than {SECONDS} s")


# Many models


def start_worker() -> None:
    """Prepare a worker process: one thread, no words, and memory that ends."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    warnings.simplefilter("ignore")
    use_one_thread()


def in_processes(
    work: Callable[[Given], Found],
    tasks: Iterator[Given],
    jobs: int,
    dead: Callable[[Given], Found],
) -> Iterator[tuple[Given, Found]]:
    """The results of all tasks, as they come; ``dead`` gives that of one that ends its process."""
    context = multiprocessing.get_context("spawn")

    def pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(jobs, context, start_worker)

    executor = pool()
    running: dict[Future[Found], Given] = {}
    try:
        while True:
            for task in itertools.islice(tasks, 2 * jobs - len(running)):
                running[executor.submit(work, task)] = task
            if not running:
                return
            future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
            try:
                yield running[future], future.result()
                del running[future]
            except BrokenProcessPool:
                suspects = list(running.values())
                running.clear()
                executor = pool()
                for task in suspects:  # each in a process of its own: which of them was it?
                    with ProcessPoolExecutor(1, context, start_worker) as alone:
                        try:
                            yield task, alone.submit(work, task).result()
                        except BrokenProcessPool:
                            yield task, dead(task)
    finally:
        executor.shutdown(cancel_futures=True)


def tasks_of(options: argparse.Namespace) -> Iterator[Task]:
    """Every file, then the families in turns with one seed after the other, without an end."""
    folders = tuple(options.folders)
    if options.only:
        yield Task(options.only, options.seed, folders)
        return
    families = list(options.family or ["files", "sweep", *random_nets.FAMILIES])
    numbered = {"files": len(files(folders)) if "files" in families else 0}
    numbered["sweep"] = len(swept()) if "sweep" in families else 0
    for seed in itertools.count(options.seed):
        for family in list(families):
            # The sweep's are many, and nearly all of them refused: more of them in a turn.
            for number in range(seed * 60, seed * 60 + 60) if family == "sweep" else [seed]:
                if number < numbered.get(family, number + 1):
                    yield Task(family, number, folders)
        families = [f for f in families if f not in numbered or seed * 60 < numbered[f]]
        if not families:
            return


def table(tallies: dict[str, Tally]) -> str:
    """A line a family, and the sum."""
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    head = f"{'family':22}{'models':>8}{'conversions':>12}{'refused':>9}{'not run':>9}"
    lines = [f"{head}{'numbers':>15}{'seconds':>9}{'alarms':>8}"]
    for name, each in [*tallies.items(), ("all", total)]:
        lines.append(
            f"{name:22}{each.models:8}{each.conversions:12}{each.refused:9}{each.not_run:9}"
            f"{each.numbers:15,}{each.seconds:9.0f}{len(each.alarms):8}"
        )
    lines += ["", f"{'way':22}{'conversions':>12}{'alarms':>8}"]
    lines += [f"{way:22}{n:12}{total.alarmed[way]:8}" for way, n in sorted(total.ways.items())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the alarms and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ["files", "sweep", *random_nets.FAMILIES]
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=3000, help="conversions; default 3000")
    parser.add_argument("--jobs", type=int, default=1, help="processes; default 1")
    parser.add_argument("--seed", type=int, default=0, help="first seed of each family; default 0")
    parser.add_argument("--family", action="append", choices=known, help="these families only")
    parser.add_argument("--only", choices=known, help="one model: that of this family with --seed")
    options = parser.parse_args(arguments)
    tallies: dict[str, Tally] = {}
    count = 0

    def wanted() -> Iterator[Task]:
        return itertools.takewhile(lambda _: count < options.count, tasks_of(options))

    def dead(task: Task) -> Tally:
        return Tally(models=1, alarms=[f"{task.again}: the process died"])

    for task, tally in in_processes(tried, wanted(), options.jobs, dead):
        count += tally.conversions
        tallies.setdefault(task.family, Tally()).add(tally)
        for alarm in tally.alarms:
            print(f"ALARM {alarm}", flush=True)
    print(table(dict(sorted(tallies.items()))))
    alarms = Counter(name for name, each in tallies.items() for _ in each.alarms)
    print(f"{count} conversions, {alarms.total()} alarms")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
