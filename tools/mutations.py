"""Plant faults into right conversions and count those that the check misses.

    python tools/mutations.py models ../shared/models --count 1500 --models 240 --jobs 2
    python tools/mutations.py --kind "image: clips at 255" --count 20
    python tools/mutations.py --kind "image: clips at 255" --only movement --seed 17   # repeat one

The conversions are those of tools/false_alarms.py that the check accepts; the kinds of fault are in
tools/fault_kinds.py. Each mutant is checked in three variants:

    ours        as it is, with what the metadata says of the right conversion
    stripped    without any metadata, names or shapes inside: from another tool, as it were
    lying       with metadata by which less would be compared, if it was believed

Whether a mutant is a fault at all is found out without the check: both conversions are run on many
inputs, sizes and batches (tools/brute_force.py). One that never differs is *equal* and not checked,
unless it is a tiny fault (an ulp of a weight) at a place that matters: the same place, changed by
much, shows in some output. Those are counted among the missed in a column of their own, *tiny*.

A fault is found if the check is false or raises one of the package's errors. Of a stripped mutant
the check may instead claim *less* than of the right conversion, ``native size only``, say: that is
counted apart, and is no miss. An exception that is none of the package's is a crash. The exit code
is 1 if a fault was missed or the check crashed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import onnx
import onnx_ir as ir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onnx_fc2conv import Fc2ConvError, check, convert  # noqa: E402
from tools import brute_force, random_nets  # noqa: E402
from tools.false_alarms import Task, files, in_processes, in_time, model_of  # noqa: E402
from tools.fault_kinds import KINDS, softened  # noqa: E402
from tools.rewrites import without_metadata  # noqa: E402

VARIANTS = ("ours", "stripped", "lying")
VISIBLE = 1e-4
"""A difference of that share of a channel's largest value is one that the check has to see."""
VISIBLE_IN_HALF = 0.1


@dataclass(frozen=True)
class Work:
    """Kinds of fault to be planted into the conversion of a model, until there are enough."""

    task: Task
    kinds: tuple[str, ...]
    enough: int


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant in a variant: equal, found, less, missed, tiny (missed), or crash."""

    kind: str
    variant: str
    outcome: str
    detail: str = ""


@dataclass
class Base:
    """A right conversion that the check accepts.

    Attributes:
        original: The model that it was made of.
        converted: The conversion.
        native: Shapes of the original's inputs.
        relations: What the check claims of it, by variant.
    """

    original: onnx.ModelProto
    converted: onnx.ModelProto
    native: brute_force.Shapes
    relations: dict[str, str] = field(default_factory=dict)


@lru_cache(maxsize=2)
def base(task: Task) -> Base | None:
    """The conversion of a task's model; None if there is none, or the check says it is wrong."""
    rng = random.Random(f"base/{task.family}/{task.seed}")
    ways = [{}] * 6 + [{"static": True}, {"pool": "window"}]
    original = model_of(task)
    native = brute_force.native_shapes(original)
    if native is None:
        return None
    try:
        with in_time():
            conversion = convert(original, **rng.choice(ways))  # type: ignore[arg-type]
            assert conversion.model is not None
            found = Base(original, ir.to_proto(conversion.model), native)
            for variant in ("ours", "stripped"):
                made = variant_of(found.converted, variant, rng)
                report = check(original, made) if made is not None else None
                if not report:
                    return None
                found.relations[variant] = report.relation.kind
    except Exception:  # refused, or a false alarm: not this tool's business
        return None
    return found


def variant_of(model: onnx.ModelProto, variant: str, rng: random.Random) -> onnx.ModelProto | None:
    """The model with its metadata, without, or with other; None if it has none to lie in."""
    if variant == "ours":
        return model
    if variant == "stripped":
        return without_metadata(model, rng)
    other = ir.from_proto(model)
    return ir.to_proto(other) if softened(other, rng) else None


def worked(work: Work) -> list[Verdict]:
    """Plant faults into the conversion of a model, and judge them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = base(work.task)
        if found is None:
            return []
        verdicts: list[Verdict] = []
        planted = 0
        for kind in work.kinds:
            try:
                with in_time():
                    more = mutant_judged(work.task, found, kind)
            except TimeoutError:  # the oracle's: not judged
                more = []
            verdicts += more
            planted += bool(more)
            if planted == work.enough:
                break
        return verdicts


def planted_into(
    model: onnx.ModelProto, task: Task, kind: str, *, loud: bool
) -> onnx.ModelProto | None:
    """A copy with the fault; None if it has no place there, or makes a file that does not load."""
    copy = ir.from_proto(model)
    plant = KINDS[kind].louder if loud else KINDS[kind].plant
    if plant is None or not plant(copy, random.Random(f"{kind}/{task.family}/{task.seed}")):
        return None
    made = ir.to_proto(copy)
    del made.graph.value_info[:]
    try:
        brute_force.Runner(made)
    except Exception:  # whatever onnxruntime raises
        return None
    return made


def significance(found: Base, task: Task, kind: str, mutant: onnx.ModelProto) -> tuple[str, str]:
    """Whether a mutant is a fault: ``visible``, ``tiny`` or ``equal``; and how it shows."""
    if KINDS[kind].of_metadata:
        return "visible", "only what the metadata says"
    half = any(v.type.tensor_type.elem_type == 10 for v in found.converted.graph.output)
    bound = VISIBLE_IN_HALF if half else VISIBLE
    pair, with_nan = (found.converted, mutant), KINDS[kind].of_nan
    difference = brute_force.between(*pair, found.native, enough=3 * bound, with_nan=with_nan)
    if difference.size > bound:
        return "visible", difference.where
    louder = planted_into(found.converted, task, kind, loud=True)
    if louder is not None:
        shown = brute_force.between(found.converted, louder, found.native, enough=30 * bound)
        if shown.size > 10 * bound:
            return "tiny", f"{difference.where or 'no run differs'}; much of it: {shown.where}"
    return "equal", ""


def mutant_judged(task: Task, found: Base, kind: str) -> list[Verdict]:
    """Plant a fault of a kind, and check all variants; nothing if it cannot be planted."""
    mutant = planted_into(found.converted, task, kind, loud=False)
    if mutant is None:
        return []
    weight, shown = significance(found, task, kind, mutant)
    if weight == "equal":
        return [Verdict(kind, "", "equal")]
    verdicts: list[Verdict] = []
    rng = random.Random(f"lies/{kind}/{task.family}/{task.seed}")
    for variant in ("ours",) if KINDS[kind].of_metadata else VARIANTS:
        other = variant_of(mutant, variant, rng)
        if other is None:
            continue
        try:
            with in_time():
                report = check(found.original, other)
        except Fc2ConvError as error:
            outcome, detail = "found", str(error)
        except Exception as error:  # also what no user could act upon
            outcome, detail = (
                "crash",
                f"{type(error).__name__}: {' '.join(str(error).split())[:150]}",
            )
        else:
            less = variant == "stripped" and report.relation.kind != found.relations[variant]
            missed = "missed" if weight == "visible" else "tiny"
            outcome = "found" if not report else "less" if less else missed
            detail = f"{report.relation.kind}; {shown}"
        verdicts.append(Verdict(kind, variant, outcome, detail))
    return verdicts


def tasks(options: argparse.Namespace, planted: Counter[str]) -> Iterator[Work]:
    """Models in turns, each with the kinds of which the fewest are planted so far."""
    folders = tuple(options.folders)
    names = options.kind or list(KINDS)
    if options.only:
        yield Work(Task(options.only, options.seed, folders), tuple(names), len(names))
        return
    number = len(files(folders))
    enough = max(1, -(-options.count // options.models))
    pool = [Task("files", seed, folders) for seed in range(number)]
    pool += [
        Task(family, seed)
        for seed in range(
            options.seed, options.seed + options.models // len(random_nets.FAMILIES) + 1
        )
        for family in random_nets.FAMILIES
    ]
    rng = random.Random(options.seed)
    for task in itertools.cycle(pool[: max(options.models, number)]):
        order = sorted(names, key=lambda name: (planted[name], rng.random()))
        yield Work(task, tuple(order), enough)


def table(verdicts: Sequence[Verdict]) -> str:
    """A line a kind: mutants, equal ones, and of each variant how many were found and missed."""
    lines = [
        f"{'kind':52}{'planted':>8}{'equal':>7}{'found':>7}{'less':>6}{'missed':>8}{'stripped':>10}"
        f"{'lying':>7}{'tiny':>6}{'crash':>7}"
    ]

    def line(name: str, own: Sequence[Verdict]) -> str:
        by = Counter((v.variant, v.outcome) for v in own)
        outcomes = Counter(v.outcome for v in own)
        planted = sum(v.variant in ("", "ours") for v in own)
        return (
            f"{name:52}{planted:8}{outcomes['equal']:7}{outcomes['found']:7}{outcomes['less']:6}"
            f"{by['ours', 'missed']:8}{by['stripped', 'missed']:10}{by['lying', 'missed']:7}"
            f"{outcomes['tiny']:6}{outcomes['crash']:7}"
        )

    by_kind = {kind: [v for v in verdicts if v.kind == kind] for kind in KINDS}
    lines += [line(kind, own) for kind, own in by_kind.items() if own]
    lines.append(line("all", verdicts))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was missed and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="DIR")
    add("--count", type=int, default=1500, help="mutants; default 1500")
    add("--models", type=int, default=240, help="models that they are made of; default 240")
    add("--jobs", type=int, default=1, help="processes; default 1")
    add("--seed", type=int, default=0, help="first seed of each family; default 0")
    add("--kind", action="append", choices=list(KINDS), metavar="KIND", help="these kinds only")
    add("--only", choices=["files", *random_nets.FAMILIES], help="one model, with --seed")
    options = parser.parse_args(arguments)
    verdicts: list[Verdict] = []
    planted: Counter[str] = Counter()
    used: set[Task] = set()
    attempts = itertools.count()

    def wanted() -> Iterator[Work]:
        limit = 3 * max(options.count, options.models)  # kinds may have no place anywhere
        return itertools.takewhile(
            lambda _: planted.total() < options.count and next(attempts) < limit,
            tasks(options, planted),
        )

    def dead(work: Work) -> list[Verdict]:
        return [
            Verdict(work.kinds[0], "ours", "crash", "the process died, at this kind or another")
        ]

    try:
        for work, own in in_processes(worked, wanted(), options.jobs, dead):
            verdicts += own
            used |= {work.task} if own else set()
            planted.update(v.kind for v in own if v.variant in ("", "ours"))
            for v in own:
                if v.outcome in ("missed", "tiny", "crash"):
                    print(f'{v.outcome.upper()} ({v.variant}) --kind "{v.kind}" {work.task.again}')
                    print(f"      {v.detail}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was counted so far")
    print(table(verdicts))
    wrong = Counter(v.outcome for v in verdicts)
    kinds = sum(count > 0 for count in planted.values())
    print(
        f"{planted.total()} mutants of {kinds} kinds in {len(used)} conversions, "
        f"{wrong['equal']} of them equal; {len(verdicts) - wrong['equal']} checks: "
        f"{wrong['found']} found, {wrong['less']} said to be less, {wrong['missed']} missed, "
        f"{wrong['tiny']} missed that are tiny, {wrong['crash']} crashes"
    )
    return 1 if wrong["missed"] or wrong["tiny"] or wrong["crash"] else 0


if __name__ == "__main__":
    sys.exit(main())
