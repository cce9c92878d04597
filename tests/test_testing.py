"""The helper for other projects' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.testing import CheckOptions, assert_equivalent
from tests.equivalence.planting import edit_constant, one_element

DIGITS = Path(__file__).parents[1] / "models" / "digits8.onnx"


def dense() -> ir.Model:
    model = convert(DIGITS).model
    assert model is not None
    return model


def test_equivalent_models_pass() -> None:
    assert_equivalent(DIGITS, dense(), expect="map", seed=3)


def test_the_message_is_short_and_says_what_differs() -> None:
    model = dense()
    edit_constant(0, 1, one_element(lambda weight: weight * 1.05))(model)
    with pytest.raises(AssertionError) as error:
        assert_equivalent(DIGITS, model, seed=5)
    first, *rest = str(error.value).splitlines()
    assert first == "not equivalent (a map of windows at any size; seed 5)"
    tiers = ("native", "integers", "feature windows", "image windows")
    assert [line.split(": ")[0] for line in rest] == [f"  cpu, {tier}" for tier in tiers]
    assert all(": logits: " in line and "values differ, most at " in line for line in rest)
    assert all("[passes with rtol 0." in line for line in rest)


def test_the_message_is_cut(tmp_path: Path) -> None:
    model = dense()
    edit_constant(0, 1, one_element(lambda weight: weight * 1.05))(model)
    data = [DIGITS.parent / "nothing"]
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.random.default_rng(0).random((9, 1, 8, 8), np.float32))
    with pytest.raises(Exception, match="nothing does not exist"):
        assert_equivalent(DIGITS, model, data=data)
    with pytest.raises(AssertionError) as error:
        assert_equivalent(DIGITS, model, expect="same", data=[samples])
    assert str(error.value).splitlines()[-1] == "  and 1 more"
    assert len(str(error.value).splitlines()) == 7


def test_options_are_those_of_check() -> None:
    given = set(check.__kwdefaults__)  # keyword-only, all of them
    assert set(CheckOptions.__annotations__) == given - {"progress"}
