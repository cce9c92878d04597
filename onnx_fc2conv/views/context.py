"""The context of a rule: one node, facts about its operands, and a tape to write on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn, TypeVar

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.graphs.names import NameScope, describe
from onnx_fc2conv.views.maps.constant import Constant, Unknown
from onnx_fc2conv.views.maps.labels import AnyArray
from onnx_fc2conv.views.maps.view import (
    Batches,
    FeatureMap,
    FeatureView,
    LabelSpace,
    channels_first,
)
from onnx_fc2conv.views.plan import AttributeValue, ConstantTensor, Intermediate, Step
from onnx_fc2conv.views.tape import Attempt, Frozen, NodeRefused, Tape

__all__ = ["Context", "Fact", "Operand"]

Fact = FeatureView | Constant | Unknown
"""What is known of a tensor."""

Operand = FeatureMap | Intermediate | ConstantTensor | ir.Value | None
Made = TypeVar("Made", bound=FeatureMap | Intermediate)


@dataclass(frozen=True, eq=False)
class Context:
    """One node and its operands.

    Attributes:
        node: The node.
        opset: Version of the node's operator set.
        operands: The fact about each input; None where an optional input is left out.
        space: Gives labels to new maps.
        names: Gives names to new tensors.
        batches: The batch sizes of the labels.
        tape: Records the rule's decisions.
        windowed: Whether the node, if it pools the whole image, should pool each window instead.
        static: Whether sizes stay, so that a window is the whole image.
        patches: Whether a layer of patches of a map is a sliding layer.
    """

    node: ir.Node
    opset: int
    operands: tuple[Fact | None, ...]
    space: LabelSpace
    names: NameScope
    batches: Batches
    tape: Tape
    windowed: bool = False
    static: bool = False
    patches: bool = True

    @property
    def name(self) -> str:
        """The name of the first output, after which new tensors are called."""
        return self.node.outputs[0].name or self.node.op_type

    def operand(self, position: int) -> Fact | None:
        """The operand, None if it is left out."""
        return self.operands[position] if position < len(self.operands) else None

    def view(self, position: int = 0) -> FeatureView | None:
        """The operand if it is a view."""
        fact = self.operand(position)
        return fact if isinstance(fact, FeatureView) else None

    def first_view(self) -> FeatureView:
        """Return the first operand; no other operand of the node may be a view."""
        view = self.view(0)
        assert view is not None
        return view

    def constant_operand(self, position: int) -> Constant | None:
        """The operand if it is a constant."""
        fact = self.operand(position)
        return fact if isinstance(fact, Constant) else None

    def ints_operand(self, position: int) -> tuple[int, ...] | None:
        """The integers of a constant operand, in order; None if it changes with the image."""
        constant = self.constant_operand(position)
        if constant is None or constant.sized:
            return None
        return tuple(int(number) for number in constant.array.reshape(-1))

    def int_attribute(self, name: str, default: int) -> int:
        """An integer attribute or its default."""
        return self.node.attributes.get_int(name, default)

    def ints_attribute(self, name: str) -> tuple[int, ...] | None:
        """An attribute of integers, None if it is absent."""
        ints = self.node.attributes.get_ints(name, None)
        return None if ints is None else tuple(ints)

    def refuse(self, code: str, reason: str) -> NoReturn:
        """End the rule: this node cannot be part of a fully convolutional model.

        Args:
            code: A word of the catalog of refusals.
            reason: Why, with the shapes or values that decided.

        Raises:
            NodeRefused: Always.
        """
        raise NodeRefused(Refusal(code, describe(self.node), reason))

    def require_several_cells(self, source: FeatureMap, does: str) -> None:
        """Refuse the node if the map is the single cell that a layer gives for each window.

        Args:
            source: The map.
            does: What the node does with several cells, such as ``pads``.

        Raises:
            NodeRefused: If so: on a larger image it would reach into neighboring windows.
        """
        if source.one_per_window:
            self.refuse(
                "slides-after-fc",
                f"{does} the single cell that an FC layer gives; on a map it would reach into the "
                "neighboring windows",
            )

    def feature_axes(
        self, view: FeatureView, given: Iterable[int], does: str, *, and_later: bool = False
    ) -> tuple[int, ...]:
        """Axes of a view, which may be counted from the end, in order and counted from 0.

        Args:
            view: The view.
            given: The axes.
            does: What the node does with them, such as ``normalizes over``.
            and_later: Whether all axes behind them belong to them.

        Raises:
            NodeRefused: If one does not exist, or holds the samples.
        """
        rank, listed = len(view.shape), list(given)
        if any(not -rank <= axis < rank for axis in listed):
            self.refuse("invalid-node", f"axes {listed} do not exist in {list(view.shape)}")
        axes = {axis % rank for axis in listed}
        if and_later:
            axes = set(range(min(axes), rank))
        if view.batch_axis in axes:
            self.refuse("batch-mixing", f"{does} axis {view.batch_axis}, which holds the samples")
        return tuple(sorted(axes))

    def carried(self, *names: str) -> tuple[str, ...]:
        """Those of these attributes that the node has."""
        return tuple(name for name in names if name in self.node.attributes)

    def attempt(self) -> Attempt:
        """A block that may refuse the node without ending the rule."""
        return Attempt(self.tape)

    def fresh(self, name: str) -> str:
        """A name for a new tensor: this one, if it is free."""
        return self.names.fresh(name)

    def constant(self, name: str, array: AnyArray) -> ConstantTensor:
        """A new constant, called so if that name is free."""
        return ConstantTensor(self.names.fresh(name), array.shape, lambda: ir.Tensor(array))

    def integers(self, name: str, values: list[int]) -> ConstantTensor:
        """A new constant of integers: a shape, or axes."""
        return self.constant(f"{name}.sizes", np.array(values, np.int64))

    def tensor(self, name: str, dtype: ir.DataType) -> Intermediate:
        """Make a tensor that is no map, of this name if it is free."""
        return Intermediate(self.names.fresh(name), dtype)

    def new_map(self, like: FeatureMap, **changes: Any) -> FeatureMap:
        """Make a map of this node: ``like`` another, except for new labels and the ``changes``."""
        made: dict[str, Any] = {
            "name": self.node.outputs[0].name or "",
            "sources": (like,),
            "value": None,
            "layout": channels_first(2 + len(like.extent)),
            "lacks": (),
            "pads": None,
            "mixes_positions": None,
            "pooled_by": None,
            "subdivides": None,
            "parts": None,
            "constant": None,
            "deferred": None,
            "base": None,
        }
        made |= changes
        size = made.get("channels", like.channels) * prod(made.get("extent", like.extent))
        made["first_label"] = self.space.reserve(size)
        return self.space.add(replace(like, **made))

    def kept(self, like: FeatureMap, **changes: Any) -> FeatureView:
        """Keep the node; return its output, a map ``like`` this one except for the ``changes``."""
        made = self.new_map(like, **{"value": self.node.outputs[0], **changes})
        return FeatureView.of(made, self.space, self.batches)

    def kept_in_layout(self, view: FeatureView, **changes: Any) -> FeatureView:
        """Keep the node, which reads a whole map; return its output, in the layout of the map."""
        assert view.whole_map is not None
        return self.kept(view.whole_map, layout=view.layout, **changes)

    def freeze(self, attributes: Mapping[str, AttributeValue | None]) -> None:
        """Write these attributes into the node, which stays (None removes one)."""
        if attributes:
            self.tape.append(Frozen(self.node, attributes))

    def emit(  # noqa: PLR0913 - the parts of a step
        self,
        op_type: str,
        inputs: tuple[Operand, ...],
        output: Made,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        carried: tuple[str, ...] = (),
        further: tuple[FeatureMap | Intermediate, ...] = (),
        domain: str = "",
    ) -> Made:
        """Emit a new node and return its ``output``; the arguments are those of `Step`."""
        written = attributes or {}
        self.tape.append(
            Step(op_type, inputs, output, self.node, written, carried, further, domain)
        )
        return output
