"""Which tensors of a model are exact if its weights and inputs are small integers.

Sums and maxima of integers are integers, averages of 2^k of them are multiples of 2^-k. As long as
no partial sum needs more bits than the type has, every order of summation gives the same bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.equivalence.tracing.movement import MOVEMENT
from onnx_fc2conv.equivalence.tracing.structure import constants, with_outputs
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.runtime.start import Provider
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["ROUNDED", "Inexact", "exact_values", "exactly", "magnitudes"]

ROUNDED: Mapping[Provider, float] = {"cpu": 0.0, "cuda": 0.25}
"""How far apart two equal integers may be: cuDNN may transform a convolution, and then computes
with factors that are not integers."""

_SELECTING = MOVEMENT | {
    *("Relu", "MaxPool", "GlobalMaxPool", "Max", "ReduceMax", "Dropout", "Pad", "Abs", "Neg"),
}
_SUMMING = {"Conv", "Gemm", "MatMul", "Add", "Sub", "Sum", "Mul", "PRelu", "ReduceSum"}
_SIZES = {"Shape", "Size"}
_FILLING = {"ConstantOfShape", "Range"}


class Inexact(Exception):  # noqa: N818 - a finding, not an error
    """Numbers are not exact; the message says which and why."""


def exactly(provider: Provider, worst: float | None) -> str:
    """Say how numbers with this worst error are compared."""
    return "to the nearest integer" if worst and ROUNDED[provider] else "bit for bit"


def exact_values(model: ir.Model) -> dict[str, int]:
    """Return k for each tensor of multiples of 2^-k, given integer weights and inputs."""
    fixed = constants(model.graph)
    found: dict[str, int] = {v.name or "": 0 for v in model.graph.inputs}
    for node in model.graph:
        operands = [v for v in node.inputs if v is not None and v not in fixed]
        if node.op_type in _SIZES:
            found.update({v.name or "": 0 for v in node.outputs})
            continue
        if not operands or any(v.name not in found for v in operands):
            continue
        if node.op_type in _SELECTING and not _holds_integers(model, node, fixed):
            continue
        bits = _more_bits(model, node)
        if bits is None:
            continue
        inherited = [found[v.name or ""] for v in operands]
        total = sum(inherited) if node.op_type == "Mul" else max(inherited)
        found.update({v.name or "": total + bits for v in node.outputs})
    return found


def _holds_integers(model: ir.Model, node: ir.Node, fixed: Collection[ir.Value]) -> bool:
    """Whether the node's own constants (joined ones, a fill value) are integers."""
    if node.op_type in _FILLING:
        dtype = node.outputs[0].dtype
        return dtype is not None and dtype.is_integer()
    arrays = (constant_array(model, v) for v in node.inputs if v is not None and v in fixed)
    return all(np.array_equal(a, np.round(a)) for a in arrays if a.dtype.kind == "f")


def _more_bits(model: ir.Model, node: ir.Node) -> int | None:
    """How many more fractional bits the outputs have than the inputs; None if they are inexact."""
    attributes = node.attributes
    match node.op_type:
        case "Gemm":
            factors = (attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0))
            return 0 if factors[0] == 1.0 and factors[1] in (0.0, 1.0) else None
        case "AveragePool":
            count = int(np.prod(attributes.get_ints("kernel_shape", ()) or (3,)))
            pads = any(attributes.get_ints("pads", ()))
            same = attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
            counts_pads = bool(attributes.get_int("count_include_pad", 0))
            if count & (count - 1) or attributes.get_int("ceil_mode", 0):
                return None
            return None if (pads or same) and not counts_pads else count.bit_length() - 1
        case "Clip":
            return 0 if _clips_to_integers(model, node) else None
        case "Cast":
            to = ir.DataType(attributes.get_int("to", 0))
            return 0 if to.is_floating_point() and to != ir.DataType.BFLOAT16 else None
        case op_type:
            return (
                0 if op_type in _SELECTING | _SUMMING and node.domain in ("", "ai.onnx") else None
            )


def _clips_to_integers(model: ir.Model, node: ir.Node) -> bool:
    """Whether both bounds are integers around 0, such as those of a Relu6."""
    fixed = constants(model.graph)
    bounds = [v for v in node.inputs[1:] if v is not None]
    if any(v not in fixed for v in bounds):
        return False
    numbers = [float(constant_array(model, v).reshape(-1)[0]) for v in bounds]
    numbers += [node.attributes[a].as_float() for a in ("min", "max") if a in node.attributes]
    return all(n == round(n) for n in numbers if np.isfinite(n)) and (
        len(numbers) < 2 or numbers[0] <= 0 <= numbers[1]
    )


def magnitudes(
    model: ir.Model, feeds: Mapping[str, AnyArray], names: Sequence[str]
) -> dict[str, float]:
    """Upper bounds of Σ|x||w| of these tensors, over every order of summation.

    The model is run with the magnitudes of its weights on the magnitudes of its inputs; Sub adds,
    Clip lets through. By induction no partial sum of the model itself is larger. Integers, which
    are shapes and positions, stay.
    """
    positive = model.clone()
    fixed = constants(positive.graph)
    for value in list(positive.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point():
            value.const_value = ir.tensor(np.abs(tensor.numpy()), name=value.name)
    for node in list(positive.graph):
        dtype = node.outputs[0].dtype
        if dtype is not None and not dtype.is_floating_point():
            continue
        moving = [v for v in node.inputs if v is not None and v not in fixed]
        if node.op_type == "Sub":
            _replace(positive.graph, node, "Add", [v for v in node.inputs if v is not None])
        elif node.op_type in ("Clip", "PRelu", "Neg") and moving:
            _replace(positive.graph, node, "Identity", moving[:1])
    session = Session(with_outputs(positive, names))
    sizes = {name: np.asarray(np.abs(array)) for name, array in feeds.items()}
    got = session.run(sizes, names)
    return {name: float(array.astype(np.float64).max(initial=0.0)) for name, array in got.items()}


def _replace(graph: ir.Graph, node: ir.Node, op_type: str, inputs: list[ir.Value]) -> None:
    new = ir.node(op_type, inputs)
    graph.insert_before(node, new)
    name = node.outputs[0].name
    node.outputs[0].name = f"{name}.replaced"
    node.outputs[0].replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    new.outputs[0].name = name
    graph.remove(node, safe=True)
