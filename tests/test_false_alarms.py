"""The tool that counts false alarms, its networks, and the oracle beside it."""

from __future__ import annotations

import os
import random
import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tools import brute_force, false_alarms, random_nets
from tools.rewrites import REWRITES


def wrong(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto:
    """A rewrite that is not right: it enlarges every kernel."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 3, tensor.name))
    return made


def test_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert false_alarms.main(["--family", "heads", "--family", "movement", "--count", "8"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\d+ conversions, 0 alarms", text)
    assert re.search(r"^heads +\d+ +\d+ +\d+ +\d+ +[\d,]+ +\d+ +0$", text, re.MULTILINE)


def test_an_alarm_can_be_repeated_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the oracle, which says here that the conversion is wrong and not the check."""
    monkeypatch.setattr(false_alarms, "REWRITES", {"wrong": wrong, "as well": wrong})
    tally = false_alarms.tried(false_alarms.Task("shared_numbers", 1))
    assert tally.alarms
    assert all(a.startswith("--only shared_numbers --seed 1: ") for a in tally.alarms)
    assert any("oracle: y differs by" in alarm for alarm in tally.alarms)


def half(number: int) -> float:
    """Of an odd number, the process ends."""
    if number % 2:
        os._exit(3)
    return number / 2


def test_a_process_that_dies_takes_no_other_with_it() -> None:
    found = dict(false_alarms.in_processes(half, iter((2, 1)), 1, lambda _: -1.0))
    assert found == {2: 1.0, 1: -1.0}


def test_what_raises_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    def falls(*_: object) -> None:
        raise IndexError("beyond the end")

    monkeypatch.setattr(false_alarms, "check", falls)
    tally = false_alarms.tried(false_alarms.Task("heads", 0))
    assert len(tally.alarms) == tally.conversions > 0
    assert "IndexError: beyond the end" in tally.alarms[0]


@pytest.mark.parametrize("family", random_nets.FAMILIES)
def test_networks_run_and_are_the_same_again(family: str) -> None:
    models = [random_nets.make(family, seed) for seed in range(4)]
    assert all(map(false_alarms.runs, models))
    assert models[3] == random_nets.make(family, 3)


def test_networks_differ() -> None:
    """By their operators, so that many kinds of heads are among them."""
    made = [random_nets.make(family, seed) for family in random_nets.FAMILIES for seed in range(3)]
    assert len({tuple(node.op_type for node in model.graph.node) for model in made}) > 60


@pytest.mark.parametrize("name", REWRITES)
def test_rewrites_change_no_number(name: str) -> None:
    """But for roundings, in any of some models; each applies to one at least."""
    applied = 0
    for family in ("heads", "sliding_trunks", "channels_last"):
        for seed in range(6):
            model = random_nets.make(family, seed)
            rewritten = REWRITES[name](model, random.Random(seed))
            native = brute_force.native_shapes(model)
            assert native is not None
            if rewritten is not None:
                applied += 1
                assert brute_force.between(model, rewritten, native).size < 1e-4
    assert applied


def test_the_oracle_sees_a_difference_in_one_channel() -> None:
    one = np.array([[1e6, 1.0]])
    assert brute_force.relative(one, one) == 0
    assert brute_force.relative(one, np.array([[1e6, 7.0]])) == 6
    assert brute_force.relative(one, np.array([[np.nan, 1.0]])) == np.inf
