"""RefineStride: a denser grid of windows, by dilating what follows a layer without its stride."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_fc2conv.errors import RefusedError
from onnx_fc2conv.graphs.shapes import forget_shapes, infer_shapes
from onnx_fc2conv.graphs.writer import GraphWriter
from onnx_fc2conv.passes.apply import write_attributes
from onnx_fc2conv.passes.dilated_layers import DilatedLayer
from onnx_fc2conv.passes.refinement import (
    Refinement,
    ScaledPad,
    Thinning,
    plan_refinement,
    strides_per_axis,
)
from onnx_fc2conv.views.interpreter import Interpreter

__all__ = ["RefineStride"]


@dataclass(frozen=True)
class RefineStride(ir.passes.InPlacePass):
    """Let the windows of all outputs lie ``stride`` pixels apart, a divisor of their distance.

    1. A map of stride S gets stride gcd(S, ``stride``): the last strided layers lose their stride,
       where maps are smallest and dilation costs least, and one may lose a part (4 becomes 2).
    2. Every later layer is dilated and its pads are scaled (`dilated_layers` has the algebra);
       weights stay as they are. With ``f = S / stride`` every f-th cell of an output keeps its
       value, at every image size. In a net without padding the others equal the crops that start
       ``stride`` pixels apart; with padding, they equal the net's values on those windows, and
       padding reaches as far into the map as before.
    3. A pooling whose pads grow beyond its kernel gets a Pad in front: onnxruntime takes no pads
       that large. An AveragePool with such pads, or that its opset cannot dilate, becomes a
       depthwise Conv if it counts its padding.
    4. A node that pools the whole image (a gate's squeeze) sees every f-th cell, as before.
    5. A node that cannot be carried to a denser grid is refused: a Resize, a spatial Slice, a
       pooling without dilations, an operator that mixes positions.

    (Giusti, Cireşan, Masci, Gambardella, Schmidhuber: *Fast Image Scanning with Deep Max-Pooling
    Convolutional Neural Networks*, ICIP 2013; Li, Zhao, Wang: *Highly Efficient Forward and
    Backward Propagation of Convolutional Neural Networks for Pixelwise Classification*,
    arXiv:1412.4526.)

    Run it after `FcToConv`, before `FreeInputSize`. A model whose windows lie that close together
    already is left alone.

    Attributes:
        stride: Pixels between neighboring windows: one number, or one an axis.
        input_shapes: Native shape by input name, where the model's own is symbolic.

    Raises:
        RefusedError: If a node cannot be carried to a denser grid, or is tied to the native size
            (then nothing is changed).
        ArgumentError: If ``stride`` does not divide the stride of an output, no output has windows,
            or a native size is missing.
    """

    stride: int | tuple[int, ...]
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strides_per_axis(self.stride)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Plan, then apply."""
        plan = self.plan(model)
        return ir.passes.PassResult(model, modified=self.apply(plan, model))

    def plan(self, model: ir.Model) -> Refinement:
        """Plan the refinement of the model.

        Raises:
            RefusedError: If a node cannot be carried to a denser grid, or is tied to the native
                size.
            ArgumentError: If ``stride`` does not fit the model, or a native size is missing.
        """
        interpreter = Interpreter(model, self.input_shapes)
        plan = interpreter.run()
        if plan.refusals:
            raise RefusedError(plan.refusals)
        return plan_refinement(interpreter, plan, self.stride)

    @staticmethod
    def apply(plan: Refinement, model: ir.Model) -> bool:
        """Carry out a plan that was made for this very model."""
        if not (plan.layers or plan.pads or plan.thinnings):
            return False
        writer = GraphWriter(model)
        for layer in plan.layers:
            if layer.padding:
                _pad(layer, writer)
            _dilate(layer, writer)
        for pad in plan.pads:
            _scale(pad, writer)
        for thinning in plan.thinnings:
            _thin(thinning, writer)
        forget_shapes(model)
        infer_shapes(model)
        return True


def _dilate(layer: DilatedLayer, writer: GraphWriter) -> None:
    """Write the hyperparameters; an AveragePool may become a Conv."""
    node = layer.node
    if layer.window:
        node.op_type = "Conv"
        for name in ("count_include_pad", "ceil_mode"):
            node.attributes.pop(name, None)
        dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
        share = layer.mean_weights(dtype or ir.DataType.FLOAT)
        kernel = writer.constant(f"{node.outputs[0].name}.mean", share)
        node.resize_inputs(2)
        node.replace_input_with(1, kernel)
    write_attributes(node, layer.attributes)


def _pad(layer: DilatedLayer, writer: GraphWriter) -> None:
    """Put a Pad before the layer."""
    source = layer.node.inputs[0]
    assert source is not None
    rank = len(layer.padding) // 2
    pads = (0, 0, *layer.padding[:rank], 0, 0, *layer.padding[rank:])
    fill = layer.fill(source.dtype or ir.DataType.FLOAT)
    padded = writer.before(layer.node, typed=True).pad(source, pads, fill)
    layer.node.replace_input_with(0, padded)


def _scale(pad: ScaledPad, writer: GraphWriter) -> None:
    """Write the amounts where the Pad has them."""
    if "pads" in pad.node.attributes:
        write_attributes(pad.node, {"pads": pad.pads})
    else:
        pad.node.replace_input_with(1, writer.integers(pad.pads))


def _thin(thinning: Thinning, writer: GraphWriter) -> None:
    """Put a pooling of one cell each before the node: every f-th cell is left."""
    node, factors = thinning.node, thinning.factors
    at = writer.before(node, typed=True)
    ones = [1] * len(factors)
    picked = at.node("MaxPool", node.inputs[0], kernel_shape=ones, strides=factors)
    node.replace_input_with(0, picked)
