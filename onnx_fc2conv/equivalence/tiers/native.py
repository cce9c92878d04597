"""Tier *native*: at the native size both models give the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.roundings import moved_inputs
from onnx_fc2conv.equivalence.running.samples import EXTREME, INTEGERS, POSITIVE, sample
from onnx_fc2conv.equivalence.running.search import search
from onnx_fc2conv.equivalence.tiers.conditioned import compare_before
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_native"]

_TIER = "native"
_DRAWS, _MANY_DRAWS = 2, 16
"""Runs of the reference with other roundings: at first; where whole numbers depend on them, and
before anything is called different."""

_MANY_PRODUCTS = 500_000_000
_FEW_KINDS = ("normal", "image-like", "0 to 255")
"""The kinds of input on which a model of so many products runs."""

Outputs = dict[str, AnyArray]


@dataclass(eq=False)
class _Run:
    """Samples of one kind, and what the models make of them.

    Attributes:
        kind: The kind of input.
        batch: Number of samples.
        feeds: The inputs.
        expected: The reference's outputs, with the samples on their first axes.
        at_once: Its outputs in one run, where they are laid out in another way.
        jittered: Its outputs with other roundings, several of each.
        got: The converted model's outputs.
    """

    kind: str
    batch: int
    feeds: Mapping[str, AnyArray]
    expected: Outputs = field(default_factory=dict)
    at_once: Outputs = field(default_factory=dict)
    jittered: Outputs = field(default_factory=dict)
    got: Outputs = field(default_factory=dict)


def check_native(pair: Pair) -> list[TierResult]:
    """Compare all outputs on every kind of input.

    One model after the other runs on all of them: two large ones are not in memory together.
    """
    try:
        return _Native(pair).check()
    except _DoesNotRun as error:
        return [TierResult(_TIER, error.subject, "failed", f"does not run: {error.__cause__}")]


class _DoesNotRun(Exception):  # noqa: N818 - a finding, not an error
    """A model does not run at the native size; the cause says why."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject


class _Native:
    """The runs of a pair: the first kind of input at every batch size, and the others."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
        self.is_heavy = pair.is_heavy or pair.products > _MANY_PRODUCTS
        self.many = _DRAWS if self.is_heavy else _MANY_DRAWS
        self.is_exact = pair.kinds == (INTEGERS,)
        shapes = pair.batched(1), pair.batched(2)
        self.stacks = not self.is_heavy and all(shapes[0][n] != shapes[1][n] for n in shapes[0])
        kinds = [k for k in pair.kinds if not self.is_heavy or k in _FEW_KINDS]
        first, *others = kinds or pair.kinds[:1]
        self.runs = [self._run(first, 0, batch) for batch in pair.batches]
        samples = 2 if self.stacks else pair.batches[0]
        self.others = [self._run(kind, n, samples) for n, kind in enumerate(others, 1)]
        self.broken = [] if self.is_exact or self.is_heavy else self._broken()
        self.notes: list[str] = []

    def _run(self, kind: str, number: int, batch: int) -> _Run:
        rng = self.pair.rng(1, batch, number)
        return _Run(kind, batch, sample(self.pair.inputs, self.pair.batched(batch), kind, rng))

    def _broken(self) -> list[_Run]:
        """Samples with one pixel that is not finite."""
        runs: list[_Run] = []
        for kind, value in (("NaN", np.nan), ("Inf", np.inf)):
            run = self._run("normal", len(runs), self.pair.batches[0])
            images = [array for array in run.feeds.values() if array.dtype.kind == "f"]
            for array in images:
                array.reshape(-1)[array.size // 2 :][:1] = value
            runs += [replace(run, kind=kind)] if images else []
        return runs

    def check(self) -> list[TierResult]:
        self._run_reference()
        if not self.is_exact:
            whole = any(a.dtype.kind != "f" for a in self.runs[0].expected.values())
            self._jitter(self.many if whole else 1 if self.is_heavy else _DRAWS)
        self._run_converted()
        comparisons = self._compare()
        if self.runs[0].jittered and any(c.differs for c in comparisons.values()):
            self._jitter(self.many)
            comparisons = self._compare()
        self.notes += self._compare_broken()
        ill = {name: c.moved_by_rounding for name, c in comparisons.items() if c.moved_by_rounding}
        if self.runs[0].jittered and (tried := search(self.pair, comparisons)):
            self.notes.append(f"{tried} inputs searched for where the two may differ")
        what = "; ".join((self._what(), *self.notes))
        for name in self.pair.missing & self.pair.outputs.keys():
            comparisons[name] = self.pair.comparison(name)
            comparisons[name].problems.append("the converted model has no such output")
        results = [as_result(_TIER, name, c, what) for name, c in comparisons.items()]
        return results + [compare_before(self.pair, name, moved) for name, moved in ill.items()]

    def _what(self) -> str:
        kinds = list(dict.fromkeys(run.kind for run in (*self.runs, *self.others)))
        batches = " and ".join(map(str, self.pair.batches))
        if len(kinds) == 1:
            return f"{kinds[0]} at batch {batches}, seed {self.pair.seed}"
        return (
            f"{len(kinds)} kinds of input ({', '.join(kinds)}), {kinds[0]} at batch {batches}, "
            f"seed {self.pair.seed}"
        )

    def _run_reference(self) -> None:
        session, fixed = self.pair.compared(self.pair.reference), self.pair.fixed_batch
        for run in self.runs:
            try:
                if self.pair.keeps_batch:  # whatever the first axis of the outputs is
                    run.expected = session.run(run.feeds, list(self.names))
                    continue
                if fixed is None:
                    run.at_once = session.run(run.feeds, list(self.names))
            except RunError as error:
                if self.pair.keeps_batch or run.batch == 1:
                    raise _DoesNotRun("the reference") from error
            if run.at_once and all(a.shape[:1] == (run.batch,) for a in run.at_once.values()):
                run.expected = run.at_once
                continue
            try:
                run.expected = run_in_batches(session, run.feeds, list(self.names), fixed or 1)
            except (RunError, ValueError) as error:
                raise _DoesNotRun("the reference") from error
            if run.batch > 1:
                self.notes.append(f"the original ran {fixed or 1} at a time")
        self._run_others(session, fixed)

    def _run_others(self, session: Session, fixed: int | None) -> None:
        """Run the reference on the other kinds; keep those on which it computes numbers."""
        kinds = [*self.others, *self.broken]
        made = dict(zip(kinds, self._outputs(session, kinds, list(self.names), fixed), strict=True))
        defined = self.pair.defined
        defined[self.runs[0].kind] = min(_share_finite(run.expected) for run in self.runs)
        for run, outputs in made.items():
            run.expected = outputs if isinstance(outputs, dict) else {}
            if run in self.others:
                defined[run.kind] = _share_finite(run.expected) if run.expected else 0.0
        left_out = {k for k, share in defined.items() if not share or (k in EXTREME and share < 1)}
        left_out &= {run.kind for run in self.others}
        for kind in left_out:
            del defined[kind]
        if left_out:
            order = ", ".join(kind for kind in self.pair.kinds if kind in left_out)
            self.notes.append(f"on {order} the original does not compute finite numbers")
        self.others = [run for run in self.others if run.kind not in left_out]
        self.broken = [run for run in self.broken if run.expected]
        if any(share < 1 for share in defined.values()):
            more = self._run(POSITIVE, len(self.pair.kinds), self.pair.batches[0])
            (outputs,) = self._outputs(session, [more], list(self.names), fixed)
            if isinstance(outputs, dict):
                more.expected, defined[POSITIVE] = outputs, _share_finite(outputs)
                self.others.append(more)

    def _jitter(self, draws: int) -> None:
        """Run the reference with other roundings, on inputs that are rounded otherwise."""
        runs = [*self.runs, *self.others, *self.broken]
        if self.is_heavy:
            runs = [run for run in runs if run.batch == self.pair.batches[0]]
        made: list[list[Outputs]] = [[] for _ in runs]
        try:
            session = self.pair.compared(self.pair.jittery)
        except Fc2ConvError:
            self.notes.append("what rounding does could not be measured")
            return
        for draw in range(draws):
            rng = self.pair.rng(10, draw)
            moved = [replace(run, feeds=moved_inputs(run.feeds, rng)) for run in runs]
            outputs = self._outputs(session, moved, list(self.names), self.pair.fixed_batch)
            for found, one in zip(made, outputs, strict=True):
                if isinstance(one, dict):
                    found.append(one)
        for run, found in zip(runs, made, strict=True):
            run.jittered = {n: np.stack([one[n] for one in found]) for n in self.names if found}

    def _run_converted(self) -> None:
        session, names = self.pair.compared(self.pair.converted), list(self.names.values())
        for run in self.runs:
            try:
                run.got = session.run(run.feeds, names)
            except RunError as error:
                if run.at_once or run.batch == 1 or self.pair.fixed_batch is not None:
                    raise _DoesNotRun("the converted model") from error
                self.notes.append(f"neither model runs at batch {run.batch}")
                (run.got,) = self._got(session, [run], 1)
        kinds = [*self.others, *self.broken]
        for run, got in zip(kinds, self._got(session, kinds, None), strict=True):
            run.got = got

    def _got(self, session: Session, runs: Sequence[_Run], batch: int | None) -> list[Outputs]:
        made: list[Outputs] = []
        for outputs in self._outputs(session, runs, list(self.names.values()), batch):
            if not isinstance(outputs, dict):
                raise _DoesNotRun("the converted model") from outputs
            made.append(outputs)
        return made

    def _outputs(
        self, session: Session, runs: Sequence[_Run], names: Sequence[str], batch: int | None
    ) -> list[Outputs | Exception]:
        """Return the outputs on each of these inputs, run all together where that is possible."""
        if self.stacks and len(runs) > 1:
            stacked = {n: np.concatenate([run.feeds[n] for run in runs]) for n in runs[0].feeds}
            try:
                made = run_in_batches(session, stacked, names, batch)
                ends = np.cumsum([run.batch for run in runs])[:-1]
                parts = {name: np.split(array, ends) for name, array in made.items()}
                return [{name: parts[name][n] for name in parts} for n in range(len(runs))]
            except (RunError, ValueError):
                pass  # then one kind after the other, to see which
        found: list[Outputs | Exception] = []
        for run in runs:
            try:
                if self.pair.keeps_batch:
                    found.append(session.run(run.feeds, names))
                else:
                    found.append(run_in_batches(session, run.feeds, names, batch))
            except (RunError, ValueError) as error:
                found.append(error)
        return found

    def _compare(self) -> dict[str, Comparison]:
        comparisons = {name: self.pair.comparison(name) for name in self.names}
        runs = [*self.runs, *self.others]
        for kind in dict.fromkeys(run.kind for run in runs):
            alike = [run for run in runs if run.kind == kind]
            arrays = {name: [self._arrays(run, name) for run in alike] for name in self.names}
            self.pair.compare(comparisons, arrays)
        return comparisons

    def _arrays(self, run: _Run, name: str) -> Arrays:
        label, got = f"{run.kind}, batch {run.batch}", run.got[self.names[name]]
        together = run.at_once.get(name)
        if together is not None and together.shape == got.shape:
            jittered = run.jittered.get(name)
            alike = jittered is not None and jittered.shape[1:] == got.shape
            return Arrays(label, together, got, jittered if alike else None)
        expected = run.expected[name]
        if run.batch == 1 and got.shape == expected.shape[1:]:  # it has no axis for samples
            got = got[None]
        shaped = self.pair.in_shape(name, got, expected.shape)
        return Arrays(label, expected, shaped, run.jittered.get(name))

    def _compare_broken(self) -> list[str]:
        """Say where the models differ on pixels that are not finite; that convicts nobody."""
        if not self.broken:
            return []
        different: list[str] = []
        for run in self.broken:
            for name in self.names:
                comparison = self.pair.comparison(name)
                comparison.add_all([self._arrays(run, name)])
                if comparison.differs:
                    different.append(f"{name} on {run.kind}")
        kinds = " or ".join(run.kind for run in self.broken)
        where = f"different ({', '.join(different)})" if different else "the same"
        return [f"with a pixel that is {kinds}: {where}"]


def _share_finite(outputs: Mapping[str, AnyArray]) -> float:
    """Return the smallest share of finite values in any of the arrays."""
    floats = (array for array in outputs.values() if np.issubdtype(array.dtype, np.floating))
    return min((float(np.isfinite(array).mean()) for array in floats), default=1.0)
