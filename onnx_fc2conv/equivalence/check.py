"""check(): are these two models the same function, tier by tier?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.equivalence.comparison import Tolerance
from onnx_fc2conv.equivalence.feature_windows import check_feature_windows
from onnx_fc2conv.equivalence.image_windows import check_image_windows
from onnx_fc2conv.equivalence.integers import check_integers
from onnx_fc2conv.equivalence.native import check_native
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.report import EquivalenceReport, TierResult
from onnx_fc2conv.equivalence.runtime import Provider, runtime_version
from onnx_fc2conv.equivalence.samples import model_inputs
from onnx_fc2conv.equivalence.second_oracle import check_by_evaluator
from onnx_fc2conv.equivalence.single_layers import check_single_layers
from onnx_fc2conv.equivalence.structure import computing_type
from onnx_fc2conv.equivalence.weights import check_weights
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.geometry import OutputGeometry
from onnx_fc2conv.model_io import ModelSource, as_model
from onnx_fc2conv.passes import Normalize
from onnx_fc2conv.pipeline import inspect

__all__ = ["check"]

Progress = Callable[[str], None]


def check(  # noqa: PLR0913 - the contract's options, all keyword-only
    reference: ModelSource,
    converted: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    geometry: Mapping[str, OutputGeometry] | None = None,
    provider: Provider = "cpu",
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EquivalenceReport:
    """Compare a converted model with the original by running both.

    Args:
        reference: The original model.
        converted: The model that claims to compute the same, at any input size.
        input_shapes: Native shape by input name where the reference's own is symbolic.
        geometry: What the cells of the converted outputs claim to mean; found by inspecting the
            reference if it is not given.
        provider: Where both models run.
        rtol: Relative tolerance; by default 128 units in the last place.
        atol: Absolute tolerance; by default rtol times the largest magnitude of the output.
        seed: Seed of the random inputs.
        progress: Called with the name of each tier before it starts.

    Returns:
        The report; true if the models are equivalent.

    Raises:
        ArgumentError: If the models have different inputs, or a native size is missing.
        InvalidModelError: If either is not a valid model.
        RuntimeUnavailableError: If onnxruntime or the provider is missing.
    """
    start = time.perf_counter()
    say: Progress = progress if progress is not None else _silent
    one, two = _normalized(reference), _normalized(converted)
    native = _native(one, input_shapes or {})
    pair = Pair(one, two, native, _tolerance(one, rtol, atol), provider, seed)
    if geometry is None:
        geometry = inspect(one, input_shapes=input_shapes).geometry
    strides = _strides(pair, geometry)

    results: list[TierResult] = []
    say("weights")
    results.extend(check_weights(pair))
    say("layers")
    results.extend(check_single_layers(pair))
    say("native")
    results.extend(check_native(pair))
    results.extend(check_by_evaluator(pair))
    say("feature windows")
    whole = {output for output, meaning in geometry.items() if 0 in meaning.stride}
    reduced = {o: m.reduction for o, m in geometry.items() if m.reduction is not None}
    results.extend(check_feature_windows(pair, strides, whole - set(reduced), reduced))
    say("integers")
    results.extend(check_integers(pair, strides, geometry))
    say("image windows")
    results.extend(_image_windows(pair, geometry, strides))
    results.extend(_unverified(pair, results))
    seconds = time.perf_counter() - start
    return EquivalenceReport(tuple(results), provider, runtime_version(), seed, seconds)


def _tolerance(reference: ir.Model, rtol: float | None, atol: float | None) -> Tolerance:
    dtype = computing_type(reference)
    known = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
    if dtype is None or dtype not in known:
        return Tolerance(rtol, atol)
    return Tolerance(rtol, atol, np.dtype(dtype.numpy()))


def _silent(_: str) -> None:
    """Report no progress."""


def _normalized(source: ModelSource) -> ir.Model:
    model = as_model(source)
    Normalize()(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return model


def _native(reference: ir.Model, given: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The native shape of every input; a symbolic batch is 1.

    Raises:
        ArgumentError: If another dim is symbolic and not given.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for value in model_inputs(reference):
        shape = list(given.get(value.name, value.shape))
        if shape and shape[0] is None:
            shape[0] = 1
        if any(dim is None for dim in shape):
            raise ArgumentError(
                f"input {value.name!r} has symbolic dims: give its native size with --input-shape"
            )
        shapes[value.name] = tuple(dim for dim in shape if dim is not None)
    return shapes


def _strides(pair: Pair, geometry: Mapping[str, OutputGeometry]) -> dict[str, tuple[int, ...]]:
    """Pixels between neighboring windows by input; half the image where nobody knows."""
    strides = {
        name: tuple(max(1, pair.native[name][axis] // 2) for axis in axes)
        for name, axes in pair.growing.items()
    }
    for meaning in geometry.values():
        if 0 in meaning.stride:
            continue
        for name, axes in pair.growing.items():
            native = tuple(pair.native[name][axis] for axis in axes)
            if name == meaning.input or native == meaning.window:
                strides[name] = meaning.stride[: len(axes)]
    return strides


def _image_windows(
    pair: Pair, geometry: Mapping[str, OutputGeometry], strides: Mapping[str, Sequence[int]]
) -> list[TierResult]:
    """The image windows of every output of which it is known what its cells mean."""
    if not any(pair.growing.values()):
        return []
    results: list[TierResult] = []
    for value in pair.reference.graph.outputs:
        output = value.name or ""
        meaning = geometry.get(output)
        if meaning is None:
            why = "where its cells lie in the image is not known"
            results.append(TierResult("image windows", output, "skipped", why))
        elif 0 in meaning.stride:
            why = f"one cell for an image of any size: {meaning.why}"
            results.append(TierResult("image windows", output, "skipped", why))
        elif false := _false_claim(pair, meaning):
            results.append(TierResult("image windows", output, "failed", false))
        else:
            own = {**strides, meaning.input: meaning.stride}
            asserted = meaning.windows_exact
            results.extend(check_image_windows(pair, output, own, asserted=asserted))
    return results


def _false_claim(pair: Pair, meaning: OutputGeometry) -> str:
    """What cannot be true of the windows; empty if they may be what the cells mean.

    A window is the native image, and cell 0 is the one in the corner: the crops are cut so.
    """
    axes = pair.growing.get(meaning.input)
    if axes is None:
        return f"claims windows of {meaning.input!r}, which is no input"
    native = tuple(pair.native[meaning.input][axis] for axis in axes)
    if axes and meaning.window != native:
        size = "×".join(map(str, native))
        return f"claims windows of {meaning.window_text}, the native size is {size}"
    if any(meaning.offset):
        return (
            f"claims that the window of cell 0 starts at {list(meaning.offset)}, not in the corner"
        )
    return ""


def _unverified(pair: Pair, results: Sequence[TierResult]) -> list[TierResult]:
    """A failure if the converted model takes other sizes, and at none of them it was compared."""
    tiers = ("feature windows", "image windows")
    if not any(pair.growing.values()):
        return []
    if any(r.tier in tiers and r.status in ("passed", "failed") for r in results):
        return []
    why = "the converted model takes any size, but no output could be compared at a larger one"
    return [TierResult("feature windows", "all outputs", "failed", why)]
