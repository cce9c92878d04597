"""What is written of small models, word for word: a change that is none changes no text.

``pytest tests/test_golden.py --update-golden`` writes the texts anew; read the difference.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from onnx_fc2conv import convert_to_fc
from onnx_fc2conv.files.reading import as_model
from onnx_fc2conv.pipeline import Options, attempt
from tests.golden.models import CASES, Case
from tests.golden.text import conversion_text, graph_text

GOLDEN = Path(__file__).parent / "golden"


def text_of(case: Case) -> str:
    model = case.model()
    source = as_model(model)
    if case.form is None:
        lines = conversion_text(attempt(model, Options(**case.options)), source)
    else:
        matrices = convert_to_fc(model, form=case.form)
        lines = [*map(str, matrices.layers), *graph_text(matrices.model, source)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_text(name: str, update_golden: bool) -> None:
    path, text = GOLDEN / f"{name}.txt", text_of(CASES[name])
    if update_golden:
        path.write_text(text, encoding="utf-8", newline="\n")
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = difflib.unified_diff(
        expected.splitlines(), text.splitlines(), f"golden/{path.name}", "now", n=2, lineterm=""
    )
    if text != expected:
        pytest.fail("\n".join(difference), pytrace=False)


def test_each_text_has_a_model(update_golden: bool) -> None:
    without = [
        path for path in GOLDEN.glob("*.txt") if path.name not in {f"{n}.txt" for n in CASES}
    ]
    if update_golden:
        for path in without:
            path.unlink()
    assert update_golden or not without
