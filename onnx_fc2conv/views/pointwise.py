"""Pointwise layers: a layer is a 1×1 Conv in its own place, whatever its operand is.

    Y[…, k] = Σ_d W[k, d] · X[…, d]

This needs no map: the contracted axis serves as the channels, the first other axis as the samples
and the rest as positions, so that [N, D] is a map [N, D, 1, 1] and tokens [N, T, D] are a map
[N, D, T, 1]. The model gets no size that it did not have. (Gemm-7/9/11/13,
MatMul-1/9/13, Einsum-12 by one matrix, Conv-1/11.)
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnx_fc2conv.graphs.names import NameScope, node_name
from onnx_fc2conv.graphs.shapes import Shapes
from onnx_fc2conv.views.layers.kernel import Kernel, Weight, pointwise_kernel
from onnx_fc2conv.views.layers.layer import as_fc_layer
from onnx_fc2conv.views.maps.constant import Constant, NotComputable
from onnx_fc2conv.views.plan import ConstantTensor, FcLayer, PointwiseLayer
from onnx_fc2conv.views.registry import Fact
from onnx_fc2conv.views.rules.einsum import Letters
from onnx_fc2conv.views.rules.linear import CONV_TYPES, Bias

__all__ = ["PointwiseLayers"]

_FLAT = 4
"""Rank of a map of two spatial axes, which every accelerator has."""


class PointwiseLayers:
    """Decides which layers become pointwise; a weight of several layers becomes one kernel."""

    def __init__(
        self,
        facts: Mapping[ir.Value, Fact],
        shapes: Shapes,
        names: NameScope,
    ) -> None:
        """Start.

        Args:
            facts: What is known of tensors; only a `Constant` is a weight or a bias.
            shapes: Shapes of tensors by name, None for symbolic dims.
            names: Where new names come from.
        """
        self._facts = facts
        self._shapes = shapes
        self._names = names
        self._kernels: dict[tuple[ir.Value, bool, float], Kernel] = {}

    def of(self, node: ir.Node) -> tuple[PointwiseLayer, FcLayer] | str:
        """How the layer becomes a Conv in its own place; why not, if it does not."""
        if node.op_type not in ("Gemm", "MatMul", "Einsum"):
            return f"{node.op_type} is no layer of numbers that a Conv could be in its own place"
        try:
            return self._pointwise(node)
        except NotComputable as error:
            return f"its weight or bias cannot be computed: {error}"

    def _pointwise(self, node: ir.Node) -> tuple[PointwiseLayer, FcLayer] | str:
        facts = [self._constant(value) for value in node.inputs[:2]]
        if len(facts) < 2:
            return "has one operand: no layer"
        position = 0 if facts[0] is None else 1
        constant = facts[1 - position]
        operand, stored = node.inputs[position], node.inputs[1 - position]
        if constant is None or operand is None or stored is None or constant.sized:
            return "multiplies two tensors that both change with the input (attention?), no layer"
        shape = self._shapes.get(operand.name or "")
        if shape is None and node.op_type == "Gemm":
            shape = (None, None)  # it takes nothing else
        if shape is None:
            return f"the rank of its operand {operand.name} is not known"
        if node.op_type == "Einsum" and not _is_by_a_matrix(node, position, len(shape)):
            equation = node.attributes.get_string("equation", "")
            return f"{equation!r} is no product of one axis with a matrix"
        weight = self._weight(node, position, constant, stored)
        if weight.shape is None or 0 in weight.shape:
            return f"its weight has shape {list(constant.shape)}; only a constant matrix is a layer"
        if _type_of(constant) not in CONV_TYPES:
            return f"computes in {_type_of(constant)}, which Conv does not"
        rank, axis = len(shape), _contracted(node, position, len(shape))
        if not rank or shape[axis] not in (None, weight.shape[1]):
            return f"its operand of shape {list(shape)} does not fit {list(constant.shape)}"
        others = [length for n, length in enumerate(shape) if n not in (0, axis)]
        if rank > _FLAT and others[1:].count(None) > 1:
            return f"its operand has {rank} axes, several of them symbolic: no map of two holds it"
        kernel = self._kernel(stored, weight)
        bias, added = self._bias(node, position, weight.shape[0])
        pointwise = PointwiseLayer(
            node=node,
            position=position,
            rank=rank,
            axis=axis,
            out_axis=_counted(node, position, axis, constant),
            leading=max(0, len(constant.shape) - max(2, rank)),
            merged=tuple(others[1:]) if rank > _FLAT else (),
            kernel=kernel.constant,
            bias=bias,
            added=added,
            beta=node.attributes.get_float("beta", 1.0),
        )
        return pointwise, as_fc_layer(node, weight, [kernel])

    def _constant(self, value: ir.Value | None) -> Constant | None:
        fact = None if value is None else self._facts.get(value)
        return fact if isinstance(fact, Constant) else None

    def _weight(self, node: ir.Node, position: int, constant: Constant, stored: ir.Value) -> Weight:
        name = stored.name or node_name(node)
        if node.op_type == "MatMul":
            return Weight(constant, position == 0, 1.0, name)
        if node.op_type == "Einsum":
            letters = _letters(node, position)
            return Weight(constant, letters.weight == letters.summed + letters.kept, 1.0, name)
        flag = node.attributes.get_int("transA" if position else "transB", 0)
        alpha = node.attributes.get_float("alpha", 1.0)
        return Weight(constant, bool(flag) == bool(position), alpha, name)

    def _kernel(self, stored: ir.Value, weight: Weight) -> Kernel:
        key = (stored, weight.transposed, weight.alpha)
        if key not in self._kernels:
            self._kernels[key] = pointwise_kernel(self._names, weight)
        return self._kernels[key]

    def _bias(
        self, node: ir.Node, position: int, outputs: int
    ) -> tuple[ConstantTensor | ir.Value | None, bool]:
        """The Conv's bias, and whether C must be added behind it because it is no bias."""
        value = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        beta = node.attributes.get_float("beta", 1.0)
        if value is None or beta == 0.0:
            return None, False
        constant, name = self._constant(value), value.name or node_name(node)
        if constant is None:
            return None, True
        if beta == 1.0 and constant.tensor is not None and constant.shape == (outputs,):
            return (None, True) if position else (value, False)
        array = Bias(constant, beta, "column" if position else "row", name).per_output(outputs)
        if array is None:
            return None, True
        fresh = self._names.fresh(f"{name}.bias")
        return ConstantTensor(fresh, (outputs,), lambda: ir.Tensor(array.copy())), False


def _letters(node: ir.Node, position: int) -> Letters:
    """Return the letters of an equation with two terms and no ellipsis."""
    equation = node.attributes.get_string("equation", "")
    found = Letters.of(equation, view_first=position == 0)
    assert found is not None
    return found


def _is_by_a_matrix(node: ir.Node, position: int, rank: int) -> bool:
    """Whether an Einsum sums over one axis with a matrix, and the others stay in order."""
    equation = node.attributes.get_string("equation", "")
    letters = Letters.of(equation, view_first=position == 0)
    return (
        letters is not None
        and letters.is_layer
        and len(letters.view) == rank
        and len(letters.summed) == len(letters.kept) == 1
        and letters.output.replace(letters.kept, "") == letters.rest
    )


def _contracted(node: ir.Node, position: int, rank: int) -> int:
    """Return the axis of the operand that the layer contracts."""
    if node.op_type == "MatMul":
        return rank - 1 if position == 0 else max(0, rank - 2)
    if node.op_type == "Einsum":
        letters = _letters(node, position)
        return letters.view.index(letters.summed)
    flag = node.attributes.get_int("transB" if position else "transA", 0)
    return int(bool(flag) == bool(position))


def _counted(node: ir.Node, position: int, axis: int, weight: Constant) -> int | None:
    """The axis of the product that counts the outputs."""
    if node.op_type == "Gemm":
        return 1 - position
    if node.op_type == "Einsum":
        letters = _letters(node, position)
        return letters.output.index(letters.kept)
    return None if len(weight.shape) == 1 else axis


def _type_of(constant: Constant) -> ir.DataType:
    if constant.tensor is not None:
        return constant.tensor.dtype
    return ir.DataType.from_numpy(constant.array.dtype)
