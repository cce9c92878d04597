"""Tier *native*: at the native size both models give the same outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from onnx_fc2conv.equivalence.batches import run_in_batches, to_reference_shape
from onnx_fc2conv.equivalence.comparison import Arrays, Comparison, largest_magnitude
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.report import TierResult
from onnx_fc2conv.equivalence.runtime import RunError
from onnx_fc2conv.equivalence.samples import POSITIVE, sample
from onnx_fc2conv.equivalence.structure import with_outputs
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["check_native"]

_TIER = "native"
_LARGE = "large"
"""Numbers that no image holds: a model may overflow on them, or be very sensitive, and be right."""
_FEW = 2
"""So many numbers may all be small differences of large terms: their size is no scale of errors."""


def check_native(pair: Pair) -> list[TierResult]:
    """Compare all outputs, and the logits before a saturating one, on every kind of input."""
    native = _Native(pair)
    comparisons = {name: pair.comparison(name) for name in pair.outputs}
    for name in pair.missing & set(comparisons):
        comparisons[name].problems.append("the converted model has no such output")
    kinds: list[str] = []
    try:
        for number, kind in enumerate(pair.kinds):
            if native.compare(kind, number, comparisons):
                kinds.append(kind)
        if any(share < 1 for share in pair.defined.values()):
            native.compare(POSITIVE, len(pair.kinds), comparisons)
            kinds.append(POSITIVE)
    except _DoesNotRun as error:
        return [TierResult(_TIER, error.subject, "failed", f"does not run: {error.__cause__}")]
    batches = " and ".join(map(str, pair.batches))
    what = f"{len(kinds)} kinds of input ({', '.join(kinds)}) at batch {batches}"
    if len(kinds) == 1:
        what = f"{kinds[0]} at batch {batches}"
    if len(pair.batches) > 1 and native.batches_of(1) != pair.batches:
        what = f"{len(kinds)} kinds of input ({', '.join(kinds)}), {kinds[0]} at batch {batches}"
    if _LARGE in pair.kinds and _LARGE not in kinds:
        what += f"; on {_LARGE} numbers the original overflows"
    return [as_result(_TIER, pair.subject(name), c, what) for name, c in comparisons.items()]


class _DoesNotRun(Exception):  # noqa: N818 - a finding, not an error
    """A model does not run at the native size; the cause says why."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject


class _Native:
    """Both models, with what is compared of them."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
        self.at_once = 1
        self.reference = pair.session(with_outputs(pair.reference, self.names))
        self.converted = pair.session(with_outputs(pair.converted, self.names.values()))

    def batches_of(self, number: int) -> tuple[int, ...]:
        """The batch sizes at which a kind of input is compared."""
        return self.pair.batches[:1] if number and self.pair.is_heavy else self.pair.batches

    def compare(self, kind: str, number: int, comparisons: Mapping[str, Comparison]) -> bool:
        """Compare on inputs of one kind; False where the original overflows on large ones."""
        arrays: dict[str, list[Arrays]] = {name: [] for name in self.names}
        errors = dict.fromkeys(self.names, 0.0)
        for batch in self.batches_of(number):
            rng = self.pair.rng(1, batch, number)
            feeds = sample(self.pair.inputs, self.pair.batched(batch), kind, rng)
            expected = self._expected(feeds, batch)
            self.pair.defined[kind] = _share_finite(expected.values())
            if kind == _LARGE and self.pair.defined.pop(kind) < 1:
                return False
            if kind == _LARGE or any(array.size <= _FEW for array in expected.values()):
                self._measure(feeds, expected, rng, errors, batch)
            got = self._got(feeds)
            for one, two in self.names.items():
                shaped = to_reference_shape(got[two], expected[one].shape)
                arrays[one].append((f"{kind}, batch {batch}", expected[one], shaped))
        self.pair.compare(comparisons, arrays, errors)
        return True

    def _got(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Outputs of the converted model.

        One with the original's interface gets as many samples at once as the original took.
        """
        names = list(self.names.values())
        try:
            if self.pair.keeps_batch or any(self.pair.growing.values()):
                return self.converted.run(feeds, names)
            return run_in_batches(self.converted, feeds, names, self.at_once)
        except (RunError, ValueError) as error:
            raise _DoesNotRun("the converted model") from error

    def _expected(self, feeds: Mapping[str, AnyArray], batch: int) -> dict[str, AnyArray]:
        """Outputs of the reference, all samples at once or, if it takes no several, one by one."""
        names = list(self.names)
        fixed = self.pair.fixed_batch
        self.at_once = batch if fixed is None else fixed
        try:
            if self.pair.keeps_batch:  # whatever the first axis of the outputs is
                return self.reference.run(feeds, names)
            return run_in_batches(self.reference, feeds, names, self.at_once)
        except (RunError, ValueError) as error:
            if fixed is not None or batch == 1:
                raise _DoesNotRun("the reference") from error
        self.at_once = 1
        try:
            return run_in_batches(self.reference, feeds, names, 1)
        except (RunError, ValueError) as error:
            raise _DoesNotRun("the reference") from error

    def _measure(
        self,
        feeds: Mapping[str, AnyArray],
        expected: Mapping[str, AnyArray],
        rng: np.random.Generator,
        scales: dict[str, float],
        batch: int,
    ) -> None:
        """Find the scale of rounding errors: how far one of the inputs carries, in units of it.

        Where a layer squashes large numbers, its output says nothing about their rounding errors.
        """
        types = [array.dtype for array in feeds.values() if np.issubdtype(array.dtype, np.floating)]
        epsilon = max((float(np.finfo(dtype.name).eps) for dtype in types), default=1.0)
        moved = {name: _rounded_otherwise(array, rng) for name, array in feeds.items()}
        for name, array in self._expected(moved, batch).items():
            if _is_finite(array) and np.issubdtype(array.dtype, np.floating):
                change = array.astype(np.float64) - expected[name]
                scales[name] = max(scales[name], largest_magnitude(change) / epsilon)


def _rounded_otherwise(array: AnyArray, rng: np.random.Generator) -> AnyArray:
    """Every number moved to one of its neighbors."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    ends = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
    moved: AnyArray = np.nextafter(array, ends)
    return moved


def _share_finite(arrays: Iterable[AnyArray]) -> float:
    """The share of the values that are finite, of the array with the smallest."""
    return min(
        (
            float(np.isfinite(array).mean()) if np.issubdtype(array.dtype, np.floating) else 1.0
            for array in arrays
        ),
        default=1.0,
    )


def _is_finite(array: AnyArray) -> bool:
    return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())
