"""docs/geometry.md: its examples run, and its JSON is what the model holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.geometry import GEOMETRY_KEY
from tests.oracle import converted_model

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/geometry.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_python_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(blocks("python")[0], "geometry.md", "exec"), {})


def test_a_consumer_that_has_nothing_but_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = convert(ROOT / "models/face25.onnx")
    ir.save(converted_model(conversion), tmp_path / "dense.onnx")
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).random((1, 1, 41, 60), np.float32)
    names: dict[str, Any] = {"np": np, "image": image, "boxes": []}
    code = blocks("python")[1].replace("> 0.9", ">= 0")
    exec(compile(code, "geometry.md", "exec"), names)
    geometry = conversion.geometry["scores"]
    cells = [*np.ndindex(*geometry.output_size((41, 60)))]
    windows = [geometry.cell_to_window(cell) for cell in cells]
    assert names["boxes"] == [(x.start, y.start, 25, 25) for y, x in windows]


def test_the_json_is_what_the_model_holds() -> None:
    model = converted_model(convert(ROOT / "models/dress64x128_padded.onnx"))
    (shown,) = blocks("json")
    assert json.loads(shown) == json.loads(model.metadata_props[GEOMETRY_KEY])


def test_every_key_is_explained() -> None:
    (shown,) = blocks("json")
    keys = {"schema", "reduction", *json.loads(shown)["outputs"]["scores"]}
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*? \|", TEXT, re.MULTILINE))))
    assert keys <= explained
