"""convert(): which passes, in which order; plan first, then apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.geometry import GEOMETRY_KEY, Geometry, write_geometry
from onnx_fc2conv.passes import (
    FcToConv,
    FreeInputSize,
    Normalize,
    ReduceOutputs,
    RefineStride,
    SplitKernels,
)
from onnx_fc2conv.passes.fc_to_conv import has_fc_layer
from onnx_fc2conv.passes.reduce_outputs import Reduce
from onnx_fc2conv.passes.refinement import refined_strides
from onnx_fc2conv.views import (
    FcLayer,
    ImageInput,
    LeftAlone,
    OutputMap,
    Plan,
    Pool,
    WindowPooling,
    interpret,
    output_geometry,
)

__all__ = ["Conversion", "Interface", "OpsetUpgrade", "Options", "attempt", "convert", "inspect"]


@dataclass(frozen=True)
class OpsetUpgrade:
    """That an old model was written in newer operators before anything else.

    Attributes:
        before: Its opset.
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `convert`, which documents them."""

    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    static: bool = False
    stride: int | tuple[int, ...] | None = None
    pool: Pool = "keep"
    reduce: Reduce = "none"
    all_linear: bool = False
    max_kernel: int | None = None
    max_depth: int | None = None


def convert(  # noqa: PLR0913 - the contract's options, all keyword-only
    model: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    static: bool = False,
    stride: int | tuple[int, ...] | None = None,
    pool: Pool = "keep",
    reduce: Reduce = "none",
    all_linear: bool = False,
    max_kernel: int | None = None,
    max_depth: int | None = None,
) -> Conversion:
    """Rewrite a classifier so that it slides over images of any size.

    Args:
        model: A path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; never changed.
        input_shapes: Native shape by input name, such as ``{"image": (1, 3, 224, 224)}``, for
            inputs whose shape in the model is symbolic.
        static: Keep the model's sizes and interface; only its fully connected layers change, and
            one that cannot be converted is left alone.
        stride: Pixels between neighboring windows, one number or one an axis, which must divide
            what the model's layers make it (`RefineStride`); None leaves that as it is.
        pool: What a global pooling of the head becomes: with ``"keep"`` it sees the whole image,
            and the output is one cell at any size; with ``"window"`` it pools each window, and the
            output is a map. A gate (squeeze-and-excite) sees the whole image either way.
        reduce: What is taken over all cells of each output map, so that an image of any size gives
            [N, K] again: ``"mean"``, ``"max"``, or ``"none"``.
        all_linear: Convert every Gemm and MatMul by a constant matrix, in transformers and MLPs
            too, not only those that an image leads to; with ``static`` only.
        max_kernel: Largest extent of an emitted kernel along any spatial axis; a larger one is
            split into a sum of Convs (see `SplitKernels`).
        max_depth: Largest number of weights C·kh·kw that an output channel of one Conv may have.

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
    options = Options(
        input_shapes=input_shapes,
        static=static,
        stride=stride,
        pool=pool,
        reduce=reduce,
        all_linear=all_linear,
        max_kernel=max_kernel,
        max_depth=max_depth,
    )
    conversion = attempt(model, options)
    if conversion.refusals:
        raise RefusedError(conversion.refusals)
    return conversion


def inspect(  # noqa: PLR0913 - the contract's options, all keyword-only
    model: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    static: bool = False,
    stride: int | tuple[int, ...] | None = None,
    pool: Pool = "keep",
    reduce: Reduce = "none",
    all_linear: bool = False,
    max_kernel: int | None = None,
    max_depth: int | None = None,
) -> Conversion:
    """Say what `convert` would do: refusals are returned, not raised, and no model is.

    Arguments and the other errors are those of `convert`.
    """
    options = Options(
        input_shapes=input_shapes,
        static=static,
        stride=stride,
        pool=pool,
        reduce=reduce,
        all_linear=all_linear,
        max_kernel=max_kernel,
        max_depth=max_depth,
    )
    return replace(attempt(model, options), model=None)


def attempt(model: ModelSource, options: Options) -> Conversion:
    """Do what `convert` does: refusals are returned, not raised.

    The errors are those of `convert`.
    """
    shapes = options.input_shapes or {}
    return _convert(
        as_model(model),
        FcToConv(shapes, options.static, options.pool, options.all_linear),
        ReduceOutputs(options.reduce, shapes),
        SplitKernels(options.max_kernel, options.max_depth),
        None if options.stride is None else RefineStride(options.stride, shapes),
    )


def _convert(
    source: ir.Model,
    fc_to_conv: FcToConv,
    reduction: ReduceOutputs,
    splitting: SplitKernels,
    refining: RefineStride | None,
) -> Conversion:
    """Convert ``source`` in place, as far as that is possible."""
    if refining is not None and fc_to_conv.static:
        raise ArgumentError("static mode has one window only: leave out --stride")
    if refining is not None and reduction.reduce != "none":
        raise ArgumentError("--stride makes a denser map, of which --reduce leaves one vector")
    if fc_to_conv.static and reduction.reduce != "none":
        raise ArgumentError("static mode keeps the outputs as they are: leave out --reduce")
    before = Interface.of(source)
    opset = source.opset_imports.get("")
    try:
        Normalize()(source)
    except RefusedError as error:
        return Conversion(None, (), (), error.refusals, {}, before, None)
    now = source.opset_imports.get("")
    upgrade = (
        OpsetUpgrade(opset, now) if opset is not None and now is not None and opset < now else None
    )
    done = _rewrite(source, fc_to_conv, reduction, splitting, refining, before)
    return replace(done, lifted=upgrade)


def _rewrite(  # noqa: PLR0913 - the passes
    source: ir.Model,
    fc_to_conv: FcToConv,
    reduction: ReduceOutputs,
    splitting: SplitKernels,
    refining: RefineStride | None,
    before: Interface,
) -> Conversion:
    """Convert a normalized model in place, as far as that is possible."""
    if not (has_fc_layer(source) or fc_to_conv.pool == "window"):
        reason = "the model has no Gemm or MatMul: there is nothing to convert"
        if GEOMETRY_KEY in source.metadata_props:
            reason = (
                "it is a conversion already, there is nothing to convert; "
                f"{GEOMETRY_KEY} in its metadata says what its cells mean"
            )
        return Conversion(None, (), (), (_nothing(reason),), {}, before, None)
    try:
        plan = fc_to_conv.plan(source)
    except RefusedError as error:
        return Conversion(None, (), (), error.refusals, {}, before, None)
    geometry = {
        output.value.name or "": _geometry(output, plan.inputs, reduction.reduce)
        for output in plan.outputs
    }
    refusals = plan.refusals or _nothing_found(plan, fc_to_conv)
    layers = plan.layers
    if not fc_to_conv.static:
        refusals = refusals or _subdivided(plan)
    if not refusals:
        FcToConv.apply(plan, source)
        if not fc_to_conv.static:
            native = {
                image.value.name or "": image.feature_map.stored_shape(1) for image in plan.inputs
            }
            steps: list[ir.passes.InPlacePass] = [FreeInputSize(fc_to_conv.input_shapes)]
            if refining is not None:
                steps.insert(0, replace(refining, input_shapes=native))
            refusals = _refusals_of(source, *steps, replace(reduction, input_shapes=native))
            if refining is not None and not refusals:
                geometry = _refined(source, native, geometry, refining.stride)
    if not refusals:
        layers = _split(source, splitting, layers)
        if not fc_to_conv.static:
            write_geometry(source, geometry)
    model, after = (None, None) if refusals else (source, Interface.of(source))
    return Conversion(
        model, layers, plan.left_alone, refusals, geometry, before, after, plan.poolings
    )


def _refusals_of(source: ir.Model, *steps: ir.passes.InPlacePass) -> tuple[Refusal, ...]:
    """Run the passes; why not, if one cannot be run."""
    try:
        for step in steps:
            step(source)
    except RefusedError as error:
        return error.refusals
    return ()


def _geometry(output: OutputMap, images: Sequence[ImageInput], reduce: Reduce) -> Geometry:
    """What the cells of an output mean once `ReduceOutputs` has run."""
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
    """What the cells of a model mean once `RefineStride` has run, and at which sizes it does."""
    plan = interpret(source, native)
    now = {o.value.name or "": output_geometry(o, plan.inputs) for o in plan.outputs}
    refined: dict[str, Geometry] = {}
    for name, meaning in geometry.items():
        counts = now.get(name, meaning)
        strides = refined_strides(meaning.stride, stride)
        # A window may have room for more cells than before: these are windows that reach out of it.
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


def _nothing_found(plan: Plan, fc_to_conv: FcToConv) -> tuple[Refusal, ...]:
    """A refusal if the plan converts no layer and no pooling."""
    if plan.layers or plan.poolings:
        return ()
    if fc_to_conv.all_linear:
        found = "; ".join(f"{layer.node}: {layer.reason}" for layer in plan.left_alone[:3])
        return (_nothing(f"no Gemm or MatMul is a layer with a constant matrix ({found})"),)
    reasons = "; ".join(f"{layer.node}: {layer.reason}" for layer in plan.left_alone[:3])
    why = f" ({reasons})" if reasons else ""
    more = "; --all-linear converts the others too" if why and fc_to_conv.static else ""
    reason = f"no fully connected layer follows a feature map of an image input{why}{more}"
    return (_nothing(reason),)


def _nothing(reason: str) -> Refusal:
    return Refusal("nothing-to-convert", "model", reason)


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in value.shape)
