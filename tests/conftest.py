"""Hypothesis profiles, a fixed, quick one for CI and a long, random one for the night; fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.cli.conftest import MODELS, Run, runner

settings.register_profile(
    "ci",
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=5000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "write the texts of tests/golden anew, instead of comparing with them"
    parser.addoption("--update-golden", action="store_true", help=help_text)


@pytest.fixture
def update_golden(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--update-golden"))


@pytest.fixture
def page_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run ``fc2conv`` in a folder with ``models`` and ``tests``, as the pages in ``docs`` do."""
    from onnx_fc2conv.cli import main  # noqa: PLC0415

    for folder in (MODELS, MODELS.parent / "tests"):
        (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    return runner(main, capsys)
