"""Tier *integers*: both models with other weights, the same ones for the same bit patterns.

A weight that is wrong in its last bit is within every tolerance. With small integers for weights it
is a wrong integer in five cases of six, and changes sums by more than any rounding does. Nothing is
saturated: the sums of every layer are of order 1, and so is what a softmax sees. Where sums are
short the two models agree bit for bit, in whatever order they add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches
from onnx_fc2conv.equivalence.running.integer_coding import (
    Coding,
    Operand,
    coded_name,
    with_constants,
)
from onnx_fc2conv.equivalence.running.roundings import moved_inputs, rounding_otherwise
from onnx_fc2conv.equivalence.running.samples import INTEGERS, sample
from onnx_fc2conv.equivalence.tiers.feature_windows import check_feature_windows, check_same_sizes
from onnx_fc2conv.equivalence.tiers.image_windows import check_image_windows
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.files.reading import stored_tensors
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Codings", "NotCodedError", "check_integers"]

TIER = "integers"

_MOST_WEIGHTS = 1 << 25
_CODINGS, _FEWEST, _IMAGES = 16, 4, 4
"""Codings, the fewest of them for a heavy model, and images for each.

One coding finds a weight that is one ulp off unless its integer stays the same (1 in 6), or the
unit before or after it is dead: 55 % of 60 weights at random places in face25, 50 % in layers of 64
units, 20 to 60 % in hidden layers of 512. Of these 120 in the first two, 16 codings found all; they
missed 1 of 25 in 20 layers of 64 units.
"""

_TERMS = 4.0
_DRAWS = 8
"""Runs of the reference that are rounded otherwise, before a difference counts."""

"""Nonzero terms of a sum in the coding that is compared at larger sizes."""

_PRODUCTS = 500_000_000
"""Most products for all codings: about a quarter of a second on one core."""

_ROUNDING = {"QuantizeLinear", "DynamicQuantizeLinear", "Round", "Floor", "Ceil"}
"""Operators that a rounding error moves by a whole step."""


class NotCodedError(Exception):
    """A model to which the tier does not apply; the message says why."""


def check_integers(claim: Claim) -> list[TierResult]:
    """Compare whole models whose weights are integers, at the native size and at larger ones."""
    pair = claim.pair
    try:
        codings = Codings(pair)
        results = codings.compare()
        if not codings.is_sensitive:
            results += _at_larger_sizes(replace(claim, pair=codings.short, like=claim))
    except NotCodedError as reason:
        return [TierResult(TIER, "whole models", "skipped", str(reason))]
    except (Fc2ConvError, RunError, ValueError) as error:
        return [TierResult(TIER, "whole models", "skipped", f"does not run on integers: {error}")]
    return results


class _Coded(Session):
    """A session of a model whose weights are given for each coding."""

    def __init__(
        self,
        pair: Pair,
        model: ir.Model,
        operands: Sequence[Operand],
        names: Iterable[str],
        *,
        otherwise: bool = False,
    ) -> None:
        given = with_constants(model, operands)
        given = rounding_otherwise(given) if otherwise else given
        super().__init__(with_outputs(given, names), pair.provider)
        self.weights: dict[str, AnyArray] = {}

    def run(
        self,
        feeds: Mapping[str, AnyArray],
        outputs: Sequence[str] | None = None,
        *,
        shrink_arena: bool = False,
    ) -> dict[str, AnyArray]:
        return super().run({**self.weights, **feeds}, outputs, shrink_arena=shrink_arena)


class Codings:
    """Both models, to be run with one coding after the other.

    Raises:
        NotCodedError: If the tier does not apply to them.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        weights = max(sum(t.size for t in stored_tensors(m)) for m in pair.models)
        if weights > _MOST_WEIGHTS:
            raise NotCodedError(f"{weights:,} weights are too many to be coded")
        for node in pair.reference.graph:
            if node.op_type in _ROUNDING or "Integer" in node.op_type or node.op_type[:2] == "QL":
                raise NotCodedError(f"{node.op_type} {node.name or node.outputs[0].name} rounds")
        self.coding = Coding.of(*pair.models)
        if not self.coding.reference:
            raise NotCodedError("not coded: no weight is the same in both models")
        self.names = [name for name in pair.outputs if name not in pair.missing]
        self.layers = [operand.node.outputs[0].name or "" for operand in self.coding.layers]
        self.sessions = (
            _Coded(pair, pair.reference, self.coding.reference, self.layers),
            _Coded(pair, pair.converted, self.coding.converted, ()),
        )
        self.products = self._leveled()
        self.is_sensitive = False
        self.images = max(1, min(_IMAGES, _PRODUCTS // (_CODINGS * self.products + 1)))
        self.at_once = 0

    def _leveled(self) -> int:
        """Level the sums of the reference; return the number of its products for one image."""
        self._draw(0)
        weights = self.sessions[0].weights
        for n, operand in enumerate(self.coding.reference):
            if operand.role in ("term", "mean"):  # without terms sums follow those below
                weights[coded_name(n)] = np.zeros_like(weights[coded_name(n)])
        batch = self.pair.fixed_batch or 1
        made = self.sessions[0].run(self._images(0, batch), self.layers)
        sizes = {n: float(np.sqrt(np.square(a, dtype=np.float64).mean())) for n, a in made.items()}
        self.coding.level(sizes, self.pair.reference.graph)
        operands = zip(self.coding.layers, self.layers, strict=True)
        return sum(made[name].size * o.fan_in for o, name in operands) // batch

    def _draw(self, number: int) -> None:
        for session, operands in zip(self.sessions, self.coding.sides, strict=True):
            arrays = self.coding.arrays(operands, self._factor(number), lifted=number % 2 == 1)
            session.weights = {coded_name(n): array for n, array in enumerate(arrays)}

    def _factor(self, number: int) -> int:
        return int(self.pair.rng(7, number).integers(1 << 31)) * 2 + 1

    def _images(self, number: int, batch: int) -> dict[str, AnyArray]:
        rng = self.pair.rng(8, number)
        return sample(self.pair.inputs, self.pair.batched(batch), INTEGERS, rng)

    @property
    def short(self) -> Pair:
        """The models with a coding whose sums are short, and so mostly exact."""
        reference, converted = (
            with_constants(
                model, operands, self.coding.arrays(operands, self._factor(0), terms=_TERMS)
            )
            for model, operands in zip(self.pair.models, self.coding.sides, strict=True)
        )
        return replace(
            self.pair, reference=reference, converted=converted, kinds=(INTEGERS,), defined={}
        )

    def compare(self) -> list[TierResult]:
        """Compare the outputs at the native size with each coding."""
        codings = max(_FEWEST, min(_CODINGS, _PRODUCTS // (self.images * self.products + 1)))
        comparisons = {name: self.pair.comparison(name) for name in self.names}
        for number in range(codings):
            self._draw(number)
            feeds = self._images(number, self.images)
            expected, got = self._reference(feeds), self._converted(feeds)
            for name, comparison in comparisons.items():
                one = expected[name]
                two = self.pair.in_shape(name, got[name], one.shape)
                trial = self.pair.comparison(name)
                trial.add("", one, two)
                if trial.passed:
                    comparison.add_all([Arrays(f"coding {number} ", one, two)])
                    continue
                drawn = self._jittered(name, feeds)
                comparison.add_all([Arrays(f"coding {number} ", one, two, drawn)])
        kept = f" ({self.coding.kept} keep their own numbers)" if self.coding.kept else ""
        what = f"{codings} codings of {len(self.coding.reference)} tensors{kept}"
        return [self._result(name, c, what) for name, c in comparisons.items()]

    def _result(self, name: str, comparison: Comparison, what: str) -> TierResult:
        if not comparison.elements and not comparison.problems:
            why = "with integers for weights it is undefined, or as sensitive as a step"
            return TierResult(TIER, name, "skipped", why)
        how = "within the tolerance" if comparison.worst else "bit for bit"
        return as_result(TIER, name, comparison, f"{what}, {how}")

    def _reference(
        self, feeds: Mapping[str, AnyArray], session: _Coded | None = None
    ) -> dict[str, AnyArray]:
        session = session or self.sessions[0]
        if self.pair.keeps_batch:
            return session.run(feeds, self.names)
        if not self.at_once:
            try:
                self.at_once = self.pair.fixed_batch or self.images
                return run_in_batches(session, feeds, self.names, self.at_once)
            except (RunError, ValueError):  # it takes one image at a time
                self.at_once = self.pair.fixed_batch or 1
        return run_in_batches(session, feeds, self.names, self.at_once)

    def _converted(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        session = self.sessions[1]
        if self.pair.keeps_batch or any(self.pair.growing.values()):
            return session.run(feeds, self.names)
        return run_in_batches(session, feeds, self.names, self.at_once)

    def _jittered(self, name: str, feeds: Mapping[str, AnyArray]) -> AnyArray:
        """What the reference gives where everything is rounded otherwise."""
        self.is_sensitive = True
        weights, draws = self.sessions[0].weights, list[AnyArray]()
        for draw in range(_DRAWS):
            rng = self.pair.rng(9, draw)
            self.jittery.weights = moved_inputs(weights, rng)
            draws.append(self._reference(moved_inputs(feeds, rng), self.jittery)[name])
        return np.stack(draws)

    @cached_property
    def jittery(self) -> _Coded:
        """The reference, rounded otherwise."""
        operands = self.coding.reference
        return _Coded(self.pair, self.pair.reference, operands, self.names, otherwise=True)


def _at_larger_sizes(claim: Claim) -> list[TierResult]:
    """Cells against windows: of the feature map, and of the image where no padding shows."""
    if not any(claim.pair.growing.values()) or claim.larger_sizes not in ("same", "windows"):
        return []
    results = [
        *check_same_sizes(claim),
        *check_feature_windows(claim),
        *check_image_windows(claim, measure=False),
    ]
    return [
        replace(result, tier=TIER, detail=f"{result.tier}: {result.detail}")
        for result in results
        if result.status != "skipped"
    ]
