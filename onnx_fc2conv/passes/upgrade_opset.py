"""UpgradeOpset: a model of opset 1 to 6 in the operators of opset 7."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.graphs.shapes import known_shapes
from onnx_fc2conv.graphs.writer import GraphWriter
from onnx_fc2conv.passes.old_operators import ALIGNED, UPGRADES, OldModel, Upgrade

__all__ = ["OLDEST_OPSET", "UpgradeOpset"]

OLDEST_OPSET: Final = 7
"""Before it operators broadcast in a way of their own, and onnxruntime runs few of them."""

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class UpgradeOpset(ir.passes.InPlacePass):
    """Write a model of an opset before 7 in the operators of opset 7 that compute the same.

    1. An operator that opset 7 has in the same version stays as it is.
    2. Attributes that became inputs or defaults, or vanished, are rewritten (`old_operators`).
    3. An operand that broadcasts from some axis on, and the slopes of PRelu, get an Unsqueeze:
       opset 7 aligns the last axes.
    4. BatchNormalization and Dropout that are not in test mode are refused, and so is any other
       operator that changed (recurrent ones, LpPool-1, Split-1 …) or has a subgraph.

    A model of opset 7 or later is left alone.

    ``onnx.version_converter`` would not do: it stops at the usual ``broadcast=1, axis=1``, upgrades
    PRelu to another function, and takes all weights in one protobuf.

    Raises:
        RefusedError: If a node cannot be upgraded (then nothing is changed).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Plan every upgrade, then carry them out."""
        opset = model.opset_imports.get("", OLDEST_OPSET)
        if opset >= OLDEST_OPSET:
            return ir.passes.PassResult(model, modified=False)
        old = OldModel(GraphWriter(model), _ranks(model))
        for node, upgrade in _planned(old):
            upgrade(node)
        model.graph.opset_imports[""] = OLDEST_OPSET
        return ir.passes.PassResult(model, modified=True)


def _planned(old: OldModel) -> list[tuple[ir.Node, Upgrade]]:
    """The upgrade of each node that needs one.

    Raises:
        RefusedError: If a node cannot be upgraded.
    """
    upgrades: list[tuple[ir.Node, Upgrade]] = []
    refusals: list[Refusal] = []
    for node in old.writer.graph:
        try:
            upgrade = _upgrade(old, node)
        except RefusedError as error:
            refusals += error.refusals
        else:
            upgrades += [] if upgrade is None else [(node, upgrade)]
    if refusals:
        raise RefusedError(refusals)
    return upgrades


def _upgrade(old: OldModel, node: ir.Node) -> Upgrade | None:
    """The upgrade of a node, None if it needs none.

    Raises:
        RefusedError: If there is none that computes the same.
    """
    if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        old.refuse(node, "has a subgraph")
    if node.domain:
        return None
    version = _version(node.op_type, old.writer.opset)
    if version is not None and version == _version(node.op_type, OLDEST_OPSET):
        return None
    rule = UPGRADES.get(node.op_type)
    if rule is None:
        old.refuse(node, f"is {node.op_type}-{version}, which no rule upgrades")
    return rule(old, node)


def _version(op_type: str, opset: int) -> int | None:
    """The version of an operator in an operator set; None if it is not in there."""
    try:
        return int(onnx.defs.get_schema(op_type, opset, "").since_version)
    except onnx.defs.SchemaError:
        return None


def _ranks(model: ir.Model) -> Mapping[str, int]:
    """Ranks of the model's tensors by name.

    ONNX infers no shapes through the first versions of its operators. It does in opset 7 if what
    would have to be aligned by ranks is left out: its first operand has the shape of the result.
    """
    sketch = model.clone()
    old = OldModel(GraphWriter(sketch), {})
    for node in sketch.graph:
        if node.op_type in ALIGNED and not node.domain:
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)
            continue
        with suppress(RefusedError):
            if (upgrade := _upgrade(old, node)) is not None:
                upgrade(node)
    sketch.graph.opset_imports[""] = OLDEST_OPSET
    return {name: len(shape) for name, shape in known_shapes(sketch).items()}
