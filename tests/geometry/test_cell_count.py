"""CellCount against what it abbreviates: one floor a layer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onnx_fc2conv.geometry import CellCount, output_length

STAGES = st.tuples(st.integers(1, 4), st.integers(-3, 6), st.integers(1, 5))


@given(st.lists(STAGES, max_size=6), st.integers(1, 200))
def test_stages_compose_without_loss(stages: list[tuple[int, int, int]], length: int) -> None:
    count, expected = CellCount(), length
    for factor, shift, divisor in stages:
        count = count.then(factor, shift, divisor)
        expected = (factor * expected + shift) // divisor
    assert count(length) == expected
    assert count(length + count.period) - count(length) == count(count.period) - count(0)
    shortest = count.shortest(expected)
    assert count(shortest) >= expected > count(shortest - 1)


@given(st.lists(STAGES.map(lambda stage: (1, *stage[1:])), max_size=6))
def test_layers_that_only_slide_are_one_stage(stages: list[tuple[int, int, int]]) -> None:
    count = CellCount()
    for stage in stages:
        count = count.then(*stage)
    assert len(count.stages) == 1


def test_cells_made_and_taken_together_again_leave_no_trace() -> None:
    count = CellCount().slide(3, 4, 1, 0)
    assert count.then(2, 0, 1).then(1, 0, 2) == count
    assert len(count.then(2, 0, 1).then(1, 1, 3).stages) == 2
    assert len(count.then(2, 0, 1).then(1, 1, 3).then(1, 0, 2).stages) == 1


def test_a_constant_stays_one() -> None:
    pooled = CellCount.constant(1).slide(1, 1, 1, 0)
    assert pooled == CellCount.constant(1)
    assert pooled.shortest(1) == 0


def test_output_length() -> None:
    assert output_length(224, 7, 2, 1, 6) == 112
    assert output_length(224, 3, 1, 2, 0) == 220
