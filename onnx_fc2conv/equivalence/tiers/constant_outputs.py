"""Outputs that depend on no input: they have no batch and no size, and must be the same bits."""

from __future__ import annotations

from onnx_fc2conv.equivalence.comparing.comparison import Comparison, Tolerance
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tracing.structure import constants, subgraph

__all__ = ["check_constant_outputs"]


def check_constant_outputs(pair: Pair) -> list[TierResult]:
    """Compare these outputs: a weight, for example."""
    fixed = constants(pair.reference.graph)
    results: list[TierResult] = []
    for value in pair.reference.graph.outputs:
        name = value.name or ""
        if value not in fixed:
            continue
        comparison = Comparison(Tolerance(rtol=0.0, atol=0.0))
        try:
            parts = [subgraph(model, {}, [name]) for model in pair.models]
            comparison.add(name, *(pair.session(part).run({}, [name])[name] for part in parts))
        except (KeyError, ValueError) as error:
            comparison.problems.append(f"the converted model has no such constant: {error}")
        results.append(as_result("native", name, comparison, "a constant, bit for bit"))
    return results
