"""Whether onnxruntime runs the models at all, or ONNX's reference implementation has to."""

from __future__ import annotations

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.runtime.reference import rare_types

__all__ = ["missing_kernels"]


def missing_kernels(pair: Pair) -> list[TierResult]:
    """Say which model runs in ONNX's reference implementation, and why."""
    models = {"the reference": pair.reference, "the converted model": pair.converted}
    results: list[TierResult] = []
    for name, model in models.items():
        types = rare_types(model)
        why = pair.session(model).not_loaded if types else None
        if why is None:
            continue
        listed = " and ".join(sorted(map(str, types)))
        detail = (
            f"onnxruntime does not run it in {listed} on {pair.provider} ({why}); ONNX's "
            "reference implementation does, more slowly"
        )
        results.append(TierResult("runtime", name, "skipped", detail))
    return results
