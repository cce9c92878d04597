"""Labels: integers that identify the elements of feature maps.

A data-movement operator does not care about values. Run on integers that mean "element e of sample
n", it shows where each element of its output comes from, whichever of fifty spellings the exporter
chose. The operators run in ONNX's own reference implementation, at the model's opset, so their
semantics are not written a second time here.

Element e (≥ 1, counted through all feature maps) of sample n has the label ``n·SAMPLE + e``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["SAMPLE", "AnyArray", "IntArray", "batch_axis", "evaluate", "map_labels"]

IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

SAMPLE = 1 << 40


def map_labels(first: int, shape: Sequence[int], batch: int) -> IntArray:
    """Labels of ``batch`` samples of a map of per-sample ``shape``: [batch, *shape], int64."""
    count = int(np.prod(shape, dtype=np.int64))
    samples = np.arange(batch, dtype=np.int64)[:, None] * SAMPLE
    elements = np.arange(first, first + count, dtype=np.int64)
    return (samples + elements).reshape(batch, *shape)


def batch_axis(labels: IntArray, batch: int) -> int | None:
    """Return the axis along which only the sample number changes (0 … batch-1), else None.

    With ``batch`` 1 every axis of length 1 qualifies, so the answer is meaningful from 2 on.
    """
    for axis, length in enumerate(labels.shape):
        if length != batch:
            continue
        samples = np.moveaxis(labels, axis, 0)
        steps = np.arange(batch, dtype=np.int64).reshape(batch, *[1] * (labels.ndim - 1)) * SAMPLE
        within_sample_0 = bool((samples[0] < SAMPLE).all())
        if within_sample_0 and bool((samples == samples[0] + steps).all()):
            return axis
    return None


def evaluate(node: ir.Node, inputs: Sequence[AnyArray | None], opset: int) -> list[AnyArray]:
    """Run one node on arrays with ONNX's reference implementation of its operator version.

    Raises:
        Exception: Whatever the reference implementation raises where the inputs do not fit.
    """
    import onnx  # noqa: PLC0415 - only models with heads need it
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    feeds: Mapping[str, AnyArray] = {
        cast(str, value.name): array
        for value, array in zip(node.inputs, inputs, strict=True)
        if value is not None and array is not None
    }
    # As a model of one node: a lone node would be run at some newer version of its operator.
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.add(domain=node.domain, version=opset)
    model.graph.name = "one node"
    model.graph.node.append(ir.to_proto(node))
    for name in feeds:
        model.graph.input.add(name=name)
    for output in node.outputs:
        model.graph.output.add(name=output.name or "")
    with np.errstate(all="ignore"):
        return cast("list[AnyArray]", ReferenceEvaluator(model).run(None, dict(feeds)))
