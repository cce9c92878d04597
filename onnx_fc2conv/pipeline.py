"""convert(): which passes, in which order; plan first, then apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.geometry import OutputGeometry
from onnx_fc2conv.model_io import ModelSource, as_model
from onnx_fc2conv.passes import FcToConv, FreeInputSize, Normalize
from onnx_fc2conv.passes.fc_to_conv import has_fc_layer
from onnx_fc2conv.views import (
    FcLayer,
    LeftAlone,
    Plan,
    interpret,
    interpret_statically,
    output_geometry,
)

__all__ = ["Conversion", "Interface", "convert", "inspect"]


@dataclass(frozen=True)
class Interface:
    """Shapes of the model's inputs and outputs by name, symbolic dims as their names."""

    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[int | str, ...]]

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """The interface of a model; inputs that an initializer backs are left out."""
        graph = model.graph
        return cls(
            {
                value.name or "": _dims(value)
                for value in graph.inputs
                if value.name not in graph.initializers
            },
            {value.name or "": _dims(value) for value in graph.outputs},
        )


@dataclass(frozen=True)
class Conversion:
    """A conversion that was planned, and carried out unless there are refusals.

    Attributes:
        model: The fully convolutional model; None where it was refused or only inspected.
        heads: The fully connected layers found and their convolutions.
        left_alone: The fully connected layers that stay as they are, each with its reason.
        refusals: Why the model cannot become fully convolutional; empty if it can.
        geometry: What the cells of each output mean, by output name.
        before: Interface of the original model.
        after: Interface of the converted model; None where there is none.
    """

    model: ir.Model | None
    heads: tuple[FcLayer, ...]
    left_alone: tuple[LeftAlone, ...]
    refusals: tuple[Refusal, ...]
    geometry: Mapping[str, OutputGeometry]
    before: Interface
    after: Interface | None


def convert(
    model: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    static: bool = False,
) -> Conversion:
    """Rewrite a classifier so that it slides over images of any size.

    Args:
        model: A path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; never changed.
        input_shapes: Native shape by input name, such as ``{"image": (1, 3, 224, 224)}``, for
            inputs whose shape in the model is symbolic.
        static: Keep the model's sizes and interface; only its fully connected layers change, and
            one that cannot be converted is left alone.

    Returns:
        The conversion, with a model. Its image inputs have symbolic batch and spatial dims; each
        output [N, K] of a converted head has become a map [N, K, *spatial], a single cell at the
        native input size. (With ``static`` the interface is the original's.)

    Raises:
        RefusedError: If there is nothing to convert, or a head cannot be converted.
        ArgumentError: If ``input_shapes`` does not fit the model, or a native size is missing.
        InvalidModelError: If ``model`` is not a valid ONNX model.

    Example:
        >>> conversion = convert("models/face25.onnx")
        >>> [layer.kernel_shape for layer in conversion.heads]
        [(48, 24, 6, 6), (2, 48, 1, 1)]
        >>> conversion.after.outputs["scores"]
        ('N', 2, 'scores_H', 'scores_W')
    """
    conversion = _convert(as_model(model), input_shapes or {}, static=static)
    if conversion.refusals:
        raise RefusedError(conversion.refusals)
    return conversion


def inspect(
    model: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    static: bool = False,
) -> Conversion:
    """Say what `convert` would do: refusals are returned, not raised, and no model is.

    Arguments and the other errors are those of `convert`.
    """
    return replace(_convert(as_model(model), input_shapes or {}, static=static), model=None)


def _convert(
    source: ir.Model, input_shapes: Mapping[str, tuple[int, ...]], *, static: bool
) -> Conversion:
    """Convert ``source`` in place, as far as that is possible."""
    before = Interface.of(source)
    Normalize()(source)
    if not has_fc_layer(source):
        reason = "the model has no Gemm or MatMul: there is nothing to convert"
        return Conversion(None, (), (), (_nothing(reason),), {}, before, None)
    try:
        plan = (interpret_statically if static else interpret)(source, input_shapes)
    except RefusedError as error:
        return Conversion(None, (), (), error.refusals, {}, before, None)
    geometry = {
        output.value.name or "": output_geometry(output, plan.inputs) for output in plan.outputs
    }
    refusals = plan.refusals or _nothing_found(plan)
    if not refusals:
        FcToConv.apply(plan, source)
        refusals = () if static else _freed(source, input_shapes)
    model, after = (None, None) if refusals else (source, Interface.of(source))
    return Conversion(model, plan.layers, plan.left_alone, refusals, geometry, before, after)


def _freed(source: ir.Model, input_shapes: Mapping[str, tuple[int, ...]]) -> tuple[Refusal, ...]:
    """Make the input size dynamic; why not, if that cannot be."""
    try:
        FreeInputSize(input_shapes)(source)
    except RefusedError as error:
        return error.refusals
    return ()


def _nothing_found(plan: Plan) -> tuple[Refusal, ...]:
    """A refusal if the plan converts no layer."""
    if plan.layers:
        return ()
    reasons = "; ".join(f"{layer.node}: {layer.reason}" for layer in plan.left_alone[:3])
    why = f" ({reasons})" if reasons else ""
    return (_nothing(f"no fully connected layer follows a feature map of an image input{why}"),)


def _nothing(reason: str) -> Refusal:
    return Refusal("nothing-to-convert", "model", reason)


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in value.shape)
