"""MatMul → Conv, Add of a constant → the Conv's bias: one layer, one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.maps.view import FeatureMap
from onnx_fc2conv.views.plan import ConstantTensor, Intermediate, Step

__all__ = ["fold_biases"]


def fold_biases(steps: tuple[Step, ...], outputs: Iterable[FeatureMap]) -> tuple[Step, ...]:
    """Merge each Add of one constant per channel into the Conv without bias whose map it reads.

    A Conv that has a bias, a map with other readers or that is an output, and other shapes of
    constants are left alone.
    """
    readers = Counter(
        operand for step in steps for operand in step.inputs if isinstance(operand, FeatureMap)
    )
    readers.update(outputs)
    convs = {
        step.output: step for step in steps if step.op_type == "Conv" and len(step.inputs) == 2
    }
    merged: dict[Step, Step | None] = {}
    for step in steps:
        if step.op_type != "Add":
            continue
        for summand, other in (step.inputs, tuple(reversed(step.inputs))):
            if not isinstance(summand, FeatureMap) or readers[summand] != 1:
                continue
            conv = convs.get(summand)
            bias = None if conv is None else _as_bias(other, summand)
            if conv is None or bias is None:
                continue
            merged[conv] = None
            merged[step] = replace(conv, inputs=(*conv.inputs, bias), output=step.output)
            break
    folded = (merged.get(step, step) for step in steps)
    return tuple(step for step in folded if step is not None)


def _as_bias(
    operand: FeatureMap | Intermediate | ConstantTensor | ir.Value | None, output: FeatureMap
) -> ConstantTensor | ir.Value | None:
    """The constant [C, 1, …] as a bias [C]; None if it is no such constant."""
    channels = output.channels
    if not isinstance(operand, ConstantTensor) or operand.shape != (
        channels,
        *[1] * len(output.extent),
    ):
        return None
    if operand.original is not None and operand.original.shape == ir.Shape([channels]):
        return operand.original
    constant = operand

    def make() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(constant.make().numpy().reshape(channels)))

    return replace(constant, shape=(channels,), make=make, original=None)
