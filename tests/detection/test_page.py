"""docs/detector.md does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "detector.md").read_text(encoding="utf-8")


def test_the_page(page_run: Run) -> None:
    (command,) = re.findall(r"^    fc2conv (models/face25.*)$", PAGE, re.MULTILINE)
    assert page_run(*shlex.split(command)).code == 0
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    for code in examples:
        if "dask" in code:
            pytest.importorskip("dask.array", reason="the extra dask is not installed")
        exec(compile(code, "detector.md", "exec"), {})
    assert Path("detector.onnx").exists()
