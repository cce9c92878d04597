"""Break what a run needs, or the run itself, and look at what is left.

    python tools/faults.py                # all, some minutes
    python tools/faults.py --kills 50 --only kill,interrupt

Each run is the program as users start it, in a folder of its own. Wanted is always: IN and its data
file are as they were; OUT is absent, or as it was, or the whole new model (it loads, its weights
are those of IN, scaled by the factor that sets models apart); nothing else is left, but for the
temporary folder and the data file of a run that was killed. Prints a table, and what was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_fc2conv.files.reading import load

ROOT = Path(__file__).resolve().parent.parent
FC2CONV = [sys.executable, "-m", "onnx_fc2conv"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SIDE, WIDTH = 36, 1000
"""Of the image, and of the hidden layer: a weight of 4·34²·1000 numbers, 18 MB."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    code: int
    text: str
    wrong: tuple[str, ...] = ()
    out: str = "absent"


def net(folder: Path, factor: float, *, external: bool) -> Path:
    """A model whose weights are ``factor`` times some numbers; writing it takes a while."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 1, 3, 3)).astype(np.float32)
    weight = rng.standard_normal((4 * (SIDE - 2) ** 2, WIDTH), np.float32)
    last = rng.standard_normal((WIDTH, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [
            numpy_helper.from_array(kernel, "k"),
            numpy_helper.from_array(weight * np.float32(factor), "w"),
            numpy_helper.from_array(last * np.float32(factor), "v"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = folder / "in.onnx"
    if external:
        onnx.save(model, file, save_as_external_data=True, location="in.weights")
    else:
        onnx.save(model, file)
    return file


def fingerprint(file: Path) -> str:
    """What the weights of a model add up to, wherever they lie and in whatever order."""
    model = load(file)
    arrays = [value.const_value.numpy() for value in model.graph.initializers.values()]
    weights = [array for array in arrays if array.dtype == np.float32 and array.size > 100]
    return " ".join(
        sorted(f"{array.size}:{np.abs(array).sum(dtype=float):.6e}" for array in weights)
    )


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Place:
    """A folder with two models, OLD and NEW, each as one file or with external data."""

    def __init__(self, folder: Path, *, external: bool) -> None:
        self.folder = folder
        self.inputs: list[Path] = []
        for number in (1, 2):
            inner = folder / f"in{number}"
            inner.mkdir(parents=True)
            self.inputs.append(net(inner, number, external=external))
        self.before = [contents(file.parent) for file in self.inputs]
        self.prints = {fingerprint(file): number for number, file in enumerate(self.inputs)}
        self.out = folder / "out" / "out.onnx"

    def fresh(self, *, old: bool) -> None:
        """An empty folder for OUT, or one in which OUT is the first model's."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir()
        if old:
            saved = self.folder / "saved"
            if not saved.exists():
                subprocess.run(self.command(0), check=True, env=ENVIRONMENT, capture_output=True)
                shutil.copytree(self.out.parent, saved)
            else:
                shutil.copytree(saved, self.out.parent, dirs_exist_ok=True)

    def command(self, number: int = 1, *more: str) -> list[str]:
        """What converts one of the models."""
        return [*FC2CONV, str(self.inputs[number]), str(self.out), "--no-check", "--quiet", *more]

    def judged(self, code: int, text: str, *, killed: bool = False) -> Outcome:
        """Look at everything that is left."""
        wrong: list[str] = []
        for file, before in zip(self.inputs, self.before, strict=True):
            if contents(file.parent) != before:
                wrong.append("IN was changed")
        if "Traceback" in text or "internal error" in text:
            wrong.append("traceback")
        state, used = "absent", {"out.onnx"}
        if self.out.exists():
            try:
                found = load(self.out)
                state = ("old", "new")[self.prints[fingerprint(self.out)]]
                used |= {
                    str(value.const_value.location)
                    for value in found.graph.initializers.values()
                    if hasattr(value.const_value, "location")
                }
            except Exception as error:
                state = "BROKEN"
                wrong.append(f"OUT is broken: {type(error).__name__} {str(error)[:200]}")
        left = sorted(path.name for path in self.out.parent.iterdir() if path.name not in used)
        if left and not killed:
            wrong.append(f"left behind: {left}")
        return Outcome(code, text, tuple(wrong), state)


def run(command: Sequence[str], *, limit: Callable[[], None] | None = None) -> tuple[int, str]:
    """Exit code and text of a program that ends."""
    done = subprocess.run(
        command,
        check=False,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=limit,
    )
    return done.returncode, done.stdout


def ended_early(place: Place, number: signal.Signals, *, times: int, old: bool) -> list[Outcome]:
    """End a run at random moments, half of them while it writes."""
    place.fresh(old=old)
    start = time.perf_counter()
    run(place.command(1, "--overwrite"))
    whole = time.perf_counter() - start
    rng, outcomes = random.Random(times), []
    for turn in range(times):
        place.fresh(old=old)
        process = subprocess.Popen(
            place.command(1, "--overwrite"),
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if turn % 2:
            _until_it_writes(place, process)
            time.sleep(rng.uniform(0, 0.1 * whole))
        else:
            time.sleep(rng.uniform(0.05, 1.05 * whole))
        process.send_signal(number)
        text = process.communicate()[0]
        if "KeyboardInterrupt" in text and "onnx_fc2conv" not in text:
            outcomes.append(Outcome(process.returncode, text, (), "Python was starting"))
            continue
        outcome = place.judged(process.returncode, text, killed=number is signal.SIGKILL)
        wanted = (0, -number) if number is signal.SIGKILL else (0, 130)
        wrong = list(outcome.wrong)
        if outcome.code not in wanted:
            wrong.append(f"exit code {outcome.code}")
        if outcome.code == 130 and text.splitlines() != ["fc2conv: interrupted"]:
            wrong.append("not one line")
        outcomes.append(Outcome(outcome.code, text, tuple(wrong), outcome.out))
    return outcomes


def _until_it_writes(place: Place, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not list(place.out.parent.glob(".fc2conv-*")):
        time.sleep(0.001)


def disk_full(place: Place, *, old: bool) -> list[Outcome]:
    """Files may be of so many bytes only, from none to nearly enough."""
    outcomes = []
    for size in (0, 1000, 1 << 20, 10 << 20, 16 << 20):
        place.fresh(old=old)

        def limit(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        outcomes.append(_refused(place.judged(*run(place.command(1, "--overwrite"), limit=limit))))
    return outcomes


def small_disk(place: Place, *, old: bool) -> list[Outcome]:
    """A file system of 10 MB; none where this process may not mount one."""
    place.fresh(old=False)
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(place.out.parent)]
    if old or subprocess.run(mount, check=False, capture_output=True).returncode:
        return []
    try:
        return [_refused(place.judged(*run(place.command(1))))]
    finally:
        subprocess.run(["umount", str(place.out.parent)], check=True)


def read_only(place: Place, *, old: bool) -> list[Outcome]:
    """A folder in which nothing may be made; root may everywhere."""
    if os.geteuid() == 0:
        return []
    place.fresh(old=old)
    place.out.parent.chmod(0o500)
    try:
        return [_refused(place.judged(*run(place.command(1, "--overwrite"))))]
    finally:
        place.out.parent.chmod(0o700)


def out_of_memory(place: Place, *, old: bool) -> list[Outcome]:
    """Address space that ends at every stage, from the imports on."""
    outcomes = []
    for megabytes in (*range(100, 700, 25), 1000):
        place.fresh(old=old)
        size = megabytes << 20

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        command = [a for a in place.command(1, "--overwrite") if a != "--no-check"]
        code, text = run(command, limit=limit)
        outcome = place.judged(code, text, killed=code not in (0, 1, 2, 3))
        outcomes.append(outcome)
    return outcomes


def two_at_once(place: Place, *, old: bool) -> list[Outcome]:
    """Both models are written to the same OUT."""
    outcomes = []
    for delay in (0.0, 0.0, 0.0, 0.05, 0.1, 0.2, 0.0, 0.0):
        for more in ((), ("--overwrite",)) if not old else (("--overwrite",),):
            place.fresh(old=old)
            processes = []
            for number in (0, 1):
                processes.append(
                    subprocess.Popen(
                        place.command(number, *more),
                        env=ENVIRONMENT,
                        text=True,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                    )
                )
                time.sleep(delay)
            texts = [process.communicate()[0] for process in processes]
            codes = [process.returncode for process in processes]
            outcome = place.judged(max(codes), "".join(texts))
            wrong = list(outcome.wrong)
            if 0 not in codes or set(codes) - {0, 2} or outcome.out == "absent":
                wrong.append(f"exit codes {codes}")
            outcomes.append(Outcome(max(codes), "".join(texts), tuple(wrong), outcome.out))
    return outcomes


def _refused(outcome: Outcome) -> Outcome:
    wrong = list(outcome.wrong)
    if outcome.code != 2 or len(outcome.text.splitlines()) != 1 or outcome.out == "new":
        wrong.append(f"exit code {outcome.code}, {len(outcome.text.splitlines())} lines")
    return Outcome(outcome.code, outcome.text, tuple(wrong), outcome.out)


def main() -> int:
    """Run all faults; 1 if any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="moments; default 50")
    parser.add_argument("--only", default="", metavar="NAME,NAME")
    options = parser.parse_args()
    faults: dict[str, Callable[..., list[Outcome]]] = {
        "kill": lambda p, old: ended_early(p, signal.SIGKILL, times=options.kills, old=old),
        "interrupt": lambda p, old: ended_early(p, signal.SIGINT, times=options.kills, old=old),
        "files limited": disk_full,
        "disk full": small_disk,
        "read-only folder": read_only,
        "out of memory": out_of_memory,
        "two at once": two_at_once,
    }
    chosen = [name for name in faults if not options.only or name in options.only.split(",")]
    bad = 0
    print(
        f"{'fault':18}{'weights':10}{'OUT before':12}{'runs':>5}{'wrong':>6}  exit codes; OUT after"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for external in (False, True):
            place = Place(Path(scratch, str(external)), external=external)
            for name in chosen:
                for old in (False, True):
                    outcomes = faults[name](place, old=old)
                    wrong = [outcome for outcome in outcomes if outcome.wrong]
                    bad += len(wrong)
                    codes = Counter(outcome.code for outcome in outcomes)
                    after = Counter(outcome.out for outcome in outcomes)
                    print(
                        f"{name:18}{'external' if external else 'embedded':10}"
                        f"{'old' if old else 'absent':12}{len(outcomes):5}{len(wrong):6}  "
                        f"{dict(sorted(codes.items()))}; {dict(after)}",
                        flush=True,
                    )
                    for outcome in wrong:
                        print(f"    {'; '.join(outcome.wrong)}: {outcome.text[-700:]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
