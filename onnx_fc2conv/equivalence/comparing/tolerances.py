"""The tolerance of each output: the user's, else the default of the type computed in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import Tolerance
from onnx_fc2conv.equivalence.tracing.structure import computing_type
from onnx_fc2conv.errors import ArgumentError

__all__ = ["Bounds", "tolerances_of"]

Bounds = float | Mapping[str, float] | None
"""A number for all outputs, or numbers by output; ``"*"`` stands for the others."""


def tolerances_of(reference: ir.Model, rtol: Bounds, atol: Bounds) -> dict[str, Tolerance]:
    """Return the tolerance of each output.

    Raises:
        ArgumentError: If one is given for a name that is not an output.
    """
    dtype = computing_type(reference)
    known = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
    computed_in = np.dtype(dtype.numpy()) if dtype is not None and dtype in known else None
    outputs = [value.name or "" for value in reference.graph.outputs]
    for option, given in (("rtol", rtol), ("atol", atol)):
        for name in given if isinstance(given, Mapping) else ():
            if name not in (*outputs, "*"):
                raise ArgumentError(
                    f"{option} names {name!r}, but the model's outputs are: {', '.join(outputs)}"
                )
    return {
        name: Tolerance(_bound(rtol, name), _bound(atol, name), computed_in) for name in outputs
    }


def _bound(given: Bounds, name: str) -> float | None:
    return given.get(name, given.get("*")) if isinstance(given, Mapping) else given
