"""Tier *native*: at the native size both models give the same outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison, largest_magnitude
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches, to_reference_shape
from onnx_fc2conv.equivalence.running.samples import POSITIVE, sample
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_native"]

_TIER = "native"
_LARGE = "large"
"""Numbers that no image holds: a model may overflow on them, or be very sensitive, and be right."""
_FEW = 2
"""So few numbers may all be small differences of large terms, and tell no scale of errors."""


def check_native(pair: Pair) -> list[TierResult]:
    """Compare all outputs, and the logits before a saturating one, on every kind of input.

    Of large models the reference runs on all of them, and then the converted one: the two are not
    in memory together.
    """
    native = _Native(pair)
    comparisons = {name: pair.comparison(name) for name in pair.outputs}
    for name in pair.missing & set(comparisons):
        comparisons[name].problems.append("the converted model has no such output")
    try:
        expected: Iterable[tuple[str, _Expected]] = _Reference(native).kinds()
        if pair.is_large:
            expected = list(expected)
        kinds = native.compare(expected, comparisons)
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


@dataclass(frozen=True)
class _Expected:
    """The reference's outputs on inputs of one kind.

    Attributes:
        number: Index of the kind.
        outputs: Outputs by batch size and name.
        at_once: By batch size, the number of samples per run.
        errors: By name, the scale of rounding errors, where the outputs do not tell it.
    """

    number: int
    outputs: dict[int, dict[str, AnyArray]]
    at_once: dict[int, int]
    errors: dict[str, float]


class _Native:
    """Inputs at the native size, and the converted model's outputs on them."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}

    def batches_of(self, number: int) -> tuple[int, ...]:
        """The batch sizes at which a kind of input is compared."""
        return self.pair.batches[:1] if number and self.pair.is_heavy else self.pair.batches

    def feeds(self, kind: str, number: int, batch: int) -> dict[str, AnyArray]:
        """Inputs of one kind, the same ones for both models."""
        rng = self.pair.rng(1, batch, number)
        return sample(self.pair.inputs, self.pair.batched(batch), kind, rng)

    def compare(
        self, expected: Iterable[tuple[str, _Expected]], comparisons: Mapping[str, Comparison]
    ) -> list[str]:
        """Run the converted model too and compare; return the kinds of input."""
        names = list(self.names.values())
        converted = self.pair.compared(self.pair.converted)
        kinds: list[str] = []
        for kind, found in expected:
            kinds.append(kind)
            arrays: dict[str, list[Arrays]] = {name: [] for name in self.names}
            for batch, outputs in found.outputs.items():
                feeds = self.feeds(kind, found.number, batch)
                got = self._got(converted, feeds, names, found.at_once[batch])
                for one, two in self.names.items():
                    shaped = to_reference_shape(got[two], outputs[one].shape)
                    arrays[one].append((f"{kind}, batch {batch}", outputs[one], shaped))
            self.pair.compare(comparisons, arrays, found.errors)
        return kinds

    def _got(
        self,
        converted: Session,
        feeds: Mapping[str, AnyArray],
        names: Sequence[str],
        at_once: int,
    ) -> dict[str, AnyArray]:
        """Return the outputs of the converted model.

        A model of fixed size gets as many samples at once as the original took.
        """
        try:
            if self.pair.keeps_batch or any(self.pair.growing.values()):
                return converted.run(feeds, names)
            return run_in_batches(converted, feeds, names, at_once)
        except (RunError, ValueError) as error:
            raise _DoesNotRun("the converted model") from error


class _Reference:
    """The reference on the same inputs."""

    def __init__(self, native: _Native) -> None:
        self.native = native
        self.pair = native.pair
        self.names = list(native.names)
        self.session = self.pair.compared(self.pair.reference)
        self.at_once = 1

    def kinds(self) -> Iterator[tuple[str, _Expected]]:
        """Yield its outputs on each kind of input, without large ones on which it overflows."""
        for number, kind in enumerate(self.pair.kinds):
            if (found := self._on(kind, number)) is not None:
                yield kind, found
        if any(share < 1 for share in self.pair.defined.values()):
            more = self._on(POSITIVE, len(self.pair.kinds))
            assert more is not None
            yield POSITIVE, more

    def _on(self, kind: str, number: int) -> _Expected | None:
        made = _Expected(number, {}, {}, dict.fromkeys(self.names, 0.0))
        for batch in self.native.batches_of(number):
            feeds = self.native.feeds(kind, number, batch)
            outputs = self._outputs(feeds, batch)
            self.pair.defined[kind] = _share_finite(outputs.values())
            if kind == _LARGE and self.pair.defined.pop(kind) < 1:
                return None
            made.outputs[batch], made.at_once[batch] = outputs, self.at_once
            if kind == _LARGE or any(array.size <= _FEW for array in outputs.values()):
                self._measure(feeds, outputs, made.errors, batch, self.pair.rng(10, batch, number))
        return made

    def _outputs(self, feeds: Mapping[str, AnyArray], batch: int) -> dict[str, AnyArray]:
        """Run all samples at once or, if the model takes no batch, one by one."""
        fixed = self.pair.fixed_batch
        self.at_once = batch if fixed is None else fixed
        try:
            if self.pair.keeps_batch:  # whatever the first axis of the outputs is
                return self.session.run(feeds, self.names)
            return run_in_batches(self.session, feeds, self.names, self.at_once)
        except (RunError, ValueError) as error:
            if fixed is not None or batch == 1:
                raise _DoesNotRun("the reference") from error
        self.at_once = 1
        try:
            return run_in_batches(self.session, feeds, self.names, 1)
        except (RunError, ValueError) as error:
            raise _DoesNotRun("the reference") from error

    def _measure(
        self,
        feeds: Mapping[str, AnyArray],
        expected: Mapping[str, AnyArray],
        scales: dict[str, float],
        batch: int,
        rng: np.random.Generator,
    ) -> None:
        """Estimate the scale of rounding errors: the outputs' change per rounding of the inputs.

        Where a layer squashes large numbers, its output says nothing about their rounding errors.
        """
        types = [array.dtype for array in feeds.values() if np.issubdtype(array.dtype, np.floating)]
        epsilon = max((float(np.finfo(dtype.name).eps) for dtype in types), default=1.0)
        moved = {name: _rounded_otherwise(array, rng) for name, array in feeds.items()}
        for name, array in self._outputs(moved, batch).items():
            if _is_finite(array) and np.issubdtype(array.dtype, np.floating):
                change = array.astype(np.float64) - expected[name]
                scales[name] = max(scales[name], largest_magnitude(change) / epsilon)


def _rounded_otherwise(array: AnyArray, rng: np.random.Generator) -> AnyArray:
    """Move every number to one of its two neighbors at random."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    ends = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
    moved: AnyArray = np.nextafter(array, ends)
    return moved


def _share_finite(arrays: Iterable[AnyArray]) -> float:
    """Return the smallest share of finite values in any of the arrays."""
    return min(
        (
            float(np.isfinite(array).mean()) if np.issubdtype(array.dtype, np.floating) else 1.0
            for array in arrays
        ),
        default=1.0,
    )


def _is_finite(array: AnyArray) -> bool:
    return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())
