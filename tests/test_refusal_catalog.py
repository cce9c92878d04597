"""Every refusal that the package can give is in the catalog, and the catalog has no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _codes_in_the_package() -> set[str]:
    codes: set[str] = set()
    for path in (ROOT / "onnx_fc2conv").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            first = call.args[0]
            if name in ("refuse", "Refusal") and isinstance(first, ast.Constant):
                codes.add(str(first.value))
    return codes


def test_the_catalog_is_complete() -> None:
    text = (ROOT / "docs" / "refusals.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == _codes_in_the_package()
