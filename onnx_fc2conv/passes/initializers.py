"""New initializers of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.graphs.names import NameScope
from onnx_fc2conv.views.plan import Constant

__all__ = ["Initializers"]


class Initializers:
    """Makes each constant an initializer of the graph once, by its name."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        # IR version 3 wants every initializer listed as an input.
        self._lists = (model.ir_version or 10) < 4
        self._made: dict[str, ir.Value] = {}
        self._integers: dict[tuple[int, ...], ir.Value] = {}

    def __call__(self, constant: Constant) -> ir.Value:
        """The initializer that holds the constant."""
        if constant.name not in self._made:
            tensor = constant.make()
            tensor.name = constant.name
            value = ir.val(
                constant.name,
                dtype=tensor.dtype,
                shape=ir.Shape(constant.shape),
                const_value=tensor,
            )
            self._graph.register_initializer(value)
            if self._lists:
                self._graph.inputs.append(value)
            self._made[constant.name] = value
        return self._made[constant.name]

    def fresh(self, name: str) -> str:
        """The name, with a number behind it if the graph has it."""
        return NameScope.of(self._graph).fresh(name)

    def integers(self, values: Sequence[int]) -> ir.Value:
        """A list of integers, such as axes; one initializer for all lists that are alike."""
        key = tuple(values)
        if key not in self._integers:
            array = np.array(key, np.int64)
            name = self.fresh(f"fc2conv.integers{len(self._integers)}")
            self._integers[key] = self(Constant(name, array.shape, lambda: ir.Tensor(array)))
        return self._integers[key]
