from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path

import pytest

import onnx_fc2conv
from onnx_fc2conv import pipeline, testing, to_fc
from onnx_fc2conv.detection import append
from onnx_fc2conv.matrices import layer
from onnx_fc2conv.options import Options

MODULES = (onnx_fc2conv, append, pipeline, testing, to_fc, layer)

ROOT = Path(__file__).parents[1]


def test_the_public_names() -> None:
    """A name that goes from here breaks somebody's code."""
    assert onnx_fc2conv.__all__ == [
        "ArgumentError",
        "Box",
        "ConvToFc",
        "Conversion",
        "EquivalenceReport",
        "Fc2ConvError",
        "FcConversion",
        "FcToConv",
        "FreeInputSize",
        "Geometry",
        "InvalidModelError",
        "Normalize",
        "Preprocessing",
        "ReduceOutputs",
        "RefineStride",
        "Refusal",
        "RefusedError",
        "RuntimeUnavailableError",
        "Scan",
        "SplitKernels",
        "check",
        "convert",
        "convert_to_fc",
        "detector",
        "filter_matrix",
        "inspect",
        "patch_index",
        "read_geometry",
        "scan",
    ]
    assert dir(onnx_fc2conv) == onnx_fc2conv.__all__


def test_the_public_names_for_tests() -> None:
    assert testing.__all__ == ["CheckOptions", "assert_equivalent"]


@pytest.mark.parametrize("name", onnx_fc2conv.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(onnx_fc2conv, name)
    assert (thing.__doc__ or "").strip()


@pytest.mark.parametrize("function", [onnx_fc2conv.convert, onnx_fc2conv.inspect])
def test_each_option_is_a_keyword(function: Callable[..., object]) -> None:
    model, *options = signature(function).parameters.values()
    assert (model.name, model.default) == ("model", model.empty)
    assert [(o.name, o.default) for o in options] == [(f.name, f.default) for f in fields(Options)]
    assert {option.kind for option in options} == {Parameter.KEYWORD_ONLY}
    assert all(f"{option.name}:" in (function.__doc__ or "") for option in options)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'konvert'"):
        _ = onnx_fc2conv.konvert  # type: ignore[attr-defined]


def test_importing_the_package_loads_no_heavy_module() -> None:
    heavy = "'onnxruntime', 'sympy', 'onnx', 'numpy'"
    script = f"import sys, onnx_fc2conv; print([m for m in ({heavy}) if m in sys.modules])"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_docstring_examples(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


def test_type_information_is_shipped() -> None:
    assert (Path(onnx_fc2conv.__file__).parent / "py.typed").exists()
