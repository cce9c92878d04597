"""The rules' decisions: frozen values, which only the passes apply to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.maps.labels import IntArray
from onnx_fc2conv.views.maps.view import FeatureMap

__all__ = [
    "AttributeValue",
    "ConstantTensor",
    "FcLayer",
    "ImageInput",
    "Intermediate",
    "LeftAlone",
    "OutputMap",
    "Plan",
    "PointwiseLayer",
    "Rebuilt",
    "Step",
    "WindowPooling",
]

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ConstantTensor:
    """A tensor that a step reads: ``make`` is called when the plan is applied, not before.

    ``original`` is the model's own tensor of the same elements in the same order, if any.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], ir.TensorProtocol] = field(repr=False)
    original: ir.Value | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Intermediate:
    """A tensor between two steps that is no map: a shape, or a map with its channels in groups."""

    name: str
    dtype: ir.DataType


@dataclass(frozen=True, eq=False)
class Step:
    """One node of the converted model, which makes the map ``output``.

    ``carried`` are attributes copied from ``source``, the node that it replaces. ``further`` are
    its outputs after the first one, ``domain`` is the operator's.
    """

    op_type: str
    inputs: tuple[FeatureMap | Intermediate | ConstantTensor | ir.Value | None, ...]
    output: FeatureMap | Intermediate
    source: ir.Node
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    carried: tuple[str, ...] = ()
    further: tuple[FeatureMap | Intermediate, ...] = ()
    domain: str = ""


@dataclass(frozen=True)
class FcLayer:
    """A fully connected layer and the convolution that computes the same numbers.

    Attributes:
        node: Name of the node.
        op_type: Its operator, one of `FC_OPERATORS`.
        weight: Name of the weight tensor in the original model.
        weight_shape: (out features, in features).
        kernel: Name of the kernel initializer.
        kernel_shape: (out channels, in channels, *spatial).
        bytes_kept: How the kernel's elements come from the weight's: ``same`` (the very bytes,
            reshaped), ``permuted`` (the same elements in another order, zeros where the layer
            reads nothing) or ``folded`` (scaled by alpha or by a preceding affine).
        parts: Number of kernels that it has been split into; ``kernel`` is the first.
    """

    node: str
    op_type: str
    weight: str
    weight_shape: tuple[int, int]
    kernel: str
    kernel_shape: tuple[int, ...]
    bytes_kept: str
    parts: int = 1


@dataclass(frozen=True)
class WindowPooling:
    """A global pooling that has become a pooling of windows with stride 1.

    Attributes:
        node: Name of the node that pooled the whole image.
        op_type: Its operator.
        pooling: The operator that slides.
        kernel: Its window: the native extent of the feature map.
    """

    node: str
    op_type: str
    pooling: str
    kernel: tuple[int, ...]


@dataclass(frozen=True)
class LeftAlone:
    """A fully connected layer that stays as it is, and why."""

    node: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageInput:
    """A graph input whose spatial axes become dynamic."""

    value: ir.Value
    feature_map: FeatureMap


@dataclass(frozen=True, eq=False)
class OutputMap:
    """A graph output and the map that takes its place: [N, K] becomes [N, K, *spatial].

    Attributes:
        value: The output.
        feature_map: The map.
        layout: ``transpose(layout)`` brings the output to [N, C, *spatial].
        stays: Whether the output is this map already.
        features: Lengths of the axes that replace the channel axis: (A, B) for
            [N, A, B, *spatial], () for [N, *spatial]; None for [N, K, *spatial].
        tensor: The map with these axes, where they are not its own.
        gone: Spatial axes of the map, from 0, that the output lacks, as its image does.
    """

    value: ir.Value
    feature_map: FeatureMap
    layout: tuple[int, ...]
    stays: bool
    features: tuple[int, ...] | None = None
    tensor: Intermediate | None = None
    gone: tuple[int, ...] = ()

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The axes of the output along which its cells lie."""
        if self.features is None:
            return self.layout[2:]
        first = 1 + len(self.features)
        return tuple(range(first, first + len(self.feature_map.extent) - len(self.gone)))


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A tensor of the original model that is restored from maps, at the native size.

    Attributes:
        value: The tensor.
        sources: The maps that it draws on.
        elements: For each element of a sample, row-major, its position in the flattened maps,
            one map after the other.
        shape: Shape of the tensor without its batch axis.
        batch_axis: The axis of the samples; None where the model dropped it.
    """

    value: ir.Value
    sources: tuple[FeatureMap, ...]
    elements: IntArray
    shape: tuple[int, ...]
    batch_axis: int | None


@dataclass(frozen=True, eq=False)
class PointwiseLayer:
    """A layer that is a 1×1 Conv in its own place, its operand brought to a map and back.

    Attributes:
        node: The Gemm or MatMul.
        position: Index of the operand among its inputs.
        rank: Rank of the operand.
        axis: The contracted axis of the operand, from 0.
        out_axis: The output axis of the product, at the operand's rank; None if the weight is a
            vector, whose product has no such axis.
        leading: Axes of length 1 that a stored weight [1, …, D, K] puts before the product's.
        merged: Lengths of the axes that share the last axis of the map, if there are too many for
            an axis each; None for a symbolic one.
        kernel: [K, D, 1, 1].
        bias: [K], None without one.
        added: Whether the input C of a Gemm is no bias, and is added afterwards, times ``beta``.
        beta: Its factor.
    """

    node: ir.Node
    position: int
    rank: int
    axis: int
    out_axis: int | None
    leading: int
    merged: tuple[int | None, ...]
    kernel: ConstantTensor
    bias: ConstantTensor | ir.Value | None = None
    added: bool = False
    beta: float = 1.0


@dataclass(frozen=True, eq=False)
class Plan:
    """All changes to a model, and the reasons for what cannot be done.

    Attributes:
        steps: Nodes to add, in graph order.
        outputs: The map of each graph output that depends on an image.
        inputs: The image inputs.
        layers: The fully connected layers found and converted.
        left_alone: The fully connected layers that stay.
        frozen: Attributes of kept nodes that must be written out (None removes one).
        materialized: Tensors that kept nodes read, and the maps that take their places.
        rebuilt: Tensors to make anew from maps (static mode).
        pointwise: Layers that become a Conv in their own place (static mode).
        poolings: The global poolings that have become poolings of windows.
        replaced: Tensors beside the maps that steps make now.
        refusals: Reasons why the model cannot become fully convolutional.
    """

    steps: tuple[Step, ...]
    outputs: tuple[OutputMap, ...]
    inputs: tuple[ImageInput, ...]
    layers: tuple[FcLayer, ...]
    left_alone: tuple[LeftAlone, ...]
    frozen: Mapping[ir.Node, Mapping[str, AttributeValue | None]]
    materialized: Mapping[ir.Value, FeatureMap]
    refusals: tuple[Refusal, ...]
    rebuilt: tuple[Rebuilt, ...] = ()
    pointwise: tuple[PointwiseLayer, ...] = ()
    poolings: tuple[WindowPooling, ...] = ()
    replaced: Mapping[ir.Value, Intermediate] = field(default_factory=dict)
