"""Operators of opsets 1 to 6, written in operators of opset 7.

Sources: the operator versions that are named, in ONNX's Changelog.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.graphs.writer import GraphWriter

__all__ = ["ALIGNED", "UPGRADES", "OldModel", "Upgrade"]

Upgrade = Callable[[ir.Node], None]


@dataclass(frozen=True, eq=False)
class OldModel:
    """The facts about a model that the upgrade of a node needs.

    Attributes:
        writer: Writes into its graph; has its opset.
        ranks: Ranks of its tensors by name, as far as they are known.
    """

    writer: GraphWriter
    ranks: Mapping[str, int]

    def refuse(self, node: ir.Node, why: str) -> NoReturn:
        """Refuse the node, with the model's opset in the reason."""
        opset = self.writer.opset
        reason = f"{why}, and the model's opset {opset} must be upgraded to be converted"
        raise RefusedError([Refusal("old-opset", describe(node), reason)])

    def rank(self, node: ir.Node, position: int) -> int | None:
        """Rank of an operand."""
        value = node.inputs[position]
        return None if value is None else self.ranks.get(value.name or "")


Rule = Callable[[OldModel, ir.Node], Upgrade]
"""Gives the upgrade of a node; raises RefusedError where there is none."""


def _broadcasting(old: OldModel, node: ir.Node) -> Upgrade:
    """Align the second operand at ``axis``, by default with the last axes (Add-1/6)."""
    axis = node.attributes.get_int("axis", None)
    if axis is None or not node.attributes.get_int("broadcast", 0):
        return _aligned(0, 0)
    rank, inner = old.rank(node, 0), old.rank(node, 1)
    if rank is None or inner is None:
        old.refuse(node, f"broadcasts from axis {axis} of a tensor of unknown rank")
    if axis < 0 and axis != -inner:
        old.refuse(node, f"broadcasts {inner} axes from axis {axis}, which has two readings")
    trailing = rank - inner - axis % rank
    if trailing < 0:
        old.refuse(node, f"broadcasts {inner} axes from axis {axis} of {rank}")
    return _aligned(inner, trailing)


def _prelu(old: OldModel, node: ir.Node) -> Upgrade:
    """PRelu-1/6 has one slope for all, or one for each channel, which is axis 1."""
    slope, rank = node.inputs[1], old.rank(node, 0)
    if slope is None or slope.shape is None or rank is None:
        old.refuse(node, "has a slope, or an input, of unknown shape")
    if len(slope.shape) != 1:
        old.refuse(node, f"has a slope of shape {list(slope.shape)}, not one a channel")
    return _aligned(1, 0 if slope.shape[0] == 1 else max(0, rank - 2))


def _aligned(rank: int, trailing: int) -> Upgrade:
    """Give the second operand more axes at its end."""

    def upgrade(node: ir.Node) -> None:
        _drop(node, "consumed_inputs", "broadcast", "axis")
        if not trailing:
            return
        axes = list(range(rank, rank + trailing))
        unsqueeze = ir.node("Unsqueeze", [node.inputs[1]], {"axes": axes})
        assert node.graph is not None
        node.graph.insert_before(node, unsqueeze)
        node.replace_input_with(1, unsqueeze.outputs[0])

    return upgrade


def _inference(_: OldModel, node: ir.Node) -> Upgrade:
    """BatchNormalization-1/6 and Dropout-1/6 train unless ``is_test`` is set."""
    if not node.attributes.get_int("is_test", 0):
        reason = "is in training mode, its is_test is not 1: export the model for inference"
        raise RefusedError([Refusal("training-mode", describe(node), reason)])
    return _without("consumed_inputs", "is_test")


def _cast(old: OldModel, node: ir.Node) -> Upgrade:
    """Cast-1 has the type as a string."""
    name = node.attributes.get_string("to", None) or ""
    if name not in ir.DataType.__members__:
        old.refuse(node, f"casts to {name!r}, which is no type")

    def upgrade(node: ir.Node) -> None:
        node.attributes.add(ir.AttrInt64("to", ir.DataType[name].value))

    return upgrade


def _reshape(old: OldModel, node: ir.Node) -> Upgrade:
    """Reshape-1 has its shape in an attribute."""
    shape = node.attributes.get_ints("shape", None)
    if shape is None:
        old.refuse(node, "has no shape")

    def upgrade(node: ir.Node) -> None:
        _drop(node, "consumed_inputs", "shape")
        name = f"{node.outputs[0].name}.shape"
        node.resize_inputs(2)
        node.replace_input_with(1, old.writer.constant(name, np.array(shape, np.int64)))

    return upgrade


def _concat(_: OldModel, node: ir.Node) -> Upgrade:
    """Concat-1 joins along axis 1 unless told otherwise."""
    axis = node.attributes.get_int("axis", 1)
    return lambda node: node.attributes.add(ir.AttrInt64("axis", axis))


def _pad(old: OldModel, node: ir.Node) -> Upgrade:
    """Pad-1 calls its pads ``paddings``."""
    pads = node.attributes.get_ints("paddings", None)
    if pads is None:
        old.refuse(node, "has no paddings")

    def upgrade(node: ir.Node) -> None:
        _drop(node, "paddings")
        node.attributes.add(ir.AttrInt64s("pads", list(pads)))

    return upgrade


def _selu(_: OldModel, node: ir.Node) -> Upgrade:
    """Selu-1 has default constants of five digits."""
    alpha = node.attributes.get_float("alpha", 1.6732)
    gamma = node.attributes.get_float("gamma", 1.0507)

    def upgrade(node: ir.Node) -> None:
        _drop(node, "consumed_inputs")
        node.attributes.add(ir.AttrFloat32("alpha", alpha))
        node.attributes.add(ir.AttrFloat32("gamma", gamma))

    return upgrade


def _losing(*names: str) -> Rule:
    """Return a rule for an operator that lost these attributes and is otherwise the same."""

    def rule(_: OldModel, __: ir.Node) -> Upgrade:
        return _without(*names)

    return rule


def _without(*names: str) -> Upgrade:
    return lambda node: _drop(node, *names)


def _drop(node: ir.Node, *names: str) -> None:
    for name in names:
        node.attributes.pop(name, None)


ALIGNED: Mapping[str, Rule] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), _broadcasting),
    **dict.fromkeys(("And", "Or", "Xor", "Equal", "Less", "Greater"), _broadcasting),
    "PRelu": _prelu,
}
"""Operators whose second operand has to be aligned: their upgrades need ranks.

Their result has the shape of their first operand.
"""

_HINTED = (
    *("Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "HardSigmoid", "InstanceNormalization"),
    *("LeakyRelu", "Log", "Max", "Mean", "Min", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt"),
    *("Sum", "Tanh"),
)
"""Operators that only lost a hint about memory use, and accept more types."""

UPGRADES: Mapping[str, Rule] = {
    **ALIGNED,
    **dict.fromkeys(_HINTED, _losing("consumed_inputs")),
    "AveragePool": _losing(),  # its padding was not counted, which is the default now
    "BatchNormalization": _inference,
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _inference,
    "Gemm": _losing("broadcast"),  # by its last axes
    "Pad": _pad,
    "Reshape": _reshape,
    "Selu": _selu,
}
"""The rule for each operator that opset 7 has in another version."""
