"""The tool that counts false alarms."""

from __future__ import annotations

import sys

import pytest

from tools import false_alarms


def test_it_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["false_alarms.py", "--nets", "3", "--seeds", "1"])
    assert false_alarms.main() == 0
    assert "3 conversions, 3 checks, 0 alarms" in capsys.readouterr().out


def test_networks_differ() -> None:
    """By their operators, so that many kinds of heads are among them."""
    operators = {tuple(n.op_type for n in false_alarms.network(s).graph.node) for s in range(20)}
    assert len(operators) > 15
