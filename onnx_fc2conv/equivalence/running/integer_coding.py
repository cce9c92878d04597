"""Other weights for both models: each bit pattern becomes a small integer times a power of two.

A conversion that puts weights in other places puts their integers there too, whoever made it. A
weight that is wrong in its last bit is another integer in five cases of six, which is a change that
no tolerance hides. Where numbers have been computed from weights (a scale is folded in) both these
numbers and the weights stay as they are:

1. A tensor of the reference that the converted model uses as often, or oftener, is coded.
2. What is left on both sides is coded if it consists of the same bit patterns, each as often in the
   converted model, or oftener: tensors that were joined, cut or doubled.
3. A tensor that is left and shares at least half of its elements with one of its size is a wrong
   copy, and is coded, but only if nothing else has vanished that may have been folded in.
4. Everything else that is left keeps its own numbers, and so does the weight of a layer whose bias
   does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2, prod, sqrt

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.equivalence.tracing.structure import constants, subgraph
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Coding", "Operand", "coded_name", "with_constants"]

_NORM = {1: "scale", 2: "term"}
_ROLES: Mapping[str, Mapping[int, str]] = {
    **{op: {1: "weight", 2: "term"} for op in ("Conv", "ConvTranspose")},
    **{op: {0: "weight", 1: "weight", 2: "term"} for op in ("Gemm", "MatMul")},
    **{op: {0: "term", 1: "term"} for op in ("Add", "Sub")},
    **{op: {0: "scale", 1: "scale"} for op in ("Mul", "Div")},
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "GroupNormalization"), _NORM),
    "BatchNormalization": {**_NORM, 3: "mean", 4: "variance"},
    "PRelu": {1: "scale"},
    "Gather": {0: "scale"},
}
"""What operators do with constants, by position among their inputs."""

_SIGNED, _POSITIVE = (-3, -2, -1, 1, 2, 3), (1, 2, 3, 4, 5, 6)
_CODES = {
    **dict.fromkeys(("weight", "term", "mean", "scale"), _SIGNED),
    "variance": _POSITIVE,
}
_SHIFTS = {"weight": 0, "term": 3, "mean": 3, "scale": 1, "variance": 1}
"""Integers are divided by 2 to this power: terms are small beside sums of order 1."""

_NOTHING: AnyArray = np.zeros(0, np.uint32)

_MOST_COUNTED = 1 << 16
"""A tensor of one number n or 1/n up to here may be a conversion's own (a mean, an identity)."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A constant that a node computes with.

    Attributes:
        node: The node.
        position: Its index among the node's inputs.
        array: Its values.
        role: What the node does with it.
    """

    node: ir.Node
    position: int
    array: AnyArray
    role: str

    @cached_property
    def patterns(self) -> AnyArray:
        """A hash of 32 bits of each bit pattern; both zeros are 0.

        What is subtracted or divided by has others: 2 and 1/2 may change places then.
        """
        unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[self.array.dtype.itemsize]
        plain = np.ascontiguousarray(self.array + np.zeros((), self.array.dtype))
        mixed = _mixed(plain.view(unsigned).astype(np.uint64)) >> np.uint64(32)
        is_inverse = self.node.op_type in ("Sub", "Div") and self.position == 1
        return mixed.astype(np.uint32) * np.uint32(0x9E3779B1 if is_inverse else 1)

    @cached_property
    def fingerprint(self) -> tuple[int, int]:
        """The same for all tensors with the same numbers but 0, in any order."""
        return int(np.count_nonzero(self.patterns)), int(self.patterns.sum(dtype=np.uint64))

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all numbers but 0 have one magnitude."""
        sizes = np.abs(self.array[self.array != 0])
        return bool((sizes == sizes.flat[0]).all()) if sizes.size else True

    @cached_property
    def is_coded(self) -> bool:
        """Whether the numbers have no meaning of their own, as 1 or an epsilon has."""
        if not self.is_uniform:
            return True
        size = float(np.abs(self.array).max(initial=0))
        counts = (n for n in (size, 1 / size if size else 0.0) if n <= _MOST_COUNTED)
        plain = any(np.isclose(n, round(n), rtol=1e-6, atol=0) for n in counts)
        return not plain and self.role != "term"

    @cached_property
    def fan_in(self) -> int:
        """Number of products in one sum."""
        shape = self.array.shape
        if self.node.op_type == "ConvTranspose":
            return int(prod(shape) // shape[1])
        if self.node.op_type == "Conv":
            return int(prod(shape[1:]))
        transposed = bool(self.node.attributes.get_int("transB" if self.position else "transA", 0))
        return int(shape[-1 if transposed != (self.position == 0) or len(shape) < 2 else -2])

    @property
    def codes(self) -> AnyArray:
        """The six numbers that its bit patterns become."""
        role = "variance" if self.is_uniform and self.role == "scale" else self.role
        shift = _SHIFTS[role] + (round(log2(1.5 * sqrt(self.fan_in))) if role == "weight" else 0)
        return np.array(_CODES[role]) * 2.0**-shift


def _operands(model: ir.Model) -> tuple[list[Operand], Counter[tuple[int, int]]]:
    """The constants to code, and the fingerprints of all others in floating point."""
    fixed = constants(model.graph)
    reads = [
        (node, position, value)
        for node in model.graph
        if not all(v in fixed for v in node.inputs if v is not None)
        for position, value in enumerate(node.inputs)
        if value is not None and value in fixed
    ]
    arrays = _arrays(model, dict.fromkeys(value for _, _, value in reads))
    coded: list[Operand] = []
    others: Counter[tuple[int, int]] = Counter()
    for node, position, value in reads:
        array = arrays[value]
        if not ir.DataType.from_numpy(array.dtype).is_floating_point() or array.itemsize < 2:
            continue
        role = _ROLES.get(node.op_type, {}).get(position) if not node.domain else None
        operand = Operand(node, position, array, role or "")
        if role is not None and operand.is_coded:
            coded.append(operand)
        else:
            others[operand.fingerprint] += 1
    return coded, others


def _arrays(model: ir.Model, values: Collection[ir.Value]) -> dict[ir.Value, AnyArray]:
    """Constant tensors: read, or computed by onnxruntime."""
    stored = {value: ir.convenience.get_const_tensor(value) for value in values}
    names = [value.name or "" for value, tensor in stored.items() if tensor is None]
    computed = Session(subgraph(model, {}, names)).run({}, names) if names else {}
    return {
        value: computed[value.name or ""] if tensor is None else tensor.numpy()
        for value, tensor in stored.items()
    }


def coded_name(number: int) -> str:
    """The name of a coded operand."""
    return f"fc2conv.coded.{number}"


def with_constants(
    model: ir.Model, operands: Sequence[Operand], arrays: Iterable[AnyArray] | None = None
) -> ir.Model:
    """A copy of the model that takes these operands from elsewhere.

    Args:
        model: The model.
        operands: The operands.
        arrays: Their values; None makes them inputs, each with its `coded_name`.
    """
    copy = model.clone()
    copy.ir_version = max(copy.ir_version or 0, 4)  # before, initializers were inputs
    twins = dict(zip(model.graph, copy.graph, strict=True))
    given = [None] * len(operands) if arrays is None else arrays
    for number, (operand, array) in enumerate(zip(operands, given, strict=True)):
        dtype, shape = ir.DataType.from_numpy(operand.array.dtype), ir.Shape(operand.array.shape)
        value = ir.Value(name=coded_name(number), type=ir.TensorType(dtype), shape=shape)
        if array is None:
            copy.graph.inputs.append(value)
        else:
            value.const_value = ir.Tensor(array, name=value.name)
            copy.graph.register_initializer(value)
        twins[operand.node].replace_input_with(operand.position, value)
    RemoveUnusedNodesPass()(copy)
    return copy


@dataclass(frozen=True, eq=False)
class Coding:
    """The integers of two models.

    Attributes:
        reference: The coded operands of the reference.
        converted: Those of the converted model.
        layers: The weights of the reference's layers, coded or not.
        rows: By operand, the row of the table for each element, or one for all.
        table: The six numbers of each operand of the reference.
        is_term: Whether it is a bias.
        fan_in: The number of terms in its sums, or 1 where it is no weight.
        kept: Number of operands of the reference that keep their own numbers.
    """

    reference: list[Operand]
    converted: list[Operand]
    layers: list[Operand]
    rows: Mapping[Operand, AnyArray]
    table: AnyArray
    is_term: AnyArray
    fan_in: AnyArray
    kept: int

    @classmethod
    def of(cls, reference: ir.Model, converted: ir.Model) -> Coding:
        """Find out which operands of two models hold the same weights."""
        (one, others), (two, others_too) = _operands(reference), _operands(converted)
        first = {o.fingerprint: row for row, o in reversed(list(enumerate(one)))}
        used, used_too = (Counter(o.fingerprint for o in operands) for operands in (one, two))
        rows: dict[Operand, AnyArray] = {}
        for operand in (*one, *two):
            key = operand.fingerprint
            count, count_too = used[key], used_too[key]
            as_often = count == count_too or (count < count_too and not operand.is_uniform)
            if count and as_often and key not in others | others_too:
                rows[operand] = np.array(first[key])
        left, left_too = ([o for o in operands if o not in rows] for operands in (one, two))
        copies = {} if others - others_too else _wrong_copies(left, left_too)
        originals = [o for o in left if o not in copies.values()]
        joined = _joined(originals, [o for o in left_too if o not in copies], first)
        if joined is None:
            _keep(rows, [*left, *left_too])
        else:
            rows |= joined
            for copy, original in copies.items():
                rows[copy] = rows[original] = np.array(first[original.fingerprint])
        known = used.keys() | others.keys()
        biases = [o for o in two if o.role == "term" and o.fingerprint not in known]
        _keep_weights_of(rows, [o for o in biases if o not in rows], two)
        coded, coded_too = ([o for o in operands if o in rows] for operands in (one, two))
        table = np.array([operand.codes for operand in one]).reshape(-1, 6)
        layers = [operand for operand in one if operand.role == "weight"]
        is_term = np.array([o.role == "term" for o in one], bool)
        fan_in = np.array([o.fan_in if o.role == "weight" else 1 for o in one], float)
        return cls(coded, coded_too, layers, rows, table, is_term, fan_in, len(one) - len(coded))

    @property
    def sides(self) -> tuple[list[Operand], list[Operand]]:
        """The coded operands of the reference and of the converted model."""
        return self.reference, self.converted

    def level(self, sizes: Mapping[str, float], graph: ir.Graph) -> None:
        """Divide weights by powers of two such that the sums of layers are of order 1.

        A layer's sums are measured before the layers above it are corrected, and follow them.

        Args:
            sizes: The root mean square of each layer's output, by its name.
            graph: The reference's graph.
        """
        row_of = {
            operand.node: int(np.bincount(self.rows[operand].ravel()).argmax())
            for operand in self.layers
            if operand in self.rows
        }
        corrected: set[int] = set()
        powers: dict[ir.Value | None, int] = dict.fromkeys(graph.inputs, 0)
        for node in graph:
            power = max((powers[value] for value in node.inputs if value in powers), default=0)
            row = row_of.get(node)
            if (
                row is not None
                and row not in corrected
                and 0 < (size := sizes[node.outputs[0].name or ""]) < np.inf
            ):
                corrected.add(row)
                correction = round(log2(size)) + power
                self.table[row] *= 2.0**-correction
                power -= correction
            powers.update(dict.fromkeys(node.outputs, power))

    def arrays(
        self,
        operands: Sequence[Operand],
        factor: int,
        *,
        lifted: bool = False,
        terms: float = np.inf,
    ) -> Iterator[AnyArray]:
        """Yield the new values of operands.

        Args:
            operands: The operands, of either model.
            factor: An odd number; another one draws other integers.
            lifted: Whether biases are positive, so that most units pass a Relu. But then errors
                fade from layer to layer.
            terms: The number of nonzero terms that are enough for a sum. The fewer there are, the
                more layers can follow each other before a sum has more digits than its type.
        """
        share = np.minimum(terms / self.fan_in, 1.0)
        table = self.table * 2.0 ** -np.round(np.log2(share) / 2)[:, np.newaxis]
        if lifted:
            table[self.fan_in > 1] /= 2
            table[self.is_term] = 2 * table[self.is_term] + 1
        limits = (share * 2**16).astype(np.uint32)
        for operand in operands:
            rows, drawn = self.rows[operand], operand.patterns * np.uint32(factor)
            column = (((drawn >> np.uint32(16)) * np.uint32(6)) >> np.uint32(16)).astype(np.intp)
            values = table.astype(operand.array.dtype).take(rows * 6 + column)
            values[(drawn & np.uint32(0xFFFF)) >= limits[rows]] = 0
            values[operand.patterns == 0] = 0
            yield values.reshape(operand.array.shape)


def _mixed(bits: AnyArray) -> AnyArray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014); 0 stays 0."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: AnyArray = bits ^ (bits >> np.uint64(31))
    return mixed


def _keep_weights_of(
    rows: dict[Operand, AnyArray], biases: Sequence[Operand], operands: Sequence[Operand]
) -> None:
    """Leave weights as they are, in both models, whose products may be in a bias.

    That of a constant which the reference adds before the layer is.
    """
    nodes = {operand.node for operand in biases}
    layers = {v.producer() for node in nodes for v in node.inputs if v is not None} | nodes
    weights = [o for o in operands if o.node in layers and o.role == "weight" and o in rows]
    kept = {row for operand in weights for row in np.unique(rows[operand]).tolist()}
    for operand in [o for o, row in rows.items() if kept.intersection(np.unique(row).tolist())]:
        del rows[operand]


def _wrong_copies(left: Sequence[Operand], left_too: Sequence[Operand]) -> dict[Operand, Operand]:
    """The tensors that share half of their elements with one of the reference of their size."""
    found: dict[Operand, Operand] = {}
    for operand in left_too:
        free = (o for o in left if o.array.size == operand.array.size and o not in found.values())
        best = max(free, key=lambda o: _shared(o, operand), default=None)
        if best is not None and _shared(best, operand) >= 0.5:
            found[operand] = best
    return found


def _shared(one: Operand, two: Operand) -> float:
    """The share of elements but 0 that both have."""
    (a, counts), (b, counts_too) = (_counted([operand]) for operand in (one, two))
    _, places, places_too = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    both = np.minimum(counts[places], counts_too[places_too]).sum()
    return float(both / max(counts.sum(), counts_too.sum(), 1))


def _counted(operands: Sequence[Operand]) -> tuple[AnyArray, AnyArray]:
    """The bit patterns but 0 of some operands, and how often each occurs."""
    patterns = [operand.patterns.ravel() for operand in operands]
    found, counts = np.unique(np.concatenate([*patterns, _NOTHING]), return_counts=True)
    return found[found != 0], counts[found != 0]


def _joined(
    left: Sequence[Operand], left_too: Sequence[Operand], first: Mapping[tuple[int, int], int]
) -> dict[Operand, AnyArray] | None:
    """The rows of tensors that were joined, cut or doubled; None if there are other numbers."""
    (known, counts), (patterns, counts_too) = _counted(left), _counted(left_too)
    if not np.array_equal(known, patterns) or (counts_too < counts).any():
        return None
    owners = np.zeros(len(known) + 1, np.intp)
    for operand in reversed(left):
        own = operand.patterns[operand.patterns != 0]
        owners[np.searchsorted(known, own)] = first[operand.fingerprint]
    return {o: owners[np.searchsorted(known, o.patterns)] for o in (*left, *left_too)}


def _keep(rows: dict[Operand, AnyArray], kept: Sequence[Operand]) -> None:
    """Leave out what is not coded, and what shares half of its patterns with that."""
    while kept:
        patterns, _ = _counted(kept)
        more = [o for o in rows if np.isin(o.patterns, patterns).sum() * 2 > o.fingerprint[0]]
        for operand in more:
            del rows[operand]
        kept = more
