"""The tool that counts missed faults, and the kinds that it plants."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import pytest

from onnx_fc2conv import RefusedError, convert
from tools import brute_force, mutations, random_nets
from tools.false_alarms import Task
from tools.fault_kinds import KINDS


@pytest.fixture
def always_equivalent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A check that accepts everything."""

    class Report:
        class relation:  # noqa: N801 - as the attribute of a report is called
            kind = "map"

    mutations.base.cache_clear()
    monkeypatch.setattr(mutations, "check", lambda *_, **__: Report())
    yield
    mutations.base.cache_clear()


FOUND = (
    "layer kernel: rows for columns",
    "layer bias: missing",
    "scores: first sample for all",
    "output: map averaged",
    "metadata: larger window",
)


def test_it_plants_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [option for kind in FOUND for option in ("--kind", kind)]
    assert mutations.main([*kinds, "--count", "5", "--models", "5"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"[5-9] mutants of [3-5] kinds in [2-5] conversions, 0 of them equal", text)
    assert ", 0 missed, 0 missed that are tiny, 0 crashes" in text
    assert len(re.findall(r"^\S.*: .* 0 +0 +0 +0 +0$", text, re.MULTILINE)) >= 3


@pytest.mark.usefixtures("always_equivalent")
def test_a_check_that_accepts_everything_misses_everything() -> None:
    kinds = ("layer kernel: all negated", "scores: classes reversed", "scores: 0.1 % more")
    found = mutations.worked(mutations.Work(Task("sliding_trunks", 2), kinds, 3))
    variants = [(v.kind, v.variant) for v in found if v.outcome == "missed"]
    assert variants == [(kind, variant) for kind in kinds for variant in mutations.VARIANTS]


@pytest.mark.usefixtures("always_equivalent")
def test_an_ulp_at_a_place_that_matters_is_a_fault() -> None:
    (kind,) = kinds = ("layer kernel: one an ulp more",)
    found = mutations.worked(mutations.Work(Task("movement", 1), kinds, 1))
    assert {verdict.outcome for verdict in found} == {"tiny"}
    assert {verdict.kind for verdict in found} == {kind}


@pytest.mark.usefixtures("always_equivalent")
def test_a_mutant_that_computes_the_same_is_equal() -> None:
    """A Relu behind a Relu, say, is no fault: the check is not asked."""
    kinds = ("feature map: Relu added",)
    found = [mutations.worked(mutations.Work(Task("pooled", s), kinds, 1)) for s in range(12)]
    assert [v.outcome for own in found for v in own].count("equal") > 1


def test_an_exception_of_the_check_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def falls(*_: object, **__: object) -> Any:
        raise IndexError("beyond the end")

    model = random_nets.make("heads", 3)
    conversion = convert(model)
    assert conversion.model is not None
    native = brute_force.native_shapes(model)
    assert native is not None
    base = mutations.Base(model, ir.to_proto(conversion.model), native, {"stripped": "map"})
    monkeypatch.setattr(mutations, "check", falls)
    found = mutations.mutant_judged(Task("heads", 3), base, "layer bias: missing")
    assert [verdict.outcome for verdict in found] == ["crash"] * 3


def test_there_are_kinds_enough() -> None:
    assert len(KINDS) > 200


def test_kinds_change_what_they_say_and_find_a_place() -> None:
    """Most kinds apply to one of some models; a model in which one has no place stays as it is."""
    applied: set[str] = set()
    for family in ("heads", "movement", "sliding_trunks", "several_outputs", "qdq", "ties"):
        for seed in range(2):
            try:
                model = convert(random_nets.make(family, seed)).model
            except RefusedError:
                continue
            assert model is not None
            before = ir.to_proto(model)
            for name in KINDS.keys() - applied:
                copy = ir.from_proto(before)
                if KINDS[name].plant(copy, random.Random(name)):
                    applied.add(name)
                    assert ir.to_proto(copy) != before, name
    assert len(applied) > 0.8 * len(KINDS)
