"""convert() and inspect(): the passes of a conversion, in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import update_wrapper
from inspect import signature
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.geometry import GEOMETRY_KEY, Geometry, write_geometry
from onnx_fc2conv.options import Options, Reduce
from onnx_fc2conv.passes import (
    FcToConv,
    FreeInputSize,
    Normalize,
    ReduceOutputs,
    RefineStride,
    SplitKernels,
)
from onnx_fc2conv.passes.fc_to_conv import has_fc_layer
from onnx_fc2conv.passes.refinement import refined_strides
from onnx_fc2conv.views import (
    FcLayer,
    ImageInput,
    LeftAlone,
    OutputMap,
    Plan,
    WindowPooling,
    interpret,
    output_geometry,
)

__all__ = ["Conversion", "Interface", "OpsetUpgrade", "Options", "attempt", "convert", "inspect"]


@dataclass(frozen=True)
class OpsetUpgrade:
    """The upgrade of an old model to newer operators, which comes before anything else.

    Attributes:
        before: The opset of the original model.
        after: The opset of the converted model.
    """

    before: int
    after: int


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
        poolings: The global poolings that pool windows now.
        lifted: The opsets before and after, where the model's was too old to convert; else None.
    """

    model: ir.Model | None
    heads: tuple[FcLayer, ...]
    left_alone: tuple[LeftAlone, ...]
    refusals: tuple[Refusal, ...]
    geometry: Mapping[str, Geometry]
    before: Interface
    after: Interface | None
    poolings: tuple[WindowPooling, ...] = ()
    lifted: OpsetUpgrade | None = None


Keywords = ParamSpec("Keywords")
Result = TypeVar("Result")


def _by_keyword(
    options: Callable[Keywords, Options],
) -> Callable[
    [Callable[[ModelSource, Options], Result]],
    Callable[Concatenate[ModelSource, Keywords], Result],
]:
    """Let a function of a model and `Options` take each field of the options as a keyword."""

    def decorate(
        function: Callable[[ModelSource, Options], Result],
    ) -> Callable[Concatenate[ModelSource, Keywords], Result]:
        def called(model: ModelSource, *args: Keywords.args, **given: Keywords.kwargs) -> Result:
            return function(model, options(*args, **given))

        update_wrapper(called, function)
        own = signature(function)
        keywords = signature(options).parameters.values()
        called.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[own.parameters["model"], *keywords]
        )
        called.__doc__ = f"{function.__doc__}\n    {Options.__doc__}"
        return called  # type: ignore[return-value] # a Callable cannot say that it has a name

    return decorate


@_by_keyword(Options)
def convert(model: ModelSource, options: Options) -> Conversion:
    """Rewrite a classifier so that it slides over images of any size.

    Args:
        model: A path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; never changed.
        options: The fields of `onnx_fc2conv.options.Options`, each as a keyword of its own.

    Returns:
        The conversion, with a model. Its image inputs have symbolic batch and spatial dims; each
        output [N, K] of a converted head has become a map [N, K, *spatial], a single cell at the
        native input size. (With ``static`` the interface is the original's.)

    Raises:
        RefusedError: If there is nothing to convert, or a head cannot be converted.
        ArgumentError: If ``input_shapes`` does not fit the model, a native size is missing, or
            options contradict each other.
        InvalidModelError: If ``model`` is not a valid ONNX model.

    Example:
        >>> conversion = convert("models/face25.onnx")
        >>> [layer.kernel_shape for layer in conversion.heads]
        [(48, 24, 6, 6), (2, 48, 1, 1)]
        >>> conversion.after.outputs["scores"]
        ('N', 2, 'scores_H', 'scores_W')
    """
    conversion = attempt(model, options)
    if conversion.refusals:
        raise RefusedError(conversion.refusals)
    return conversion


@_by_keyword(Options)
def inspect(model: ModelSource, options: Options) -> Conversion:
    """Say what `convert` would do: refusals are returned, not raised, and no model is.

    Arguments and the other errors are those of `convert`.
    """
    return replace(attempt(model, options), model=None)


@dataclass(frozen=True)
class _Passes:
    """The passes of a conversion, set up with its options."""

    fc_to_conv: FcToConv
    refine: RefineStride | None
    reduce: ReduceOutputs
    split: SplitKernels

    @classmethod
    def of(cls, options: Options) -> _Passes:
        shapes = options.input_shapes or {}
        if options.stride is not None and options.static:
            raise ArgumentError("static mode has one window only: leave out --stride")
        if options.stride is not None and options.reduce != "none":
            raise ArgumentError("--stride makes a denser map, of which --reduce leaves one vector")
        if options.static and options.reduce != "none":
            raise ArgumentError("static mode keeps the outputs as they are: leave out --reduce")
        return cls(
            FcToConv(shapes, options.static, options.pool, options.all_linear),
            None if options.stride is None else RefineStride(options.stride, shapes),
            ReduceOutputs(options.reduce, shapes),
            SplitKernels(options.max_kernel, options.max_depth),
        )


def attempt(model: ModelSource, options: Options) -> Conversion:
    """Do what `convert` does: refusals are returned, not raised.

    The errors are those of `convert`.
    """
    source = as_model(model)
    passes = _Passes.of(options)
    found = Conversion(None, (), (), (), {}, Interface.of(source), None)
    opset = source.opset_imports.get("")
    try:
        Normalize()(source)
        found = replace(found, lifted=_upgrade(opset, source.opset_imports.get("")))
        _require_layers(source, passes.fc_to_conv)
        plan = passes.fc_to_conv.plan(source)
        geometry = {
            output.value.name or "": _geometry(output, plan.inputs, options.reduce)
            for output in plan.outputs
        }
        found = replace(
            found,
            heads=plan.layers,
            left_alone=plan.left_alone,
            geometry=geometry,
            poolings=plan.poolings,
        )
        _require_feasible(plan, passes.fc_to_conv)
        passes.fc_to_conv.apply(plan, source)
        if not options.static:
            geometry = _freed(source, passes, plan, geometry)
        heads = _split(source, passes.split, plan.layers)
    except RefusedError as error:
        return replace(found, refusals=error.refusals)
    if not options.static:
        write_geometry(source, geometry)
    after = Interface.of(source)
    return replace(found, model=source, heads=heads, geometry=geometry, after=after)


def _upgrade(before: int | None, after: int | None) -> OpsetUpgrade | None:
    """The upgrade of the opset, None if there was none."""
    if before is None or after is None or before >= after:
        return None
    return OpsetUpgrade(before, after)


def _require_layers(source: ir.Model, fc_to_conv: FcToConv) -> None:
    """Refuse a model without any operator that `FcToConv` would convert."""
    if has_fc_layer(source) or fc_to_conv.pool == "window":
        return
    if GEOMETRY_KEY in source.metadata_props:
        _refuse_nothing(
            "it is a conversion already, there is nothing to convert; "
            f"{GEOMETRY_KEY} in its metadata says what its cells mean"
        )
    _refuse_nothing("the model has no Gemm or MatMul: there is nothing to convert")


def _require_feasible(plan: Plan, fc_to_conv: FcToConv) -> None:
    """Refuse a plan that has refusals, converts nothing, or gives cells without a window."""
    if plan.refusals:
        raise RefusedError(plan.refusals)
    if not (plan.layers or plan.poolings):
        _refuse_nothing(_no_layer(plan, fc_to_conv))
    subdivided = () if fc_to_conv.static else _subdivided(plan)
    if subdivided:
        raise RefusedError(subdivided)


def _freed(
    source: ir.Model, passes: _Passes, plan: Plan, geometry: dict[str, Geometry]
) -> dict[str, Geometry]:
    """Run the passes after `FcToConv` that change sizes; return the geometry after them."""
    native = {image.value.name or "": image.feature_map.stored_shape(1) for image in plan.inputs}
    if passes.refine is not None:
        replace(passes.refine, input_shapes=native)(source)
    FreeInputSize(passes.fc_to_conv.input_shapes)(source)
    replace(passes.reduce, input_shapes=native)(source)
    if passes.refine is None:
        return geometry
    return _refined(source, native, geometry, passes.refine.stride)


def _geometry(output: OutputMap, images: Sequence[ImageInput], reduce: Reduce) -> Geometry:
    """The geometry of an output after `ReduceOutputs` has run."""
    meaning = output_geometry(output, images)
    if reduce == "none" or not output.feature_map.is_single_cell:
        return meaning
    return meaning.reduced(reduce)


def _refined(
    source: ir.Model,
    native: Mapping[str, tuple[int, ...]],
    geometry: Mapping[str, Geometry],
    stride: int | tuple[int, ...],
) -> dict[str, Geometry]:
    """The geometry after `RefineStride`: its strides, and the sizes at which the model runs."""
    plan = interpret(source, native)
    now = {o.value.name or "": output_geometry(o, plan.inputs) for o in plan.outputs}
    refined: dict[str, Geometry] = {}
    for name, meaning in geometry.items():
        counts = now.get(name, meaning)
        strides = refined_strides(meaning.stride, stride)
        # A window may hold more cells than before: the windows of the last ones exceed it.
        over = (
            rest + (many - own) * step
            for rest, many, own, step in zip(
                counts.remainder, counts.cells, meaning.cells, strides, strict=True
            )
        )
        refined[name] = replace(
            meaning,
            stride=strides,
            remainder=tuple(over),
            sizes=counts.sizes,
            tile_cells=counts.tile_cells,
        )
    return refined


def _subdivided(plan: Plan) -> tuple[Refusal, ...]:
    """A refusal for each output of which only some cells belong to a window of the image."""
    return tuple(
        Refusal(
            "subdivided-cells",
            f"output {output.value.name}",
            output_geometry(output, plan.inputs).why,
        )
        for output in plan.outputs
        if output.feature_map.is_single_cell
        and any(f.repeats > 1 for f in output.feature_map.field)
    )


def _split(
    source: ir.Model, splitting: SplitKernels, layers: tuple[FcLayer, ...]
) -> tuple[FcLayer, ...]:
    """Split what is too large; the layers with their new kernels."""
    plan = splitting.plan(source)
    splitting.apply(plan, source)
    found = {split.kernel: split for split in plan}
    return tuple(
        replace(
            layer,
            kernel=split.names[0],
            kernel_shape=split.blocks[0].shape(layer.kernel_shape[0]),
            parts=len(split.blocks),
        )
        if (split := found.get(layer.kernel)) is not None
        else layer
        for layer in layers
    )


def _no_layer(plan: Plan, fc_to_conv: FcToConv) -> str:
    """Why a plan converts no layer and no pooling."""
    reasons = "; ".join(f"{layer.node}: {layer.reason}" for layer in plan.left_alone[:3])
    if fc_to_conv.all_linear:
        return f"no Gemm or MatMul is a layer with a constant matrix ({reasons})"
    why = f" ({reasons})" if reasons else ""
    more = "; --all-linear converts the others too" if why and fc_to_conv.static else ""
    return f"no fully connected layer follows a feature map of an image input{why}{more}"


def _refuse_nothing(reason: str) -> NoReturn:
    raise RefusedError([Refusal("nothing-to-convert", "model", reason)])


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in value.shape)
