"""Running models that onnxruntime has no kernels for, with ONNX's reference implementation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["ReferenceRunner", "hands_over_bfloat16", "rare_types"]

_RARE = frozenset({ir.DataType.DOUBLE, ir.DataType.BFLOAT16})


class ReferenceRunner:
    """A model in NumPy, with the calling convention of an onnxruntime session.

    Raises:
        InvalidModelError: If an operator, or this version of it, is not implemented.
    """

    def __init__(self, model: ir.Model) -> None:
        try:
            self._evaluator = ReferenceEvaluator(ir.to_proto(model))
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise InvalidModelError(
                f"ONNX's reference implementation does not load the model: {text}"
            ) from error

    def run(self, names: Sequence[str], feeds: Mapping[str, AnyArray]) -> list[AnyArray]:
        """Outputs in the order of their names."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = self._evaluator.run(list(names), dict(feeds))
        return [np.asarray(output) for output in outputs]


def rare_types(model: ir.Model) -> frozenset[ir.DataType]:
    """The floating-point types of the model for which onnxruntime has few kernels."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values.extend(value for node in model.graph for value in node.outputs)
    return frozenset(v.dtype for v in values if v.dtype is not None) & _RARE


def hands_over_bfloat16(model: ir.Model) -> bool:
    """Whether the model has an input or output of bfloat16, which NumPy lacks."""
    graph = model.graph
    return any(value.dtype == ir.DataType.BFLOAT16 for value in (*graph.inputs, *graph.outputs))
