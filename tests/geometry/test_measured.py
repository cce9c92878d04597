"""Everything that a geometry claims, against brute force on random nets.

``python -m tools.measure_geometry`` does the same for as many nets as you like, and for files.
"""

from __future__ import annotations

from collections import Counter

import pytest

from onnx_fc2conv import RefusedError, convert
from tests.geometry.measuring import (
    Measurement,
    measure_clean_cells,
    measure_output_size,
    measure_receptive_field,
    measure_verdict,
)
from tests.geometry.misaligned import measure_misaligned
from tests.geometry.random_nets import RandomNet

CHUNK = 10


@pytest.mark.parametrize("first", range(0, 50, CHUNK))
def test_random_nets(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        net = RandomNet(seed)
        model = net.model()
        try:
            conversion = convert(model, pool=net.pool)
        except RefusedError as error:
            assert {r.code for r in error.refusals} == {"misaligned"}
            measure_misaligned(model, seed)
            continue
        it = Measurement(model, conversion, seed)
        try:
            measure_output_size(it)
            measure_verdict(it)
            if it.scores.receptive_field is not None:
                measure_receptive_field(it)
                measure_clean_cells(it)
        except AssertionError as error:
            raise AssertionError(f"net {seed}: {', '.join(net.layers)}") from error
        seen[it.scores.verdict] += 1
    assert seen.total() > CHUNK // 2
    assert seen["border effect"]
