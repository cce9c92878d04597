"""Tier *data*: both models agree on the user's own samples, and with recorded outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.recordings import Recording, Recordings
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_data"]

_TIER = "data"
_RECORDED_RTOL = 1e-3
"""ONNX's default for its own test data: another runtime on another machine recorded them."""


def check_data(pair: Pair, recordings: Recordings) -> list[TierResult]:
    """Compare all outputs on the samples of one file or folder."""
    names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
    reference = pair.compared(pair.reference)
    converted = pair.compared(pair.converted)
    arrays: dict[str, list[Arrays]] = {name: [] for name in names}
    recorded: dict[tuple[str, str], Comparison] = {}
    samples = 0
    for number, item in enumerate(recordings.items):
        label = f"set {number}"
        try:
            expected = run_in_batches(reference, item.feeds, list(names), pair.fixed_batch)
            jittered = pair.jittered(item.feeds, list(names))
            got = _run_converted(pair, converted, item.feeds, list(names.values()))
        except (RunError, ValueError) as error:
            why = f"does not run: {error}"
            return [TierResult(_TIER, f"all outputs on {recordings.name}", "failed", why)]
        samples += len(next(iter(expected.values())))
        for one, two in names.items():
            shaped = pair.in_shape(one, got[two], expected[one].shape)
            arrays[one].append(Arrays(label, expected[one], shaped, jittered[one]))
        outputs = {one: got[two] for one, two in names.items()}
        _compare_recorded(pair, item, {"reference": expected, "converted model": outputs}, recorded)
    comparisons = {name: pair.comparison(name) for name in names}
    pair.compare(comparisons, arrays)
    what = f"{samples} sample{'s' if samples > 1 else ''} of {recordings.name}"
    results = [
        as_result(_TIER, f"{name} on {recordings.name}", comparison, what)
        for name, comparison in comparisons.items()
    ]
    return results + [
        as_result(
            _TIER,
            f"{name} of the {model} as recorded in {recordings.name}",
            comparison,
            f"{what}, rtol {comparison.tolerance.rtol:g}",
        )
        for (name, model), comparison in recorded.items()
    ]


def _run_converted(
    pair: Pair, session: Session, feeds: Mapping[str, AnyArray], names: Sequence[str]
) -> dict[str, AnyArray]:
    """Outputs of the converted model, which may take any batch where the original takes one."""
    at_once = None if any(pair.growing.values()) else pair.fixed_batch
    return run_in_batches(session, feeds, list(dict.fromkeys(names)), at_once)


def _compare_recorded(
    pair: Pair,
    item: Recording,
    models: Mapping[str, Mapping[str, AnyArray]],
    comparisons: dict[tuple[str, str], Comparison],
) -> None:
    """Compare the outputs of both models with the recorded ones."""
    for name, wanted in item.outputs.items():
        for model, outputs in models.items():
            if name not in outputs:
                continue
            found = comparisons.setdefault((name, model), _recorded(pair, name))
            found.add("recorded", wanted, pair.in_shape(name, outputs[name], wanted.shape))


def _recorded(pair: Pair, name: str) -> Comparison:
    tolerance = pair.comparison(name).tolerance
    rtol = _RECORDED_RTOL if tolerance.rtol is None else tolerance.rtol
    return Comparison(replace(tolerance, rtol=rtol))
