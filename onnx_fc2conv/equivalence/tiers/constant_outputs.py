"""Outputs that depend on no input: they have no batch and no size, and must be the same bits."""

from __future__ import annotations

from onnx_fc2conv.equivalence.comparing.comparison import Comparison, Tolerance
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.equivalence.tracing.structure import constants

__all__ = ["check_constant_outputs"]


def check_constant_outputs(pair: Pair) -> list[TierResult]:
    """Compare these outputs: a weight, for example."""
    fixed = constants(pair.reference.graph)
    found = {value.name: value for value in pair.converted.graph.outputs}
    results: list[TierResult] = []
    for value in pair.reference.graph.outputs:
        name = value.name or ""
        if value not in fixed:
            continue
        comparison = Comparison(Tolerance(rtol=0.0, atol=0.0))
        try:
            one = constant_array(pair.reference, value)
            comparison.add(name, one, constant_array(pair.converted, found.get(name)))
        except (KeyError, ValueError) as error:
            comparison.problems.append(f"the converted model has no such constant: {error}")
        results.append(as_result("native", name, comparison, "a constant, bit for bit"))
    return results
