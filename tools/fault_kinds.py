"""Kinds of fault that tools/mutations.py plants into right conversions.

`KINDS` maps a name to a `Kind`, whose plant changes a model in place at a place that is drawn at
random; it returns False where the model has no such place. What the tests plant at places of their
own choice stands in `tests/equivalence/planting.py`, from which the tools for it come.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # faults are planted as the tests plant theirs

from tests.equivalence.planting import (  # noqa: E402
    Array,
    append,
    as_double,
    attribute,
    bypass,
    constant_of,
    replace_constant,
)

Rng = random.Random
Plant = Callable[[ir.Model, Rng], bool]
Edit = Callable[[Array, Rng], Array | None]

ORIGIN = "fc2conv.origin"
GEOMETRY = "fc2conv.geometry"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        plant: Changes a model; False if there is nothing to change.
        louder: Changes the same place by so much that a run shows it, if the place matters at all;
            for faults that may be smaller than a rounding.
        of_metadata: Whether only what the metadata says changes: the numbers stay.
        of_nan: Whether only images with a NaN can show it.
    """

    plant: Plant
    louder: Plant | None = None
    of_metadata: bool = False
    of_nan: bool = False


KINDS: dict[str, Kind] = {}


# Weights and biases

WEIGHTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "QLinearConv": (3, 8), "ConvInteger": (1, None)}
WEIGHTS |= {"Gemm": (1, 2), "MatMul": (1, None)}
"""The positions of weight and bias."""


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _slots(model: ir.Model, part: str, *, bias: bool) -> Iterator[tuple[ir.Node, int]]:
    """Where the weights, or biases, of the converted layers or of the trunk come in."""
    for node in model.graph:
        position = WEIGHTS.get(node.op_type, (None, None))[bias]
        if position is None or position >= len(node.inputs):
            continue
        if (ORIGIN in node.metadata_props) != (part == "layer"):
            continue
        value = node.inputs[position]
        producer = None if value is None else value.producer()
        if _is_constant(value):
            yield node, position
        elif producer is not None and producer.op_type == "DequantizeLinear":
            yield from ((producer, 0) for value in producer.inputs[:1] if _is_constant(value))


def _in_constant(find: Callable[[ir.Model], Iterator[tuple[ir.Node, int]]], edit: Edit) -> Plant:
    """Edit one of the constants that are found."""

    def plant(model: ir.Model, rng: Rng) -> bool:
        places = list(find(model))
        if not places:
            return False
        node, position = rng.choice(places)
        before = constant_of(node, position)
        after = edit(before.copy(), rng) if before.size else None
        if after is None or np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            return False
        replace_constant(node, position, after.astype(before.dtype).reshape(before.shape))
        return True

    return plant


def _at_one(change: Callable[[Any], Any]) -> Edit:
    """Change one element that is not zero."""

    def edit(array: Array, rng: Rng) -> Array | None:
        flat = array.reshape(-1)
        places = np.flatnonzero(flat)
        if not len(places):
            return None
        place = places[rng.randrange(len(places))]
        with np.errstate(all="ignore"):
            value = change(flat[place])
        if flat.dtype.kind in "iu":
            bounds = np.iinfo(flat.dtype)
            value = min(max(int(value), bounds.min), bounds.max)
        flat[place] = value
        return flat

    return edit


def _floats(change: Callable[[Array], Array]) -> Edit:
    return lambda array, _: change(array) if array.dtype.kind == "f" else None


def _of_floats(edit: Edit) -> Edit:
    return lambda array, rng: edit(array, rng) if array.dtype.kind == "f" else None


def _from_rank(rank: int, change: Callable[[Array], Array]) -> Edit:
    def edit(array: Array, _: Rng) -> Array | None:
        if array.ndim < rank:
            return None
        changed = change(array)
        return changed if changed.shape == array.shape else None

    return edit


def _next(towards: float) -> Callable[[Any], Any]:
    def change(value: Any) -> Any:
        if value.dtype.kind != "f":
            return value + np.sign(towards).astype(int)
        return np.nextafter(value, value.dtype.type(towards))

    return change


def _two_exchanged(array: Array, rng: Rng) -> Array | None:
    flat = array.reshape(-1)
    one, two = rng.randrange(flat.size), rng.randrange(flat.size)
    flat[[one, two]] = flat[[two, one]]
    return flat


def _earlier_checkpoint(array: Array, rng: Rng) -> Array | None:
    noise = np.random.default_rng(rng.randrange(2**31)).standard_normal(array.shape)
    return array + 0.01 * array.std() * noise if array.dtype.kind == "f" else None


def _one_output(change: Callable[[Array, int], None]) -> Edit:
    def edit(array: Array, rng: Rng) -> Array:
        change(array, rng.randrange(len(array)))
        return array

    return edit


def _copied(array: Array, at: int) -> None:
    array[at] = array[at - 1]


def _zeroed(array: Array, at: int) -> None:
    array[at] = 0


def _grown(array: Array, at: int) -> None:
    array[at] = array[at] * 1.01 if array.dtype.kind == "f" else array[at] // 2


def _bfloat16(array: Array) -> Array:
    bits = array.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def _eight_bits(array: Array) -> Array:
    step = np.abs(array).max() / 127
    return np.round(array / step) * step


LOUD = _at_one(lambda v: v * 3 + 1 if v.dtype.kind == "f" else int(v) + 60 * (-1 if v > 0 else 1))
TINY: dict[str, Edit] = {
    "one an ulp more": _at_one(_next(np.inf)),
    "one an ulp less": _at_one(_next(-np.inf)),
    "one 0.1 % more": _at_one(lambda v: v * 1.001),
    "one 1 % more": _at_one(lambda v: v * 1.01),
}
EDITS: dict[str, Edit] = {
    "one NaN": _of_floats(_at_one(lambda _: np.nan)),
    "one Inf": _of_floats(_at_one(lambda _: np.inf)),
    "one negated": _at_one(lambda v: -v if v.dtype.kind == "f" else -int(v)),
    "one zero": _at_one(lambda _: 0),
    "two exchanged": _two_exchanged,
    "all negated": _floats(lambda a: -a),
    "all zero": lambda a, _: np.zeros_like(a),
    "in float16": _floats(lambda a: a.astype(np.float16)),
    "in bfloat16": _floats(_bfloat16),
    "in 8 bits": _floats(_eight_bits),
    "doubled": _floats(lambda a: a * 2),
    "of an earlier checkpoint": _earlier_checkpoint,
    "outputs turned": lambda a, _: np.roll(a, 1, 0),
    "outputs reversed": lambda a, _: a[::-1],
    "one output a copy of another": _one_output(_copied),
    "one output zero": _one_output(_zeroed),
    "one output 1 % more": _one_output(_grown),
}
KERNEL_EDITS: dict[str, Edit] = {
    "channels turned": _from_rank(2, lambda a: np.roll(a, 1, 1)),
    "channels reversed": _from_rank(2, lambda a: a[:, ::-1]),
    "one channel zero": _from_rank(2, lambda a: np.where(_index(a, 1) == 0, 0, a)),
    "rows for columns": _from_rank(4, lambda a: a.swapaxes(-1, -2)),
    "mirrored left to right": _from_rank(3, lambda a: a[..., ::-1]),
    "mirrored top to bottom": _from_rank(4, lambda a: a[..., ::-1, :]),
    "turned by half": _from_rank(4, lambda a: a[..., ::-1, ::-1]),
    "turned by a quarter": _from_rank(4, lambda a: np.rot90(a, axes=(-2, -1))),
    "shifted by a column": _from_rank(3, lambda a: np.roll(a, 1, -1)),
    "shifted by a row": _from_rank(4, lambda a: np.roll(a, 1, -2)),
    "last column zero": _from_rank(3, lambda a: np.where(_index(a, -1) == a.shape[-1] - 1, 0, a)),
    "flattened channels last": _from_rank(
        3, lambda a: np.moveaxis(a.reshape(len(a), *a.shape[2:], a.shape[1]), -1, 1)
    ),
    "stored as columns": _from_rank(
        2, lambda a: a.reshape(len(a), -1).reshape(-1, len(a)).T.reshape(a.shape)
    ),
    "inputs for outputs": _from_rank(2, lambda a: a.swapaxes(0, 1)),
}


def _index(array: Array, axis: int) -> Array:
    return np.indices(array.shape)[axis]


def _finder(part: str, *, bias: bool) -> Callable[[ir.Model], Iterator[tuple[ir.Node, int]]]:
    return lambda model: _slots(model, part, bias=bias)


for part in ("layer", "trunk"):
    for what, bias, edits in (("kernel", False, {**EDITS, **KERNEL_EDITS}), ("bias", True, EDITS)):
        find = _finder(part, bias=bias)
        for label, edit in TINY.items():
            KINDS[f"{part} {what}: {label}"] = Kind(
                _in_constant(find, edit), louder=_in_constant(find, LOUD)
            )
        for label, edit in edits.items():
            KINDS[f"{part} {what}: {label}"] = Kind(_in_constant(find, edit))


def _bias_missing(part: str) -> Plant:
    def plant(model: ir.Model, rng: Rng) -> bool:
        places = [(n, p) for n, p in _slots(model, part, bias=True) if n.op_type == "Conv"]
        if not places:
            return False
        node, position = rng.choice(places)
        node.replace_input_with(position, None)
        return True

    return plant


KINDS["layer bias: missing"] = Kind(_bias_missing("layer"))
KINDS["trunk bias: missing"] = Kind(_bias_missing("trunk"))


# Other constants


def _operands(
    op_types: Sequence[str], positions: Sequence[int], kinds: str = "f"
) -> Callable[[ir.Model], Iterator[tuple[ir.Node, int]]]:
    def find(model: ir.Model) -> Iterator[tuple[ir.Node, int]]:
        for node in model.graph:
            for position in positions:
                if node.op_type in op_types and position < len(node.inputs):
                    value = node.inputs[position]
                    if _is_constant(value) and constant_of(node, position).dtype.kind in kinds:
                        yield node, position

    return find


ARITHMETIC = ("Add", "Sub", "Mul", "Div", "PRelu", "Pow", "Max", "Min")
CONSTANTS: dict[str, tuple[Sequence[str], Sequence[int], str, Edit]] = {
    "operand 1 % more": (ARITHMETIC, (0, 1), "f", _at_one(lambda v: v * 1.01)),
    "operands permuted": (ARITHMETIC, (0, 1), "f", lambda a, _: a.reshape(-1)[::-1]),
    "scale of a norm": (
        ("BatchNormalization", "LayerNormalization", "InstanceNormalization"),
        (1,),
        "f",
        _at_one(lambda v: v * 1.01),
    ),
    "shift of a norm": (
        ("BatchNormalization", "LayerNormalization", "InstanceNormalization"),
        (2,),
        "f",
        _at_one(lambda v: v * 1.02),
    ),
    "mean of a norm": (("BatchNormalization",), (3,), "f", _at_one(lambda v: v * 1.02)),
    "variance of a norm": (("BatchNormalization",), (4,), "f", _at_one(lambda v: v * 1.02)),
    "bound of a Clip": (("Clip",), (1, 2), "f", lambda a, _: a * 0.5 + 0.1),
    "scale of quantized numbers": (
        ("QuantizeLinear", "DequantizeLinear", "QLinearConv"),
        (1, 4, 6),
        "f",
        _at_one(lambda v: v * 1.05),
    ),
    "zero point": (
        ("QuantizeLinear", "DequantizeLinear", "QLinearConv"),
        (2, 7),
        "iu",
        lambda a, _: a.astype(np.int64) + 1,
    ),
    "order of a Gather": (("Gather",), (1,), "iu", lambda a, _: a.reshape(-1)[::-1]),
    "start of a Slice": (("Slice",), (1,), "iu", lambda a, _: a + 1),
    "amount of a Pad": (("Pad",), (1,), "iu", lambda a, _: np.roll(a, 1)),
    "value of a Pad": (("Pad",), (2,), "f", lambda a, _: a + 1),
    "axes of a reduction": (
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"),
        (1,),
        "iu",
        lambda a, _: a - 1,
    ),
}
for label, (op_types, positions, kinds, edit) in CONSTANTS.items():
    KINDS[f"constant: {label}"] = Kind(_in_constant(_operands(op_types, positions, kinds), edit))


# Attributes

SLIDING = ("Conv", "QLinearConv", "MaxPool", "AveragePool")
CONVS, POOLS = ("Conv", "QLinearConv"), ("MaxPool", "AveragePool")


def _set(op_types: Sequence[str], change: Callable[[ir.Node], dict[str, Any] | None]) -> Plant:
    """Set attributes of some node of these types."""

    def plant(model: ir.Model, rng: Rng) -> bool:
        nodes = [node for node in model.graph if node.op_type in op_types]
        rng.shuffle(nodes)
        for node in nodes:
            values = change(node)
            if values is not None:
                attribute(lambda _, node=node: node, **values)(model)
                return True
        return False

    return plant


def _get(node: ir.Node, name: str, default: Any = None) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _rank(node: ir.Node) -> int:
    kernel = _get(node, "kernel_shape")
    if kernel is not None:
        return len(kernel)
    value = node.inputs[WEIGHTS.get(node.op_type, (1, 2))[0]]
    assert value is not None
    assert value.shape is not None
    return len(value.shape) - 2


def _of(part: str, change: Callable[[ir.Node, int], dict[str, Any] | None]) -> Any:
    """Only nodes of converted layers, or of the trunk."""

    def apply(node: ir.Node) -> dict[str, Any] | None:
        if (ORIGIN in node.metadata_props) != (part == "layer"):
            return None
        return change(node, _rank(node))

    return apply


def _pads(*offsets: int) -> Callable[[ir.Node, int], dict[str, Any]]:
    """More pads: before and behind, on the last axis."""

    def change(node: ir.Node, rank: int) -> dict[str, Any]:
        pads = list(_get(node, "pads", [0] * 2 * rank))
        pads[rank - 1] += offsets[0]
        pads[-1] += offsets[1]
        return {"pads": pads, "auto_pad": None}

    return change


def _pads_moved(node: ir.Node, rank: int) -> dict[str, Any] | None:
    pads = list(_get(node, "pads", ()))
    if not any(pads):
        return None
    return {"pads": [p + 1 for p in pads[:rank]] + [max(0, p - 1) for p in pads[rank:]]}


def _pads_dropped(node: ir.Node, _: int) -> dict[str, Any] | None:
    return {"pads": None} if any(_get(node, "pads", ())) else None


def _strides(node: ir.Node, rank: int) -> dict[str, Any]:
    strides = list(_get(node, "strides", [1] * rank))
    return {"strides": [1 if n > 1 else 2 for n in strides]}


def _one_stride(node: ir.Node, rank: int) -> dict[str, Any]:
    strides = list(_get(node, "strides", [1] * rank))
    return {"strides": [*strides[:-1], 1 if strides[-1] > 1 else 2]}


def _dilated(node: ir.Node, rank: int) -> dict[str, Any]:
    return {"dilations": [1 if n > 1 else 2 for n in _get(node, "dilations", [1] * rank)]}


def _same(node: ir.Node, _: int) -> dict[str, Any] | None:
    if not any(n > 1 for n in _get(node, "strides", ())):
        return None
    return {"pads": None, "auto_pad": "SAME_UPPER"}


for part in ("layer", "trunk"):
    for label, change in {
        "a pad at the begin": _pads(1, 0),
        "a pad at the end": _pads(0, 1),
        "pads all around": _pads(1, 1),
        "pads moved": _pads_moved,
        "pads dropped": _pads_dropped,
        "strides": _strides,
        "stride along one axis": _one_stride,
        "dilations": _dilated,
        "SAME in place of pads": _same,
    }.items():
        if part == "trunk" or change not in (_pads_moved, _pads_dropped, _same):
            types = CONVS if part == "layer" else SLIDING
            KINDS[f"{part} attribute: {label}"] = Kind(_set(types, _of(part, change)))


def _grouped(model: ir.Model, rng: Rng) -> bool:
    """Two groups, each of which reads half of the channels."""
    places = [
        (node, position)
        for node, position in _slots(model, "trunk", bias=False)
        if node.op_type == "Conv" and _get(node, "group", 1) == 1
        if not any(n % 2 for n in constant_of(node, position).shape[:2])
    ]
    if not places:
        return False
    node, position = rng.choice(places)
    kernel = constant_of(node, position)
    replace_constant(node, position, kernel[:, : kernel.shape[1] // 2].copy())
    attribute(lambda _: node, group=2)(model)
    return True


KINDS["trunk attribute: group"] = Kind(_grouped)


def _factor(name: str, default: float, factor: float) -> Callable[[ir.Node], dict[str, Any]]:
    return lambda node: {name: _get(node, name, default) * factor}


def _flip(name: str, default: int = 0) -> Callable[[ir.Node], dict[str, Any]]:
    return lambda node: {name: 1 - _get(node, name, default)}


def _larger_pool(node: ir.Node) -> dict[str, Any]:
    return {"kernel_shape": [n + 1 for n in _get(node, "kernel_shape")]}


def _other_perm(node: ir.Node) -> dict[str, Any]:
    perm = list(_get(node, "perm"))
    return {"perm": [perm[0], *perm[2:], perm[1]]}


def _other_mode(node: ir.Node) -> dict[str, Any]:
    return {"mode": "CRD" if _get(node, "mode", "DCR") == "DCR" else "DCR"}


def _other_pad(mode: str) -> Callable[[ir.Node], dict[str, Any] | None]:
    return lambda node: {"mode": mode} if _get(node, "mode", "constant") == "constant" else None


NORMS = ("BatchNormalization", "LayerNormalization", "InstanceNormalization")
for label, (op_types, change_node) in {
    "epsilon of a norm": (NORMS, _factor("epsilon", 1e-5, 30)),
    "slope": (("LeakyRelu",), _factor("alpha", 0.01, 1.1)),
    "alpha of Elu": (("Elu",), _factor("alpha", 1.0, 1.1)),
    "alpha of HardSigmoid": (("HardSigmoid",), _factor("alpha", 0.2, 1.05)),
    "ceil_mode": (POOLS, _flip("ceil_mode")),
    "count_include_pad": (("AveragePool",), _flip("count_include_pad")),
    "kernel of a pooling": (POOLS, _larger_pool),
    "keepdims": (
        ("ArgMax", "ArgMin", "ReduceMean", "ReduceMax", "ReduceSum"),
        _flip("keepdims", 1),
    ),
    "axis of a softmax": (("Softmax", "LogSoftmax"), lambda n: {"axis": _get(n, "axis", 1) - 1}),
    "axis of ArgMax": (("ArgMax", "ArgMin"), lambda n: {"axis": _get(n, "axis", 0) + 1}),
    "last of several largest": (("ArgMax", "ArgMin"), _flip("select_last_index")),
    "largest of TopK": (("TopK",), _flip("largest", 1)),
    "perm": (("Transpose",), _other_perm),
    "mode of DepthToSpace": (("DepthToSpace",), _other_mode),
    "reflecting Pad": (("Pad",), _other_pad("reflect")),
    "Pad by the edge": (("Pad",), _other_pad("edge")),
    "axis of a Concat": (("Concat",), lambda n: {"axis": _get(n, "axis") + 1}),
}.items():
    KINDS[f"attribute: {label}"] = Kind(_set(op_types, change_node))


# Operators


def _become(op_type: str, other: str, **attributes: Any) -> Plant:
    """Another operator in the place of some node of a type; its own attributes go if given None."""

    def plant(model: ir.Model, rng: Rng) -> bool:
        nodes = [node for node in model.graph if node.op_type == op_type]
        if not nodes:
            return False
        node = rng.choice(nodes)
        node.op_type = other
        attribute(lambda _: node, **attributes)(model)
        return True

    return plant


def _dropped(*op_types: str) -> Plant:
    def plant(model: ir.Model, rng: Rng) -> bool:
        nodes = [node for node in model.graph if node.op_type in op_types]
        if not nodes:
            return False
        node = rng.choice(nodes)
        source = node.inputs[0]
        if source is None or (node.outputs[0].is_graph_output() and source.is_graph_input()):
            return False
        bypass(lambda _: node)(model)
        return True

    return plant


ACTIVATIONS = ("Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid", "HardSigmoid", "Softplus", "Softsign")
KINDS["operator: an activation dropped"] = Kind(_dropped(*ACTIVATIONS))
KINDS["operator: a norm dropped"] = Kind(_dropped(*NORMS))
KINDS["operator: a softmax dropped"] = Kind(_dropped("Softmax", "LogSoftmax"))
KINDS["operator: a Clip dropped"] = Kind(_dropped("Clip"))
for one, other, values in (
    ("Relu", "LeakyRelu", {}),
    ("Relu", "Elu", {}),
    ("Relu", "Abs", {}),
    ("Relu", "Softplus", {}),
    ("LeakyRelu", "Relu", {"alpha": None}),
    ("Tanh", "Softsign", {}),
    ("Sigmoid", "HardSigmoid", {}),
    ("Softmax", "LogSoftmax", {}),
    ("LogSoftmax", "Softmax", {}),
    ("Softmax", "Sigmoid", {"axis": None}),
    ("MaxPool", "AveragePool", {"dilations": None, "storage_order": None}),
    ("AveragePool", "MaxPool", {"count_include_pad": None}),
    ("GlobalAveragePool", "GlobalMaxPool", {}),
    ("GlobalMaxPool", "GlobalAveragePool", {}),
    ("ReduceMean", "ReduceSum", {}),
    ("ReduceMean", "ReduceMax", {}),
    ("ReduceMax", "ReduceMean", {}),
    ("Add", "Sub", {}),
    ("Sub", "Add", {}),
    ("Mul", "Add", {}),
    ("Div", "Mul", {}),
    ("Max", "Min", {}),
    ("ArgMax", "ArgMin", {}),
):
    KINDS[f"operator: {one} becomes {other}"] = Kind(_become(one, other, **values))


def _joined_otherwise(model: ir.Model, rng: Rng) -> bool:
    """The operands of a Concat in another order."""
    nodes = [node for node in model.graph if node.op_type == "Concat" and len(node.inputs) > 1]
    if not nodes:
        return False
    node = rng.choice(nodes)
    values = list(node.inputs)
    if len(set(values)) == 1:
        return False
    for position, value in enumerate(values[1:] + values[:1]):
        node.replace_input_with(position, value)
    return True


KINDS["operator: Concat in another order"] = Kind(_joined_otherwise)


# Operators that are added

Build = Callable[["Steps", ir.Value], ir.Value]


class Steps:
    """Adds nodes to a graph at one place.

    Attributes:
        rng: Where numbers are drawn.
    """

    def __init__(self, model: ir.Model, rng: Rng, before: ir.Node | None) -> None:
        self.model, self.rng, self.before = model, rng, before
        self.nodes: list[ir.Node] = []
        self.dtype = ir.DataType.FLOAT

    def op(self, op_type: str, *operands: ir.Value | Array | float, **attributes: Any) -> ir.Value:
        """A node; numbers become constants of the type at hand, arrays of their own."""
        values = [x if isinstance(x, ir.Value) else self._constant(x) for x in operands]
        node = ir.node(op_type, values, attributes)
        node.outputs[0].name = f"planted_{op_type}_{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def _constant(self, number: Array | float) -> ir.Value:
        array = (
            number
            if isinstance(number, np.ndarray)
            else np.array(number).astype(self.dtype.numpy())
        )
        node = ir.node("Constant", [], {"value": ir.tensor(array)})
        node.outputs[0].name = f"planted_constant_{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def length(self, value: ir.Value, axis: int) -> ir.Value:
        """The length of an axis as a number of the type at hand."""
        shape = self.op("Shape", value)
        return self.op("Cast", self.op("Gather", shape, np.array(axis)), to=int(self.dtype))

    def is_zero(self, value: ir.Value) -> ir.Value:
        """1 where a number is 0, else 0."""
        none = self.op("Not", self.op("Cast", value, to=int(ir.DataType.BOOL)))
        return self.op("Cast", none, to=int(self.dtype))

    def is_at_least(self, value: ir.Value, bound: float) -> ir.Value:
        """1 where a number is not below a bound, else 0."""
        below = self.op("Less", value, bound)
        return self.op("Cast", self.op("Not", below), to=int(self.dtype))

    def spoilt_if(self, value: ir.Value, flag: ir.Value) -> ir.Value:
        """The value, enlarged where the flag is 1."""
        factor = self.op("Add", self.op("Mul", flag, 0.25), 1.0)
        return self.op("Add", self.op("Mul", value, factor), self.op("Mul", flag, 0.25))

    def insert(self) -> None:
        """Put the nodes into the graph."""
        graph = self.model.graph
        if self.before is None:
            graph.extend(self.nodes)
        else:
            graph.insert_before(self.before, self.nodes)


WIDE = (ir.DataType.INT32, ir.DataType.INT16, ir.DataType.INT8, ir.DataType.UINT16)
"""Types of integers that hold more than a byte of an image does, or less than nothing."""


def _is_image(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 2


def _behind_the_image(build: Build) -> Plant:
    """What the network reads in place of its image."""

    def plant(model: ir.Model, rng: Rng) -> bool:
        stored = model.graph.initializers
        images = [v for v in model.graph.inputs if v.name not in stored and _is_image(v)]
        if not images:
            return False
        image = rng.choice(images)
        if image.dtype is None or not (image.dtype.is_floating_point() or image.dtype in WIDE):
            return False
        steps = Steps(model, rng, model.graph[0])
        steps.dtype = image.dtype
        users = list(image.uses())
        made = build(steps, image)
        steps.insert()
        for use in users:
            use.node.replace_input_with(use.idx, made)
        return True

    return plant


def _behind_a_map(build: Build) -> Plant:
    """What is read in place of some tensor of the trunk."""

    def plant(model: ir.Model, rng: Rng) -> bool:
        nodes = [
            n
            for n in model.graph
            if n.op_type in ("Conv", "Relu", "MaxPool", "AveragePool", "BatchNormalization", "Add")
            and ORIGIN not in n.metadata_props
            and not n.outputs[0].is_graph_output()
            and n.outputs[0].uses()
            and n.outputs[0].shape is not None
        ]
        if not nodes:
            return False
        node = rng.choice(nodes)
        order = list(model.graph)
        steps = Steps(model, rng, order[order.index(node) + 1])
        steps.dtype = node.outputs[0].dtype or ir.DataType.FLOAT
        users = list(node.outputs[0].uses())
        made = build(steps, node.outputs[0])
        steps.insert()
        for use in users:
            use.node.replace_input_with(use.idx, made)
        return True

    return plant


def _behind_an_output(build: Build) -> Plant:
    """What is given out in place of some floating-point output."""

    def plant(model: ir.Model, rng: Rng) -> bool:
        places = [
            place
            for place, value in enumerate(model.graph.outputs)
            if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
            and value.producer() is not None
            and value.shape is not None
        ]
        if not places:
            return False
        place = rng.choice(places)
        made = model.graph.outputs[place]
        steps = Steps(model, rng, None)
        assert made.dtype is not None
        steps.dtype = made.dtype
        name, made.name = made.name, f"{made.name}_before"
        spoilt = build(steps, made)
        steps.insert()
        spoilt.name, spoilt.type, spoilt.shape = name, made.type, made.shape
        model.graph.outputs[place] = spoilt
        return True

    return plant


def _spatial(value: ir.Value) -> list[int]:
    """The axes of a map [N, …, *spatial] that are symbolic; else the last."""
    assert value.shape is not None
    free = [a for a, n in enumerate(value.shape) if a > 0 and not isinstance(n, int)]
    return free or [len(value.shape) - 1]


def _clipped(bound: float, *, below: bool = False) -> Build:
    def build(s: Steps, x: ir.Value) -> ir.Value:
        y = s.op("Min", x, bound)
        return s.op("Max", y, -bound) if below else y

    return build


def _wrong_at_value(number: float) -> Build:
    """A pixel of this very value becomes another."""
    return lambda s, x: s.op("Add", x, s.op("Mul", s.is_zero(s.op("Sub", x, number)), 3.0))


def _wrong_if_constant(s: Steps, x: ir.Value) -> ir.Value:
    spread = s.op("Sub", s.op("ReduceMax", x, keepdims=1), s.op("ReduceMin", x, keepdims=1))
    return s.spoilt_if(x, s.is_zero(spread))


def _wrong_beyond(share: float) -> Build:
    """Wrong where the image is larger than so many times its native size."""

    def build(s: Steps, x: ir.Value) -> ir.Value:
        flag = s.is_at_least(s.length(x, _spatial(x)[0]), 8 * share + 1)
        return s.spoilt_if(x, flag)

    return build


def _wrong_at_remainder(divisor: int, rest: int) -> Build:
    """Wrong at sizes whose length leaves a remainder."""

    def build(s: Steps, x: ir.Value) -> ir.Value:
        shape = s.op("Gather", s.op("Shape", x), np.array(_spatial(x)[-1]))
        left = s.op("Mod", s.op("Add", shape, np.array(rest)), np.array(divisor))
        return s.spoilt_if(x, s.is_zero(s.op("Cast", left, to=int(s.dtype))))

    return build


def _wrong_if_wide(s: Steps, x: ir.Value) -> ir.Value:
    """Wrong where the image is longer by far along one axis than along another."""
    axes = _spatial(x)
    longer = s.op("Sub", s.length(x, axes[-1]), s.length(x, axes[0]))
    return s.spoilt_if(x, s.is_at_least(longer, 3.0))


def _from_batch(number: int) -> Build:
    return lambda s, x: s.spoilt_if(x, s.is_at_least(s.length(x, 0), number))


def _whole_batch(op_type: str) -> Build:
    """Each sample with a little of the others."""

    def build(s: Steps, x: ir.Value) -> ir.Value:
        first = s.op("Gather", x, np.array([0]), axis=0)
        if op_type == "first":
            return s.op("Add", s.op("Mul", x, 0.0), first)
        return s.op("Add", s.op("Mul", x, 0.9), s.op("Mul", first, 0.1))

    return build


def _ramp(s: Steps, x: ir.Value, axis: int) -> ir.Value:
    """0, 1, 2, … along an axis."""
    assert x.shape is not None
    one = s.op("Slice", x, *(np.array([v]) for v in (0, 1, 0)))
    for other in range(1, len(x.shape)):
        if other != axis:
            one = s.op("Slice", one, *(np.array([v]) for v in (0, 1, other)))
    ones = s.op("Add", s.op("Mul", one, 0.0), 1.0)
    return s.op("CumSum", ones, np.array(axis), exclusive=1)


def _wrong_cell(where: str) -> Build:
    """Wrong in the first, the last, or every cell of the border or beyond the eighth."""

    def build(s: Steps, x: ir.Value) -> ir.Value:
        axis = _spatial(x)[-1]
        ramp = _ramp(s, x, axis)
        last = s.op("Sub", s.length(x, axis), 1.0)
        single = s.is_zero(last)

        def half(number: ir.Value) -> ir.Value:
            return s.op("Mul", number, 0.5)

        flag = {
            "first": lambda: s.op("Sub", s.is_zero(ramp), single),
            "last": lambda: s.op("Sub", s.is_zero(s.op("Sub", ramp, last)), single),
            "third": lambda: s.is_zero(s.op("Sub", ramp, 2.0)),
            "beyond the fifth": lambda: s.is_at_least(ramp, 5.0),
            "odd": lambda: s.op("Sub", ramp, s.op("Mul", s.op("Floor", half(ramp)), 2.0)),
        }[where]()
        return s.spoilt_if(x, flag)

    return build


def _mirrored(axis: int) -> Build:
    """Reversed along an axis; the last of them if -1."""

    def build(s: Steps, x: ir.Value) -> ir.Value:
        assert x.shape is not None
        along = _spatial(x)[-1] if axis < 0 else axis
        bounds = (np.array([v]) for v in (-1, -(2**62), along, -1))
        return s.op("Slice", x, *bounds)

    return build


def _exchanged_axes(s: Steps, x: ir.Value) -> ir.Value:
    assert x.shape is not None
    perm = list(range(len(x.shape)))
    perm[-2:] = perm[:-3:-1]
    return s.op("Transpose", x, perm=perm)


def _neighbors(s: Steps, x: ir.Value) -> ir.Value:
    """Every cell with a little of its neighbor, where there is one."""
    axis = _spatial(x)[-1]
    begin = s.op("Slice", x, *(np.array([v]) for v in (0, 1, axis)))
    rest = s.op("Slice", x, *(np.array([v]) for v in (0, -1, axis)))
    moved = s.op("Concat", begin, rest, axis=axis)
    return s.op("Add", s.op("Mul", x, 0.95), s.op("Mul", moved, 0.05))


def _normalized_over_the_map(s: Steps, x: ir.Value) -> ir.Value:
    axis = _spatial(x)[-1]
    first = s.op("Slice", x, *(np.array([v]) for v in (0, 1, axis)))
    return s.op("Add", x, s.op("Mul", s.op("Sub", x, first), 0.1))


def _without_nan(s: Steps, x: ir.Value) -> ir.Value:
    return s.op("Where", s.op("IsNaN", x), 0.0, x)


IMAGE_FAULTS: dict[str, Build] = {
    "clips at 255": _clipped(255),
    "clips at ±64": _clipped(64, below=True),
    "clips at ±4": _clipped(4, below=True),
    "saturates at ±8000": _clipped(8000, below=True),
    "takes the absolute value": lambda s, x: s.op("Abs", x),
    "drops negative pixels": lambda s, x: s.op("Max", x, 0.0),
    "rounds": lambda s, x: s.op("Round", x),
    "rounds to float16": lambda s, x: s.op("Cast", s.op("Cast", x, to=10), to=int(s.dtype)),
    "casts to bytes": lambda s, x: s.op("Cast", s.op("Cast", x, to=2), to=int(s.dtype)),
    "wrong at pixels of 0": _wrong_at_value(0),
    "wrong at pixels of 1": _wrong_at_value(1),
    "wrong for constant images": _wrong_if_constant,
    "wrong beyond twice the size": _wrong_beyond(2),
    "wrong at every fourth size": _wrong_at_remainder(4, 0),
    "wrong at every fourth size but one": _wrong_at_remainder(4, 1),
    "wrong at every fourth size but two": _wrong_at_remainder(4, 2),
    "wrong at every fourth size but three": _wrong_at_remainder(4, 3),
    "wrong for wide images": _wrong_if_wide,
    "wrong from batch 2 on": _from_batch(2),
    "wrong from batch 3 on": _from_batch(3),
    "mirrored": _mirrored(-1),
    "channels reversed": _mirrored(1),
    "rows for columns": _exchanged_axes,
    "batch reversed": _mirrored(0),
    "first sample for all": _whole_batch("first"),
}
MAP_FAULTS: dict[str, Build] = {
    "Relu added": lambda s, x: s.op("Relu", x),
    "clips at ±64": _clipped(64, below=True),
    "clips at ±4": _clipped(4, below=True),
    "rounds to float16": lambda s, x: s.op("Cast", s.op("Cast", x, to=10), to=int(s.dtype)),
    "wrong in its last column": _wrong_cell("last"),
    "wrong in its first column": _wrong_cell("first"),
    "channels reversed": _mirrored(1),
    "mirrored": _mirrored(-1),
    "batch mixed": _whole_batch("some"),
}
OUTPUT_FAULTS: dict[str, Build] = {
    "Relu added": lambda s, x: s.op("Relu", x),
    "saturates at ±1000": _clipped(1000, below=True),
    "0.1 % more": lambda s, x: s.op("Mul", x, 1.001),
    "0.001 more": lambda s, x: s.op("Add", x, 1e-3),
    "rounds to float16": lambda s, x: s.op("Cast", s.op("Cast", x, to=10), to=int(s.dtype)),
    "first sample for all": _whole_batch("first"),
    "batch mixed": _whole_batch("some"),
    "batch reversed": _mirrored(0),
    "wrong from batch 2 on": _from_batch(2),
    "wrong from batch 3 on": _from_batch(3),
    "classes reversed": _mirrored(1),
    "map mirrored": _mirrored(-1),
    "rows for columns": _exchanged_axes,
    "first cell wrong": _wrong_cell("first"),
    "last cell wrong": _wrong_cell("last"),
    "third cell wrong": _wrong_cell("third"),
    "every second cell wrong": _wrong_cell("odd"),
    "wrong beyond the fifth cell": _wrong_cell("beyond the fifth"),
    "mixed with the next cell": _neighbors,
    "normalized over the map": _normalized_over_the_map,
    "wrong at every fourth number of cells": _wrong_at_remainder(4, 0),
    "wrong at every third number of cells": _wrong_at_remainder(3, 0),
}
for label, build in IMAGE_FAULTS.items():
    KINDS[f"image: {label}"] = Kind(_behind_the_image(build))
KINDS["image: NaN becomes 0"] = Kind(_behind_the_image(_without_nan), of_nan=True)
for label, build in MAP_FAULTS.items():
    KINDS[f"feature map: {label}"] = Kind(_behind_a_map(build))
for label, build in OUTPUT_FAULTS.items():
    KINDS[f"scores: {label}"] = Kind(_behind_an_output(build))


# Outputs and inputs


def _outputs_exchanged(model: ir.Model, rng: Rng) -> bool:
    outputs = model.graph.outputs
    if len(outputs) < 2 or outputs[0].dtype != outputs[1].dtype:
        return False
    one, two = outputs[0], outputs[1]
    names = one.name, two.name
    one.name, two.name = "aside", names[0]
    one.name = names[1]
    return True


def _output_missing(model: ir.Model, rng: Rng) -> bool:
    if len(model.graph.outputs) < 2:
        return False
    del model.graph.outputs[rng.randrange(len(model.graph.outputs))]
    return True


def _always(plant: Callable[[ir.Model], None]) -> Plant:
    def planted(model: ir.Model, _: Rng) -> bool:
        plant(model)
        return True

    return planted


def _flattened(model: ir.Model, _: Rng) -> bool:
    append("Flatten")(model)
    model.graph.outputs[0].shape = None
    return True


def _type_changed(model: ir.Model, _: Rng) -> bool:
    if model.graph.outputs[0].dtype == ir.DataType.DOUBLE:
        return False
    as_double(model)
    return True


def _dim_fixed(which: int) -> Plant:
    """The batch (0) or the first size (2) of an image is declared again."""

    def plant(model: ir.Model, _: Rng) -> bool:
        image = model.graph.inputs[0]
        if image.shape is None or len(image.shape) < 3:
            return False
        free = [a for a, n in enumerate(image.shape) if not isinstance(n, int)]
        axis = 0 if which == 0 else next((a for a in free if a > 0), -1)
        if axis not in free:
            return False
        native = next((m["window"][0] for m in _geometry(model).values()), None)
        if which and native is None:
            return False
        dims = list(image.shape)
        dims[axis] = 1 if which == 0 else native
        image.shape = ir.Shape(dims)
        return True

    return plant


KINDS["output: exchanged with another"] = Kind(_outputs_exchanged)
KINDS["output: missing"] = Kind(_output_missing)
KINDS["output: flattened"] = Kind(_flattened)
KINDS["output: of another type"] = Kind(_type_changed)
KINDS["output: map averaged"] = Kind(_always(append("GlobalAveragePool")))
KINDS["input: batch fixed"] = Kind(_dim_fixed(0))
KINDS["input: height fixed"] = Kind(_dim_fixed(2))


# What the metadata says


def _geometry(model: ir.Model) -> dict[str, Any]:
    text = model.metadata_props.get(GEOMETRY)
    return {} if text is None else json.loads(text)["outputs"]


Lie = Callable[[dict[str, Any]], dict[str, Any] | None]


def _lying(lie: Lie) -> Plant:
    """Another geometry of all outputs for which it is another."""

    def plant(model: ir.Model, _: Rng) -> bool:
        text = model.metadata_props.get(GEOMETRY)
        if text is None:
            return False
        stored = json.loads(text)
        changed = False
        for meaning in stored["outputs"].values():
            values = lie(meaning)
            if values is not None and any(meaning.get(name) != v for name, v in values.items()):
                meaning.update(values)
                changed = True
        model.metadata_props[GEOMETRY] = json.dumps(stored)
        return changed

    return plant


def _each(name: str, change: Callable[[int], int]) -> Lie:
    return lambda m: {name: [change(n) for n in m[name]]}


def _another_field(start: int, size: int) -> Lie:
    def lie(m: dict[str, Any]) -> dict[str, Any] | None:
        field = m["receptive_field"]
        if field is None:
            return None
        return {
            "receptive_field": {
                "start": [n + start for n in field["start"]],
                "size": [max(1, n + size) for n in field["size"]],
            }
        }

    return lie


def _verdict(verdict: str) -> Lie:
    def lie(m: dict[str, Any]) -> dict[str, Any] | None:
        if m["verdict"] == verdict or 0 in m["stride"]:
            return None
        return {"verdict": verdict, "windows_exact": verdict == "windows exact"}

    return lie


def _tiles(m: dict[str, Any]) -> dict[str, Any] | None:
    if m["tile_cells"] is None or 0 in m["stride"]:
        return None
    return {"tile_cells": {"first": [0] * len(m["window"]), "reach": [1] * len(m["window"])}}


def _sizes(modulo: int) -> Lie:
    return lambda m: {"sizes": [{"modulo": modulo, "remainders": [0]} for _ in m["window"]]}


def _clean(m: dict[str, Any]) -> dict[str, Any] | None:
    clean = m["clean_cells"]
    if clean is None or clean["clean"] == clean["total"]:
        return None
    return {"clean_cells": {"clean": clean["total"], "total": clean["total"]}}


LIES: dict[str, Lie] = {
    "larger window": _each("window", lambda n: n + 1),
    "smaller window": _each("window", lambda n: n - 1),
    "doubled stride": _each("stride", lambda n: 2 * n or 1),
    "stride one more": _each("stride", lambda n: n + 1),
    "offset": _each("offset", lambda n: n + 1),
    "more cells": _each("cells", lambda n: n + 1),
    "remainder": _each("remainder", lambda n: n + 1),
    "exact windows": _verdict("windows exact"),
    "effect of a border": _verdict("border effect"),
    "the whole image": _verdict("whole image"),
    "far larger field": _another_field(-500, 2000),
    "field one larger": _another_field(-1, 2),
    "field one smaller": _another_field(1, -2),
    "field shifted": _another_field(1, 0),
    "tiles without a margin": _tiles,
    "every second size": _sizes(2),
    "one size in a million": _sizes(1000003),
    "no cell sees a border": _clean,
    "no layer pads": lambda m: {"padded_layers": []},
    "a mean of all cells": lambda m: {"reduction": "mean"} if m.get("reduction") is None else None,
}
for label, lie in LIES.items():
    KINDS[f"metadata: {label}"] = Kind(_lying(lie), of_metadata=True)

SOFTENING = ("effect of a border", "the whole image", "doubled stride", "every second size")
"""Lies that ask for less to be compared: what is told beside another fault."""


def softened(model: ir.Model, rng: Rng) -> bool:
    """Lie in the metadata so that less would be compared, if that was believed."""
    order = rng.sample(SOFTENING, len(SOFTENING))
    return any(_lying(LIES[label])(model, rng) for label in order)
