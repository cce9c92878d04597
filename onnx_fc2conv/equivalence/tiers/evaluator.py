"""Tier *native*, by a second oracle: ONNX's reference evaluator instead of onnxruntime.

It is slow and written for clarity, so it runs small models only. Where it does not agree with
onnxruntime about the original itself, or about a shape (it miscounts the cells of some poolings
with pads), one of the two is wrong about an operator: nothing is said about the conversion.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import to_reference_shape
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_by_evaluator", "is_small"]

_TIER = "native (reference evaluator)"
_MOST_PRODUCTS = 1_000_000
_LOOPING = {"MaxPool", "AveragePool", "LpPool", "Resize", "ConvTranspose"}
"""Operators that the evaluator computes in loops of Python, some microseconds an element."""
_LOOP_COST = 30


def is_small(pair: Pair) -> bool:
    """Whether the reference evaluator runs the models in a moment."""
    cost = _products(pair.reference)
    return cost is not None and cost <= _MOST_PRODUCTS


def check_by_evaluator(pair: Pair) -> list[TierResult]:
    """Compare all outputs on one image, both models run by the reference evaluator."""
    names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
    shapes = pair.batched(pair.fixed_batch or 1)
    feeds = sample(pair.inputs, shapes, pair.kinds_of(("normal",))[0], pair.rng(7))
    try:
        expected = _evaluated(pair.reference, feeds, list(names))
        found = _evaluated(pair.converted, feeds, list(names.values()))
        known = _run(pair, pair.reference, feeds, list(names))
        made = _run(pair, pair.converted, feeds, list(names.values()))
    except RunError as error:
        return [TierResult(_TIER, "all outputs", "skipped", str(error))]
    results: list[TierResult] = []
    for one, two in names.items():
        oracles, models = pair.comparison(one), pair.comparison(one)
        oracles.add(one, known[one], expected[one])
        models.add(one, expected[one], _laid_out_alike(found[two], expected[one].shape))
        subject = pair.subject(one)
        if found[two].shape != made[two].shape:
            why = "it makes other shapes of the converted model than onnxruntime"
            results.append(TierResult(_TIER, subject, "skipped", why))
        elif oracles.passed:
            results.append(as_result(_TIER, subject, models, "one image, both models by its rules"))
        else:
            why = "it does not agree with onnxruntime about the original"
            results.append(TierResult(_TIER, subject, "skipped", why))
    return results


def _run(
    pair: Pair, model: ir.Model, feeds: Mapping[str, AnyArray], names: Sequence[str]
) -> dict[str, AnyArray]:
    """Outputs by name, as onnxruntime computes them."""
    return pair.compared(model).run(feeds, list(names))


def _laid_out_alike(found: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """The output of one image in the shape of the reference, whose batch axis may be missing."""
    for wanted in (shape, (1, *shape)):
        shaped = to_reference_shape(found, wanted)
        if shaped.shape == wanted:
            return shaped.reshape(shape)
    return found


def _evaluated(
    model: ir.Model, feeds: Mapping[str, AnyArray], names: Sequence[str]
) -> dict[str, AnyArray]:
    """Outputs by name.

    Raises:
        RunError: If the evaluator lacks an operator, or does not get through.
    """
    proto = ir.to_proto(with_outputs(model, names))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            arrays = ReferenceEvaluator(proto).run(list(names), dict(feeds))
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise RunError(f"the reference evaluator does not run the model: {text}") from error
    return dict(zip(names, map(np.asarray, arrays), strict=True))


def _products(model: ir.Model) -> int | None:
    """About how many products the model computes for a sample; None where shapes are unknown."""
    total = 0
    for node in model.graph:
        if node.op_type not in {"Conv", "Gemm", "MatMul", *_LOOPING}:
            continue
        size = _size(node.outputs[0])
        if size is None:
            return None
        if node.op_type in _LOOPING:
            total += size * _LOOP_COST
            continue
        weights = [s for s in map(_size, node.inputs[:2]) if s is not None]
        outputs = (node.outputs[0].shape or ir.Shape([1]))[1 if node.op_type == "Conv" else -1]
        if not weights or not isinstance(outputs, int):
            return None
        total += size * max(1, weights[-1] // max(1, outputs))
    return total


def _size(value: ir.Value | None) -> int | None:
    """Number of elements of a sample; None if it is not known."""
    if value is None or value.shape is None:
        return None
    samples, *rest = value.shape or (1,)
    if any(not isinstance(length, int) for length in rest):
        return None
    lengths = [samples if isinstance(samples, int) else 1, *rest]
    return prod(length for length in lengths if isinstance(length, int))
