"""Feed damaged and hostile model files to the command line, and see that it takes no harm.

    python tools/fuzz.py --cases 20000 --seed 0 --keep findings/

Each case is a small valid model (models/, and heads made here) with one to four mutations: flipped
bits, cut off, pieces exchanged, protobuf fields with other contents, hostile lengths and dims, deep
nesting, cycles, names that are missing or there twice, bombs, external data anywhere. It may take
10 seconds of processor time and 1 GB of memory. Wanted is always:

- exit code 0, 1, 2 or 3, and a few lines of text, no traceback, no "internal error";
- OUT is there, and a model, if and only if the code is 0; nothing else is left in its folder;
- IN is unchanged, and no file is opened outside of the two folders (but for Python's own).

What is wrong with a case is printed, and its file is kept. The cases run one after the other in a
worker process; one that dies or hangs is a finding, and a new worker goes on behind it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import onnx
import onnxruntime  # noqa: F401 - before the forks, as all that follows
from corrupt_files import corpus, mutated

import onnx_fc2conv.cli.advice
import onnx_fc2conv.cli.console
import onnx_fc2conv.conversion_report
import onnx_fc2conv.equivalence
import onnx_fc2conv.pipeline
import onnx_fc2conv.report_files
from onnx_fc2conv.cli import main as command

SECONDS, BYTES, LINES = 10, 1 << 30, 120
CASES_OF_A_WORKER = 200


def main() -> int:
    """Run the cases; 1 if any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the files that do harm")
    parser.add_argument("--check", type=float, default=0.05, help="share that is checked as well")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] - forks inherit no text
    numbers = range(options.first, options.first + options.cases)
    codes: Counter[str] = Counter()
    slowest, largest, bad = 0.0, 0, 0
    for found in _results(numbers, options.seed, options.check):
        codes[str(found.code)] += 1
        slowest, largest = max(slowest, found.seconds), max(largest, found.grown)
        if found.wrong:
            bad += 1
            print(f"case {found.number}: {'; '.join(found.wrong)}\n{found.text[-600:]}")
            if options.keep is not None:
                _keep(_case(found.number, options.seed, options.check), options.keep)
        if found.number % 1000 == 999:
            print(f"{found.number + 1} cases, {bad} wrong, codes {dict(sorted(codes.items()))}")
    print(
        f"{options.cases} cases, seed {options.seed}: {bad} wrong; exit codes "
        f"{dict(sorted(codes.items()))}; slowest {slowest:.1f} s; most memory {largest >> 20} MB "
        "beyond the start"
    )
    return 1 if bad else 0


@dataclass(frozen=True)
class _Case:
    name: str
    content: bytes
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    number: int
    code: int | str
    wrong: tuple[str, ...]
    text: str = ""
    seconds: float = 0.0
    grown: int = field(default=0)  # bytes of memory beyond those at the start


_CORPUS = corpus()


def _case(number: int, seed: int, checked: float) -> _Case:
    rng = random.Random(f"{seed}/{number}")
    name, content = mutated(rng, _CORPUS)
    arguments = () if rng.random() < checked else ("--no-check",)
    return _Case(name, content, (*arguments, *(("--static",) if rng.random() < 0.3 else ())))


def _keep(case: _Case, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(case.content).hexdigest()[:8]
    (folder / f"{case.name}-{digest}.onnx").write_bytes(case.content)


def _results(numbers: range, seed: int, checked: float) -> Iterator[_Found]:
    """The results in order; a case that ends its worker has one too."""
    context = multiprocessing.get_context("fork")
    gc.freeze()  # what the workers share stays shared
    following = numbers.start
    while following < numbers.stop:
        ours, theirs = context.Pipe(duplex=False)
        rest = range(following, min(numbers.stop, following + CASES_OF_A_WORKER))
        worker = context.Process(target=_work, args=(theirs, rest, seed, checked), daemon=True)
        worker.start()
        theirs.close()
        while following < rest.stop:
            if not ours.poll(9 * SECONDS):
                worker.kill()
                worker.join()
                yield _Found(following, "killed", (f"more than {9 * SECONDS} s",))
                break
            try:
                yield ours.recv()
            except EOFError:
                worker.join()
                number = -(worker.exitcode or 0)
                code = signal.Signals(number).name if number > 0 else str(-number)
                yield _Found(following, code, (f"the process ended with {code}",))
                break
            following += 1
        else:
            worker.join()
            continue
        following += 1


def _work(connection: Connection, numbers: range, seed: int, checked: float) -> None:
    """Run cases and send the results; limited in what memory it takes."""
    now = _pages(0)
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, now + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = _Watch()
    sys.addaudithook(watch)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        log = os.open(f"{folder}/log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number in numbers:
            os.ftruncate(log, 0)
            root = Path(folder, str(number))
            found = _run(_case(number, seed, checked), root, watch)
            text = Path(folder, "log").read_text(errors="replace")
            connection.send(_judged(number, found, text, root))
            shutil.rmtree(root)


def _run(case: _Case, root: Path, watch: _Watch) -> tuple[_Case, int | str, float, int]:
    """The command line on one case: exit code, seconds, bytes of memory."""
    for name in ("in", "out"):
        (root / name).mkdir(parents=True)
    model = root / "in/model.onnx"
    model.write_bytes(case.content)
    (root / "in/data").write_bytes(bytes(range(256)) * 64)
    (root / "in/link").symlink_to("/etc/passwd")
    (root / "secret").write_bytes(b"\1\2\3\4" * 4096)
    Path("/proc/self/clear_refs").write_text("5")  # forget the most memory so far
    before, start = _pages(1), time.process_time()
    watch.root = root
    code: int | str = "none"
    try:
        command([str(model), str(root / "out/out.onnx"), *case.arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 71
    except BaseException as error:
        code = type(error).__name__
        traceback.print_exc()
    finally:
        watch.root = None
        sys.stdout.flush()
        sys.stderr.flush()
    seconds = time.process_time() - start
    return case, code, seconds, max(0, _most_memory() - before)


def _judged(number: int, run: tuple[_Case, int | str, float, int], text: str, root: Path) -> _Found:
    case, code, seconds, grown = run
    wrong: list[str] = []
    if code not in (0, 1, 2, 3):
        wrong.append(f"exit code {code}")
    if "Traceback" in text or "internal error" in text:
        wrong.append("traceback")
    if "TOUCHED" in text:
        wrong.append("opened a file outside")
    if code != 0 and not text.strip():
        wrong.append("says nothing")
    if len(text.splitlines()) > LINES:
        wrong.append(f"{len(text.splitlines())} lines")
    if seconds > SECONDS:
        wrong.append(f"{seconds:.1f} s")
    left = sorted(path.name for path in (root / "out").iterdir())
    if code == 0:
        try:
            onnx.checker.check_model(str(root / "out/out.onnx"))
        except Exception as error:
            wrong.append(f"OUT is no model: {str(error).splitlines()[0]}")
        left = [name for name in left if name not in ("out.onnx", "out.onnx.data")]
    if left:
        wrong.append(f"left behind: {left}")
    if (root / "in/model.onnx").read_bytes() != case.content:
        wrong.append("IN was changed")
    return _Found(number, code, tuple(wrong), text, seconds, grown)


class _Watch:
    """An audit hook that reports files which are none of the command's business.

    Attributes:
        root: The folder of the case; None while the tool itself works.
    """

    def __init__(self) -> None:
        self.root: Path | None = None
        package = str(Path(onnx_fc2conv.__file__).parent)
        self._allowed = (sys.prefix, sys.base_prefix, "/proc/self", package)

    def __call__(self, event: str, details: tuple[object, ...]) -> None:
        if self.root is None or event != "open":
            return
        if not isinstance(details[0], (str, bytes, os.PathLike)):
            return
        name = os.path.abspath(os.fsdecode(details[0]))  # noqa: PTH100 - a hook, no links
        own = (f"{self.root}/in", f"{self.root}/out")
        fine = name.startswith((*own, *self._allowed)) and not name.endswith("/in/link")
        if not fine and name not in ("/dev/null", "/dev/urandom"):
            os.write(2, f"TOUCHED {name}\n".encode())


def _pages(column: int) -> int:
    """Bytes of address space (0) or of memory (1) now."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


def _most_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TMPDIR"] = scratch
        tempfile.tempdir = scratch
        code = main()
    sys.exit(code)
