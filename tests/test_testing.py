"""The helper for other projects' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.testing import CheckOptions, assert_equivalent
from tests.equivalence.planting import edit_constant

DIGITS = Path(__file__).parents[1] / "models" / "digits8.onnx"


def dense() -> ir.Model:
    model = convert(DIGITS).model
    assert model is not None
    return model


def test_equivalent_models_pass() -> None:
    assert_equivalent(DIGITS, dense(), expect="map", seed=3)


def test_the_message_is_short_and_says_what_differs() -> None:
    model = dense()
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.01))(model)
    with pytest.raises(AssertionError) as error:
        assert_equivalent(DIGITS, model, seed=5)
    first, *rest = str(error.value).splitlines()
    assert first == "not equivalent (a map of windows at any size; seed 5)"
    assert len(rest) <= 6
    assert rest[0].startswith("  cpu, weights: Gemm /7/Gemm: 8,192 of 8,192 weights are not")
    (native,) = (line for line in rest if "native: logits:" in line)
    assert "[passes with rtol 0.0" in native


def test_the_message_is_cut() -> None:
    model = dense()
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.01))(model)
    edit_constant(1, 1, lambda kernel: kernel * np.float32(1.01))(model)
    data = [DIGITS.parent / "nothing"]
    with pytest.raises(Exception, match="nothing does not exist"):
        assert_equivalent(DIGITS, model, data=data)
    with pytest.raises(AssertionError) as error:
        assert_equivalent(DIGITS, model, expect="same")
    assert str(error.value).splitlines()[-1] == "  and 2 more"
    assert len(str(error.value).splitlines()) == 7


def test_options_are_those_of_check() -> None:
    given = set(check.__kwdefaults__)  # keyword-only, all of them
    assert set(CheckOptions.__annotations__) == given - {"progress"}
