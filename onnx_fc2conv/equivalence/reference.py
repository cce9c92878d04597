"""Running models with ONNX's reference implementation, for what onnxruntime has no kernels for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["ReferenceRunner"]


class ReferenceRunner:
    """A model in NumPy, with the calling convention of an onnxruntime session.

    NumPy does not count bfloat16 among its floating-point types: outputs of it come as float32,
    which holds the same numbers.

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
        return [_widened(np.asarray(output)) for output in outputs]


def _widened(array: AnyArray) -> AnyArray:
    return array.astype(np.float32) if array.dtype == ir.DataType.BFLOAT16.numpy() else array
