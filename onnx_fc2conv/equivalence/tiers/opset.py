"""Tier *opset*: a reference of an old opset computes what its upgrade to a newer one does.

The reference of all other tiers is the upgraded model: onnxruntime has no kernels for most
operators of opsets before 7. Where it has them, or ONNX's reference implementation does, the
original runs.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.samples import KINDS, sample
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.runtime.session import RunError, Session

__all__ = ["check_upgraded"]

_TIER = "opset"
_KINDS = KINDS[:3]


def check_upgraded(original: ir.Model, pair: Pair) -> list[TierResult]:
    """Compare the original with the reference that was upgraded from it, where it can be run."""
    opset, now = (model.graph.opset_imports.get("", 0) for model in (original, pair.reference))
    reasons: list[str] = []
    runners = {"onnxruntime": False, "ONNX's reference implementation": True}
    for where, by_reference in runners.items():
        try:
            session = Session(original, pair.provider, by_reference=by_reference)
            comparison = _compared(session, pair)
        except (InvalidModelError, RunError, ValueError) as error:
            reasons.append(str(error))
            continue
        what = f"the original of opset {opset} in {where} and its upgrade to opset {now}"
        return [as_result(_TIER, "the reference", comparison, what)]
    why = (
        f"neither onnxruntime nor ONNX's reference implementation runs opset {opset}: what all "
        f"else is compared with is its upgrade to opset {now} ({'; '.join(reasons)})"
    )
    return [TierResult(_TIER, "the reference", "skipped", why)]


def _compared(session: Session, pair: Pair) -> Comparison:
    """All outputs on three kinds of input, as many samples as the original takes."""
    upgraded = pair.session(pair.reference)
    comparison = pair.comparison()
    batch = pair.fixed_batch or 1
    for number, kind in enumerate(_KINDS):
        feeds = sample(pair.inputs, pair.batched(batch), kind, pair.rng(4, number))
        names = [value.name or "" for value in pair.reference.graph.outputs]
        one = run_in_batches(session, feeds, names, batch)
        two = run_in_batches(upgraded, feeds, names, batch)
        for name in names:
            comparison.add(f"{name}, {kind}", one[name], two[name])
    return comparison
