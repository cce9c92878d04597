"""Ill-conditioned outputs: what stands before them is compared, and the rest on equal numbers.

Where rounding alone moves an output (the cosine of a large score, the difference of almost equal
numbers, the better of two equal scores), comparing it says little. Nothing here knows operators:
what rounding moves is measured, and so is which tensors of the two models correspond.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.roundings import moved_inputs
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.correspondence import computed, corresponding
from onnx_fc2conv.equivalence.tracing.structure import frontier, subgraph
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["compare_before"]

_TIER = "native"
_STABLE = 1e-3
"""Rounding moves a tensor by no larger share of its largest magnitude, or it may be as bad."""
_DRAWS = 16


def compare_before(pair: Pair, output: str, moved: float) -> TierResult:
    """Compare the last well-conditioned tensors before an output, and what follows on the same.

    Args:
        pair: The models.
        output: The name of the output.
        moved: The share of it that rounding moves.
    """
    what = f"ill-conditioned: rounding alone moves it by {100 * moved:.3g} %"
    try:
        return _Before(pair, output).check(what)
    except (_NotTraced, Fc2ConvError, RunError, ValueError) as error:
        detail = f"{what}; not traced: {str(error) or 'its parts do not run alone'}"
        return TierResult(_TIER, output, "measured", detail)


class _NotTraced(Exception):  # noqa: N818 - a finding, not an error
    """There is no pair of tensors to compare; the message says why."""


class _Before:
    def __init__(self, pair: Pair, output: str) -> None:
        self.pair = pair
        self.output = output
        self.names = corresponding(pair)
        shapes = pair.batched(pair.fixed_batch or 1)
        kind = pair.kinds_of(("normal",))[0]
        self.feeds = sample(pair.inputs, shapes, kind, pair.rng(13))
        self.expected = self._computed(pair.reference, self.feeds)
        moved = moved_inputs(self.feeds, pair.rng(13, 1))
        self.jittered = self._computed(pair.jittery, moved)

    def _computed(self, model: ir.Model, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        wanted = self.names.values() if model is self.pair.converted else self.names
        return {n: a for n, a in computed(self.pair, model, feeds) if n in set(wanted)}

    def check(self, what: str) -> TierResult:
        pair, reference = self.pair, self.pair.reference
        stable = {name for name in self.names if self._is_stable(name)} - {self.output}
        (value,) = (v for v in reference.graph.outputs if v.name == self.output)
        starts = frontier(reference.graph, [value], stable)
        inputs = {i.name for i in pair.inputs}
        if not stable.issuperset(starts) or inputs.issuperset(starts):
            raise _NotTraced("no tensors before it correspond in the two models")
        before = pair.comparison(self.output)
        got = self._computed(pair.converted, self.feeds)
        for name in starts:
            one, two = self.expected[name], got[self.names[name]]
            draws = self.jittered[name]
            before.add_all([Arrays(name, one, two.reshape(one.shape), draws)])
        if not before.passed:
            raise _NotTraced(f"{', '.join(starts)} differ")
        after = self._after(starts, {name: got[self.names[name]].shape for name in starts})
        nodes = (u.node for s in starts for v in _values(reference, s) for u in v.uses())
        node = next(n for n in nodes)
        what += f"; compared before {node.op_type} {node.name or node.outputs[0].name}"
        what += f" ({', '.join(starts)}: the same), and the rest on equal numbers"
        return as_result(_TIER, self.output, after, what)

    def _is_stable(self, name: str) -> bool:
        one, two = (found[name].astype(np.float64) for found in (self.expected, self.jittered))
        return bool(np.abs(one - two).max() <= _STABLE * np.abs(one).max())

    def _after(self, starts: list[str], shapes: Mapping[str, tuple[int, ...]]) -> Comparison:
        """Run what follows in both models on the reference's numbers."""
        pair = self.pair
        feeds = {name: self.expected[name] for name in starts}
        reshaped = {self.names[n]: a.reshape(shapes[n]) for n, a in feeds.items()}
        one = self._rest(pair.reference, feeds, 1)
        two = self._rest(pair.converted, reshaped, 1)
        two = pair.in_shape(self.output, two[0], one[0].shape)[None]
        comparison = pair.comparison(self.output)
        if not np.array_equal(one, two, equal_nan=one.dtype.kind == "f"):
            draws = self._rest(pair.jittery, feeds, _DRAWS)
            comparison.add_all([Arrays("on equal numbers", one[0], two[0], draws)])
        else:
            comparison.add("on equal numbers", one[0], two[0])
        return comparison

    def _rest(self, model: ir.Model, feeds: Mapping[str, AnyArray], draws: int) -> AnyArray:
        types = {name: ir.DataType.from_numpy(array.dtype) for name, array in feeds.items()}
        session = self.pair.session(subgraph(model, types, [self.output]))
        return np.stack([session.run(feeds)[self.output] for _ in range(draws)])


def _values(model: ir.Model, name: str) -> list[ir.Value]:
    made = (value for node in model.graph for value in node.outputs)
    return [value for value in (*model.graph.inputs, *made) if value.name == name]
