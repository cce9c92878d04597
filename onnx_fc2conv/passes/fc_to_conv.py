"""FcToConv: every fully connected layer after feature maps becomes a convolution."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, RefusedError
from onnx_fc2conv.graphs.operators import FC_OPERATORS, MICROSOFT
from onnx_fc2conv.graphs.shapes import infer_shapes
from onnx_fc2conv.passes.apply import apply
from onnx_fc2conv.views import Plan, Pool, interpret, interpret_statically

__all__ = ["FcToConv", "has_fc_layer"]

logger = logging.getLogger(__name__)


def has_fc_layer(model: ir.Model) -> bool:
    """Whether the model has any node that could be a fully connected layer, bodies included."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return any(node.op_type in FC_OPERATORS and node.domain in ("", MICROSOFT) for node in nodes)


@dataclass(frozen=True)
class FcToConv(ir.passes.InPlacePass):
    """Replace Flatten→Gemm chains by Conv nodes whose kernels are the reshaped weights.

    1. Each Gemm or MatMul of a view of a feature map by a constant matrix becomes a Conv; the
       operators between and after such layers work on the resulting maps.
    2. Outputs [N, K] become maps [N, K, *spatial], a single cell at the native input size; names
       stay.
    3. ``auto_pad`` and ``ceil_mode`` of the trunk are frozen to the pads of the native size.
    4. Initializers are never changed: a kernel is a new one that shares the weight's bytes where
       it has them in the same order.

    With ``pool="window"`` a global pooling of the head becomes a pooling of the native extent with
    stride 1; the squeeze of a squeeze-and-excite gate keeps seeing the whole image. With ``"keep"``
    all global poolings do.

    With ``static`` the interface and everything else stay as they are: 2 and 3 do not apply, and a
    tensor that some node still needs is restored from the maps that hold it. A layer whose operand
    is no map becomes a 1×1 Conv in its own place, its operand [N, T, D] brought to [N, D, T, 1] and
    back; a layer without a constant matrix is left alone. With ``all_linear``, layers that
    depend on no image are converted too.

    A model without such a layer is left alone.

    Attributes:
        input_shapes: Native shape by input name, where the model's own is symbolic.
        static: Whether sizes and interface stay; goes with ``pool="keep"`` only.
        pool: Whether the head's global pooling is kept or becomes a pooling of each window.
        all_linear: Whether every Gemm and MatMul by a constant matrix is converted, not only those
            that depend on an image; goes with ``static`` only.

    Raises:
        RefusedError: If a node cannot be part of a fully convolutional model (then nothing is
            changed).
        ArgumentError: If a native size is missing or does not fit, or if ``pool="window"`` is asked
            for with ``static``, or ``all_linear`` without.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    static: bool = False
    pool: Pool = "keep"
    all_linear: bool = False

    def __post_init__(self) -> None:
        if self.static and self.pool != "keep":
            raise ArgumentError("static mode keeps every pooling: leave out --pool window")
        if self.all_linear and not self.static:
            raise ArgumentError(
                "--all-linear goes with --static only: a model without feature maps has no windows"
            )
        if self.pool not in get_args(Pool):
            raise ArgumentError(f"there is no pool {self.pool!r}; it is 'keep' or 'window'")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Plan, then apply."""
        if self.pool == "keep" and not has_fc_layer(model):
            return ir.passes.PassResult(model, modified=False)
        plan = self.plan(model)
        if not plan.layers and not plan.poolings and not plan.refusals:
            logger.debug("no fully connected layer follows a feature map")
            return ir.passes.PassResult(model, modified=False)
        modified = self.apply(plan, model)
        if modified:
            infer_shapes(model)
        return ir.passes.PassResult(model, modified=modified)

    def plan(self, model: ir.Model) -> Plan:
        """Plan the conversion of the model.

        Raises:
            ArgumentError: If a native size is missing or does not fit.
        """
        if self.static:
            return interpret_statically(model, self.input_shapes, all_linear=self.all_linear)
        return interpret(model, self.input_shapes, pool=self.pool)

    @staticmethod
    def apply(plan: Plan, model: ir.Model) -> bool:
        """Carry out a plan that was made for this very model.

        Raises:
            RefusedError: If the plan has refusals.
        """
        if plan.refusals:
            raise RefusedError(plan.refusals)
        return apply(plan, model)
