"""Hypothesis profiles, a fixed, quick one for CI and a long, random one for the night; fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime
import pytest
from hypothesis import HealthCheck, settings

from tests.cli.conftest import MODELS, Run, runner
from tests.nets import OneThread

onnxruntime.SessionOptions = OneThread  # each worker of the tests keeps one core busy

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


QUICK = (
    *("graphs", "comparing", "reporting", "test_golden", "test_import_contract", "test_tape"),
    *("test_public_api", "test_refusal_catalog", "test_byte_products", "test_table"),
    *("test_cell_count", "test_receptive_field", "test_output", "test_growth", "test_weights"),
    *("test_fc_to_conv", "test_free_input_size", "test_linear", "test_movement", "test_sliding"),
)
"""Folders and files of the quick suite: what most changes break first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick suite."""
    for item in items:
        path = Path(item.path).relative_to(Path(__file__).parent).with_suffix("")
        if set(path.parts) & set(QUICK):
            item.add_marker(pytest.mark.quick)


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
