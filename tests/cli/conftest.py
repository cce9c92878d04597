from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnx_fc2conv.cli import main

MODELS = Path(__file__).parents[2] / "models"


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return self.err.strip().splitlines()


Run = Callable[..., Outcome]


def runner(program: Callable[[Sequence[str]], None], capsys: pytest.CaptureFixture[str]) -> Run:
    """A program's ``main`` in this process."""

    def call(*arguments: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as exit_:
            program([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = exit_.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``fc2conv`` with these arguments."""
    return runner(main, capsys)


@pytest.fixture
def face25() -> Path:
    return MODELS / "face25.onnx"


@pytest.fixture
def digits8() -> Path:
    return MODELS / "digits8.onnx"
