"""Float weights as small integers: the same bits become the same integer in both models.

No correspondence has to be known. An integer is drawn for every bit pattern, so a weight that has
been moved takes its integer along, and one whose last bit differs gets another integer. Only the
weights of the other model with the same bits must be found: by the set of a tensor's values,
whatever their order. A tensor with other values (a scale has been folded in) is not coded, and
cannot be compared in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.running.constants import constant_array
from onnx_fc2conv.equivalence.running.exactness import Inexact
from onnx_fc2conv.equivalence.tracing.structure import constants
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Codebook", "bit_patterns", "coded_constants", "integers_of", "replace_constants"]

_WEIGHTS = {"Conv", "Gemm", "MatMul"}
_TERMS = {"Add", "Sub", "Sum", "Mul", "PRelu"}
_LARGEST_TERM = {"Mul": 1, "PRelu": 1}
"""Slopes and factors get magnitudes of 1 at most, which enlarge nothing."""


def bit_patterns(array: AnyArray) -> AnyArray:
    """The bits of floating-point numbers, as unsigned integers; both zeros are 0."""
    unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[array.dtype.itemsize]
    return np.ascontiguousarray(array + np.zeros((), array.dtype)).view(unsigned)


def integers_of(array: AnyArray, salt: int, density: float, largest: int = 1) -> AnyArray:
    """An integer of -largest to largest for each bit pattern; 0 stays 0.

    Args:
        array: Floating-point numbers.
        salt: Another one gives other integers.
        density: The share of the patterns whose integer is not 0.
        largest: Largest magnitude.
    """
    bits = bit_patterns(array).astype(np.uint64)
    mixed = _mixed(bits ^ np.uint64(salt * 0x9E3779B97F4A7C15 % (1 << 64)))
    kept = (mixed >> np.uint64(40)) < np.uint64(int(density * (1 << 24)))
    size = (mixed >> np.uint64(8)) % np.uint64(largest) + np.uint64(1)
    sign = np.where(mixed & np.uint64(1), 1, -1)
    return np.where(kept & (bits != 0), size.astype(np.int64) * sign, 0).astype(array.dtype)


def _mixed(bits: AnyArray) -> AnyArray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: AnyArray = bits ^ (bits >> np.uint64(31))
    return mixed


@dataclass(frozen=True)
class CodedConstant:
    """A constant that a node computes with.

    Attributes:
        node: The node.
        position: Index of the constant among the node's inputs.
        array: Its values.
        fan_in: Number of values that one output sums; 1 for a bias.
        largest: Largest magnitude of its integers.
    """

    node: ir.Node
    position: int
    array: AnyArray
    fan_in: int
    largest: int = 1


def coded_constants(model: ir.Model) -> Iterator[CodedConstant]:
    """The constants of a model that become integers."""
    fixed = constants(model.graph)
    for node in model.graph:
        if node.op_type not in _WEIGHTS | _TERMS or all(v in fixed for v in node.inputs if v):
            continue
        for position, value in enumerate(node.inputs):
            if value is None or value not in fixed:
                continue
            array = constant_array(model, value)
            if not np.issubdtype(array.dtype, np.floating):
                continue
            is_weight = node.op_type in _WEIGHTS and position < 2
            largest = 1 if is_weight else _LARGEST_TERM.get(node.op_type, 3)
            yield CodedConstant(
                node, position, array, _fan_in(node, position, array) if is_weight else 1, largest
            )


def _fan_in(node: ir.Node, position: int, array: AnyArray) -> int:
    if node.op_type == "Conv":
        return int(np.prod(array.shape[1:]))
    if array.ndim < 2:
        return array.size
    transposed = bool(node.attributes.get_int("transA" if position == 0 else "transB", 0))
    rows_are_outputs = transposed != (position == 0)
    return int(array.shape[-1 if rows_are_outputs else -2])


def replace_constants(replaced: Mapping[tuple[ir.Node, int], AnyArray]) -> None:
    """Give nodes other constants, each under a name of its own."""
    for number, ((node, position), array) in enumerate(replaced.items()):
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        name = f"fc2conv.integers.{number}"
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        value = ir.val(name, dtype=tensor.dtype, shape=array.shape, const_value=tensor)
        graph.register_initializer(value)
        node.replace_input_with(position, value)


@dataclass(eq=False)
class Codebook:
    """Which integers a tensor gets, by the set of its values.

    Attributes:
        salt: Another one gives other integers.
        gain: Approximate number of nonzero terms in a sum.
        known: By the set of values, the density and largest magnitude of the integers.
    """

    salt: int
    gain: float
    known: dict[int, tuple[float, int]] = field(default_factory=dict)
    _learned: list[_Learned] = field(default_factory=list)
    _scales: bool = False

    def learn(self, constant: CodedConstant) -> AnyArray:
        """The integers of a constant of the reference."""
        density = min(1.0, self.gain / constant.fan_in)
        patterns = _nonzero_patterns(constant.array)
        key = _fingerprint(patterns)
        if key not in self.known:
            self.known[key] = (density, constant.largest)
            count = int(np.count_nonzero(constant.array))
            self._learned.append(_Learned(patterns, count, self.known[key]))
        self._scales |= constant.node.op_type == "Mul"
        return integers_of(constant.array, self.salt, *self.known[key])

    def look_up(self, constant: CodedConstant) -> AnyArray:
        """The integers of a constant of the converted model.

        Raises:
            Inexact: If its values are not those of a constant of the reference.
        """
        patterns = _nonzero_patterns(constant.array)
        coding = (
            self.known.get(_fingerprint(patterns))
            or self._of_which_it_is_a_part(patterns)
            or self._which_it_nearly_is(patterns, constant)
        )
        if coding is None:
            node = constant.node
            raise Inexact(
                f"operand {constant.position} of {node.op_type} {node.name or node.outputs[0].name}"
                " holds other numbers than the reference (a scale is folded in)"
            )
        return integers_of(constant.array, self.salt, *coding)

    def _of_which_it_is_a_part(self, patterns: AnyArray) -> tuple[float, int] | None:
        if not patterns.size:
            return (0.0, 1)
        for known in self._learned:
            if known.patterns.size > patterns.size and _shared(patterns, known) == 1.0:
                return known.coding
        return None

    def _which_it_nearly_is(
        self, patterns: AnyArray, constant: CodedConstant
    ) -> tuple[float, int] | None:
        """Return the coding of a weight of the same size that shares most values: a wrong copy.

        Sums of weights are fewer, a scale that leaves most numbers alone needs a Mul, and a bias
        may have had another one added.
        """
        count = int(np.count_nonzero(constant.array))
        if self._scales or constant.fan_in == 1:
            return None
        best = max(self._learned, key=lambda known: _shared(patterns, known), default=None)
        if best is None or best.count != count or _shared(patterns, best) < 0.5:
            return None
        return best.coding


@dataclass(frozen=True, eq=False)
class _Learned:
    """A tensor of the reference: its bit patterns, its size and its coding."""

    patterns: AnyArray
    count: int
    coding: tuple[float, int]


def _shared(patterns: AnyArray, known: _Learned) -> float:
    """Return the share of the patterns that occur in a tensor of the reference."""
    return float(np.isin(patterns, known.patterns, assume_unique=True).mean())


def _nonzero_patterns(array: AnyArray) -> AnyArray:
    patterns: AnyArray = np.unique(bit_patterns(array))
    return np.compress(patterns != 0, patterns)


def _fingerprint(patterns: AnyArray) -> int:
    return hash(patterns.tobytes())


def coded(model: ir.Model, coding: Callable[[CodedConstant], AnyArray]) -> ir.Model:
    """A copy of the model with integers for weights.

    Raises:
        Inexact: If the coding does.
    """
    copy = model.clone()
    copy.ir_version = max(copy.ir_version or 0, 4)  # before, initializers were inputs
    replace_constants({(c.node, c.position): coding(c) for c in coded_constants(copy)})
    return copy
