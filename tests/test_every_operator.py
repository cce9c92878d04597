"""Every operator of ONNX, in the cases of its own backend tests: converted or refused, no crash.

That what is converted computes the same takes minutes: `tools/sweep.py --backend-tests`.
"""

from __future__ import annotations

import warnings
from collections import Counter

import pytest

from onnx_fc2conv import Fc2ConvError, convert


@pytest.mark.parametrize("static", [False, True], ids=["dense", "static"])
def test_every_operator(static: bool) -> None:
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes seconds

    outcomes: Counter[str] = Counter()
    crashed: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute infinities on purpose
        cases = collect_testcases(None)
        for case in cases:
            try:
                convert(case.model, static=static)
            except Fc2ConvError as error:
                outcomes[type(error).__name__] += 1
            except Exception as error:
                crashed.append(f"{case.name}: {type(error).__name__} {error}")
            else:
                outcomes["converted"] += 1
    assert not crashed
    assert sum(outcomes.values()) == len(cases) > 1500
    assert set(outcomes) <= {"converted", "RefusedError", "InvalidModelError", "ArgumentError"}
    assert outcomes["InvalidModelError"] < 0.02 * len(cases), outcomes
