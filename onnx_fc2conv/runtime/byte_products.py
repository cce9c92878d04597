"""Products of 8-bit integers that are exact on every CPU.

A CPU without VNNI multiplies unsigned by signed bytes with ``vpmaddubsw``: it adds two neighboring
products in 16 bits, and the sum saturates. onnxruntime does that in some operators and not in
others, so that a layer and the convolution of the same weights give different numbers there.

Two operands of the same signedness never saturate. So the second operand b takes on the signedness
of the first: b and its zero point z both move by 128, which flips the highest bit of each byte and
leaves every product as it is:

    a · ((b ± 128) - (z ± 128)) = a · (b - z)

The products of a model show only in the graph after onnxruntime's fusions: it fuses, say,
DequantizeLinear → Gemm → QuantizeLinear into QGemm. So that graph is changed, and run as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.runtime.start import Provider, mapped_folder, start
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["PRODUCTS", "Product", "equalize", "has_products", "saturates", "start_exact"]

_HIGHEST_BIT = np.uint8(0x80)
_OTHER = {
    ir.DataType.UINT8: ir.DataType.INT8,
    ir.DataType.INT8: ir.DataType.UINT8,
}
"""The two byte types, each mapped to the other."""


@dataclass(frozen=True)
class Product:
    """Which inputs of an operator are multiplied.

    Attributes:
        first: The first operand; None where the operator makes it, unsigned, of floats.
        first_zero: Its zero point, of the same type.
        second: The second operand: the weight, if there is one.
        second_zero: Its zero point.
    """

    first: int | None
    first_zero: int | None
    second: int
    second_zero: int


_INTEGER = (Product(0, 2, 1, 3),)
_QLINEAR = (Product(0, 2, 3, 5),)

PRODUCTS: Mapping[tuple[str, str], tuple[Product, ...]] = {
    ("", "MatMulInteger"): _INTEGER,
    ("", "ConvInteger"): _INTEGER,
    ("", "QLinearMatMul"): _QLINEAR,
    ("", "QLinearConv"): _QLINEAR,
    ("com.microsoft", "QLinearConv"): _QLINEAR,
    ("com.microsoft", "QGemm"): _QLINEAR,
    ("com.microsoft", "MatMulIntegerToFloat"): (Product(0, 4, 1, 5),),
    ("com.microsoft", "DynamicQuantizeMatMul"): (Product(None, None, 1, 3),),
    ("com.microsoft", "QAttention"): (Product(0, 6, 1, 7),),
    ("com.microsoft", "DynamicQuantizeLSTM"): (
        Product(None, None, 1, 9),
        Product(None, None, 2, 11),
    ),
}
"""The operators that multiply bytes: of ONNX, and of onnxruntime (ContribOperators.md)."""


@cache
def saturates() -> bool:
    """Try once whether this onnxruntime saturates sums of byte products on this CPU."""
    unsigned = np.full((1, 64), 255, np.uint8)
    signed = np.full((64, 1), 127, np.int8)
    x, weight = signed.reshape(1, 64, 1, 1), unsigned.reshape(1, 64, 1, 1)
    return any(
        int(_computed(op_type, *operands).item()) != 64 * 255 * 127
        for op_type, operands in (
            ("MatMulInteger", (unsigned, signed)),
            ("ConvInteger", (x, weight)),
        )
    )


def _computed(op_type: str, one: AnyArray, two: AnyArray) -> AnyArray:
    """Run an operator in onnxruntime on two operands without zero points."""
    operands = {"a": one, "b": two}
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
        for name, array in operands.items()
    ]
    node = ir.node(op_type, inputs)
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.INT32)
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": 10}, name="probe")
    made: AnyArray = start(ir.Model(graph, ir_version=8)).run(["y"], operands)[0]
    return made


def has_products(model: ir.Model) -> bool:
    """Whether onnxruntime may multiply bytes in the model: its own, or those of a DequantizeLinear.

    Dequantized weights alone are no such sign: their products are of floats, unless activations
    are dequantized too.
    """
    return any(
        node.op_identifier()[:2] in PRODUCTS or _dequantizes_activations(node)
        for part in (model.graph, *(function.graph for function in model.functions.values()))
        for node in part.all_nodes()
    )


def _dequantizes_activations(node: ir.Node) -> bool:
    value = _input(node, 0)
    return (
        node.op_type == "DequantizeLinear"
        and value is not None
        and ir.convenience.get_const_tensor(value) is None
    )


def start_exact(model: ir.Model, provider: Provider) -> tuple[Any, tuple[str, ...]]:
    """Start onnxruntime on a model whose products of bytes are exact.

    On a GPU, where onnxruntime fuses no such products, those of the model itself are changed: the
    operators that GPUs lack run on the CPU.

    Returns:
        The session, and the types of the operators that would have saturated.

    Raises:
        Exception: Whatever onnxruntime raises where it does not load the model.
    """
    if not has_products(model) or not saturates():
        return start(model, provider), ()
    if provider != "cpu":
        exact = model.clone()
        changed = equalize(exact)
        return start(exact, provider), changed
    with mapped_folder() as folder:
        file = folder / "fused.onnx"
        session = start(model, optimized=file)
        exact = ir.load(file)
        changed = equalize(exact)
        return (start(exact, optimization="none") if changed else session), changed


def equalize(model: ir.Model) -> tuple[str, ...]:
    """Give the second operand of every product of bytes the signedness of the first, in place.

    Returns:
        The types of the operators whose operands differed: their sums might have saturated.
    """
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    flips = _Flips(model.graph)
    found: list[str] = []
    for node in list(model.graph.all_nodes()):
        for product in PRODUCTS.get(node.op_identifier()[:2], ()):
            one: ir.DataType | None = ir.DataType.UINT8
            if product.first is not None:
                one = _type(node, product.first, product.first_zero)
            two = _type(node, product.second, product.second_zero)
            if one is not None and two is not None and two == _OTHER.get(one):
                flips.apply(node, product, one)
                found.append(node.op_type)
    return tuple(found)


def _type(node: ir.Node, operand: int, zero: int | None) -> ir.DataType | None:
    """Return the type of an operand, from itself or its zero point; None if it is unknown."""
    values = (_input(node, operand), None if zero is None else _input(node, zero))
    return next((v.dtype for v in values if v is not None and v.dtype is not None), None)


def _input(node: ir.Node, position: int) -> ir.Value | None:
    return node.inputs[position] if position < len(node.inputs) else None


class _Flips:
    """Operands and zero points, each moved by 128 into the other type of bytes."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[ir.Value, ir.Value] = {}
        self._names = {value.name for node in graph.all_nodes() for value in node.outputs}
        self._names |= {value.name for value in graph.inputs} | set(graph.initializers)

    def apply(self, node: ir.Node, product: Product, dtype: ir.DataType) -> None:
        """Let a node read its second operand as ``dtype``, the type of the first."""
        zero = _input(node, product.second_zero)
        if zero is None:
            zero = self._stored(np.zeros((), _OTHER[dtype].numpy()))
            node.resize_inputs(max(len(node.inputs), product.second_zero + 1))
        for position, value in (
            (product.second, node.inputs[product.second]),
            (product.second_zero, zero),
        ):
            assert value is not None
            node.replace_input_with(position, self._flipped(value, node, dtype))

    def _flipped(self, value: ir.Value, node: ir.Node, dtype: ir.DataType) -> ir.Value:
        """Return the value moved into ``dtype``, for a node to read."""
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None:
            return self._computed(value, node, dtype)
        if value not in self._made:
            array = tensor.numpy().view(np.uint8) ^ _HIGHEST_BIT
            self._made[value] = self._stored(array.view(dtype.numpy()))
        return self._made[value]

    def _computed(self, value: ir.Value, node: ir.Node, dtype: ir.DataType) -> ir.Value:
        """Move a computed value by nodes inserted before the node that reads it."""
        offset = self._stored(np.array(128 if dtype == ir.DataType.UINT8 else -128, np.int32))
        wide = ir.node("Cast", [value], {"to": ir.DataType.INT32})
        moved = ir.node("Add", [wide.outputs[0], offset])
        narrow = ir.node("Cast", [moved.outputs[0]], {"to": dtype})
        node.prepend([wide, moved, narrow])
        return narrow.outputs[0]

    def _stored(self, array: AnyArray) -> ir.Value:
        """A constant of the graph, which its bodies see too."""
        name = next(n for n in map("bytes_{}".format, count()) if n not in self._names)
        self._names.add(name)
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value
