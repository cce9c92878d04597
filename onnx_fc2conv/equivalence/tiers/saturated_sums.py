"""Tier *saturation*: the results of a default session on a CPU whose sums of bytes saturate.

All other tiers compute such sums exactly (`byte_products.py`). This one measures what the user of
either model will see on this CPU, and asserts nothing: onnxruntime is wrong before and after
conversion, though not by the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.recordings import Recordings
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_saturation"]

_TIER = "saturation"
_KINDS = ("normal", "uniform", "image-like", "large")
_DRAWS = 3
"""Random samples of each kind."""

_WHAT_TO_DO = (
    "To see the exact numbers: quantize with reduce_range=True or with unsigned weights "
    "(weight_type=QuantType.QUInt8), set the session option session.x64quantprecision to 1, or use "
    "a CPU with VNNI"
)


def check_saturation(pair: Pair, recordings: Sequence[Recordings]) -> list[TierResult]:
    """Measure how far default sessions are from exact sums, on the user's samples or random ones.

    Returns:
        Nothing where no sum can saturate.
    """
    declared = {value.name for value in pair.reference.graph.outputs}
    names = {n: o for n, o in pair.outputs.items() if n in declared and n not in pair.missing}
    original = with_outputs(pair.reference, names)
    converted = with_outputs(pair.converted, names.values())
    exact = Session(original), Session(converted)
    operators = Counter(op_type for session in exact for op_type in session.saturating)
    if not operators:
        return []
    default = Session(original, as_deployed=True), Session(converted, as_deployed=True)
    what = f"{len(recordings)} sets of your samples" if recordings else ", ".join(_KINDS)
    try:
        feeds = [item.feeds for given in recordings for item in given.items] or _draws(pair)
        one, two = (_outputs(session, feeds, pair.fixed_batch) for session in exact)
        seen, seen_too = (_outputs(session, feeds, pair.fixed_batch) for session in default)
    except (RunError, ValueError) as error:
        return [TierResult(_TIER, "all outputs", "skipped", f"does not run: {error}")]
    results = [_diagnosis(operators, what)]
    for name, own in names.items():
        shape = one[name].shape
        scores, dense = (
            pair.in_shape(name, two[own], shape),
            pair.in_shape(name, seen_too[own], shape),
        )
        results += [
            _distance(f"{name} of the original, from its exact value", one[name], seen[name]),
            _distance(f"{name} of the converted model, from its exact value", scores, dense),
            _distance(f"{name}, from the original to the converted model", seen[name], dense),
        ]
    return results


def _draws(pair: Pair) -> list[dict[str, AnyArray]]:
    """Random samples of every kind, at the native size; large ones saturate most."""
    shapes = pair.batched(pair.fixed_batch or 1)
    kinds = pair.kinds_of(_KINDS)
    return [
        sample(pair.inputs, shapes, kind, pair.rng(11, number, draw))
        for number, kind in enumerate(kinds)
        for draw in range(_DRAWS)
    ]


def _outputs(
    session: Session, feeds: Iterable[Mapping[str, AnyArray]], batch: int | None
) -> dict[str, AnyArray]:
    """All outputs, stacked on a first axis of samples."""
    made = [run_in_batches(session, fed, session.outputs, batch) for fed in feeds]
    return {name: np.concatenate([outputs[name] for outputs in made]) for name in session.outputs}


def _diagnosis(operators: Counter[str], what: str) -> TierResult:
    nodes = ", ".join(f"{count} {op_type}" for op_type, count in sorted(operators.items()))
    detail = (
        f"onnxruntime adds products of unsigned and signed bytes in 16 bits here, and the sums "
        f"saturate ({nodes} in the two models). Everything else in this report is computed "
        f"exactly; below is what sessions with default options give ({what}). {_WHAT_TO_DO}"
    )
    return TierResult(_TIER, "this CPU", "measured", detail)


def _distance(subject: str, one: AnyArray, two: AnyArray) -> TierResult:
    """How far two arrays of samples are apart, and how often their largest score is the same."""
    flat, other = (np.reshape(array, (len(array), -1)).astype(np.float64) for array in (one, two))
    worst = float(np.abs(flat - other).max(initial=0.0))
    detail = f"at most {worst:.3g} apart, where the largest magnitude is {np.abs(flat).max():.3g}"
    if flat.shape[1] > 1:
        alike = int((flat.argmax(axis=1) == other.argmax(axis=1)).sum())
        detail += f"; the largest score agrees in {alike} of {len(flat)} samples"
    return TierResult(_TIER, subject, "measured", detail, flat.size, worst)
