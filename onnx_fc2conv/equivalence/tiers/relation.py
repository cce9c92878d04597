"""Tier *relation*: the converted model relates to the original as the user demands."""

from __future__ import annotations

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import Status, TierResult
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.runtime.session import RunError

__all__ = ["check_relation"]


def check_relation(claim: Claim) -> list[TierResult]:
    """Whether the relation is the one that the user demands."""
    if claim.expect == "map":
        right, wanted = claim.relation.kind == "map", "a map of windows"
    else:
        right, wanted = _same_shapes(claim.pair), "the interface of the original"
    status: Status = "passed" if right else "failed"
    detail = f"expected {wanted}; found: {claim.relation.words}"
    return [TierResult("relation", "all outputs", status, detail)]


def _same_shapes(pair: Pair) -> bool:
    """Whether at the native size all outputs have the original's own shapes."""
    feeds = sample(pair.inputs, pair.batched(pair.fixed_batch or 1), "uniform", pair.rng(5))
    names = [value.name or "" for value in pair.reference.graph.outputs]
    try:
        one, two = (pair.compared(m).run(feeds) for m in (pair.reference, pair.converted))
    except RunError:
        return False
    return all(name in two and one[name].shape == two[name].shape for name in names)
