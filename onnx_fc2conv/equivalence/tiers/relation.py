"""Tier *relation*: the converted model relates to the original as the user demands."""

from __future__ import annotations

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.relation import Expect, outputs_of
from onnx_fc2conv.equivalence.reporting.results import Relation, TierResult
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.runtime.session import RunError

__all__ = ["check_relation"]


def check_relation(pair: Pair, relation: Relation, expect: Expect) -> list[TierResult]:
    """Whether the relation is the one that the user demands."""
    if expect == "map":
        right, wanted = relation.kind == "map", "a map of windows"
    else:
        right, wanted = _same_shapes(pair), "the interface of the original"
    found = f"found: {relation.words}"
    if right:
        return [TierResult("relation", "all outputs", "passed", f"{wanted}, as expected; {found}")]
    return [TierResult("relation", "all outputs", "failed", f"expected {wanted}; {found}")]


def _same_shapes(pair: Pair) -> bool:
    """Whether at the native size all outputs have the original's own shapes."""
    feeds = sample(pair.inputs, pair.batched(pair.fixed_batch or 1), "uniform", pair.rng(5))
    names = outputs_of(pair.reference)
    try:
        one, two = (pair.compared(m).run(feeds) for m in (pair.reference, pair.converted))
    except RunError:
        return False
    return all(name in two and one[name].shape == two[name].shape for name in names)
