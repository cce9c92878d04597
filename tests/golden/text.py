"""A model as text that is the same on every machine: its graph, and what each initializer holds.

`onnx_ir.to_onnx_text` leaves the printing to the installed onnx, whose form changes from version to
version; and without the weights it would not show a kernel that was permuted wrongly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnx_fc2conv import Conversion
from onnx_fc2conv.graphs.names import ORIGIN
from tests.nets import Array

_SHOWN = 16
"""Elements of a tensor of integers that are written out."""


def conversion_text(conversion: Conversion, source: ir.Model) -> list[str]:
    """What was decided about the source, and the converted model."""
    lines = [
        f"layer {head.op_type} {head.node}: {head.weight} {list(head.weight_shape)} -> "
        f"{head.kernel} {list(head.kernel_shape)} {head.bytes_kept}, parts: {head.parts}"
        for head in conversion.heads
    ]
    lines += [f"left alone {left.node}: {left.reason}" for left in conversion.left_alone]
    lines += [f"refused {refusal}" for refusal in conversion.refusals]
    lines += [str(pooling) for pooling in conversion.poolings]
    for name, geometry in conversion.geometry.items():
        lines.append(f"geometry of {name}")
        lines += [f"  {key}: {value}" for key, value in vars(geometry).items() if value]
    return lines if conversion.model is None else [*lines, *graph_text(conversion.model, source)]


def graph_text(model: ir.Model, source: ir.Model) -> Iterator[str]:
    """Interface, initializers by name, and nodes in order; ``source`` is the model before."""
    yield from ("", f"opset {dict(sorted(model.graph.opset_imports.items()))}")
    yield from (f"input {_typed(value)}" for value in model.graph.inputs)
    before = _elements_by_type(source)
    for name, value in sorted(model.graph.initializers.items()):
        assert value.const_value is not None
        array = value.const_value.numpy()
        yield f"stored {name} {array.dtype} {list(array.shape)} {_contents(array, before)}"
    names = _Names()
    yield from (_node(node, names) for node in model.graph)
    yield from (f"output {_typed(value)}" for value in model.graph.outputs)


class _Names(dict[str, str]):
    """Names of tensors; those that onnx_ir numbered are numbered in the order of the text."""

    def __missing__(self, name: str) -> str:
        numbered = sum(other.startswith("%") for other in self.values())
        self[name] = f"%{numbered}" if re.fullmatch(r"val_\d+", name) else name
        return self[name]

    def of(self, value: ir.Value | None) -> str:
        return "-" if value is None else self[value.name or ""]


def _elements_by_type(model: ir.Model) -> dict[str, Array]:
    """The elements of all constants of a model, those of each type together, and 0."""
    found: dict[str, list[Array]] = {}
    constants = [value.const_value for value in model.graph.initializers.values()]
    constants += [
        node.attributes["value"].as_tensor() for node in model.graph if node.op_type == "Constant"
    ]
    for tensor in constants:
        assert tensor is not None
        found.setdefault(str(tensor.numpy().dtype), []).append(tensor.numpy().reshape(-1))
    return {dtype: np.concatenate([*arrays, [0]]) for dtype, arrays in found.items()}


def _contents(array: Array, before: Mapping[str, Array]) -> str:
    """A digest of integers and of floats that were moved: what was computed may round otherwise."""
    is_float = array.dtype.kind == "f"
    if not is_float and array.size <= _SHOWN:
        return f"= {array.tolist()}"
    if is_float and not np.isin(array, before.get(str(array.dtype), [0])).all():
        moment = np.average(array.reshape(-1), weights=np.arange(1, array.size + 1))
        return f"computed, first moment {moment:.3g}"
    little = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()[:12]


def _typed(value: ir.Value) -> str:
    shape = "?" if value.shape is None else f"[{', '.join(map(_dim, value.shape))}]"
    return f"{value.name} {value.dtype} {shape}"


def _dim(dim: int | ir.SymbolicDim) -> str:
    name = str(dim) if isinstance(dim, int) else dim.value or "?"
    return "?" if name.startswith("unk__") else name  # as shape inference numbers them


def _node(node: ir.Node, names: _Names) -> str:
    """As in ``y FLOAT = Conv<pads=(1, 1)>(x, w) name  # Gemm fc``: last, what it stands for."""
    made = ", ".join(
        names.of(value) + (f" {value.dtype}" if value.dtype else "") for value in node.outputs
    )
    listed = ", ".join(f"{name}={_value(a, names)}" for name, a in sorted(node.attributes.items()))
    operator = f"{node.domain}.{node.op_type}".lstrip(".") + (f"<{listed}>" if listed else "")
    inputs = ", ".join(map(names.of, node.inputs))
    own = "" if re.fullmatch(r"node_\w+_\d+", node.name or "") else f" {node.name}"
    origin = node.metadata_props.get(ORIGIN)
    return f"{made} = {operator}({inputs}){own}" + (f"  # {origin}" if origin else "")


def _value(attribute: ir.Attr, names: _Names) -> str:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return str(attribute.as_tensor().numpy().tolist())
        case ir.AttributeType.FLOAT:
            return f"{attribute.as_float():.6g}"
        case ir.AttributeType.GRAPH:
            inner = attribute.as_graph()
            return "{" + "; ".join(_node(node, names) for node in inner) + "}"
        case _:
            return str(attribute.value)
