"""check(): are these two models the same function, tier by tier?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.comparing.tolerances import Bounds, tolerances_of
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.relation import Expect, is_ours
from onnx_fc2conv.equivalence.reporting.report import EquivalenceReport, ProviderRun
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.larger import check_sizes
from onnx_fc2conv.equivalence.running.recordings import read_recordings
from onnx_fc2conv.equivalence.running.unbatched import unbatched_images, with_batch_axis
from onnx_fc2conv.equivalence.tiers.claims import renamed
from onnx_fc2conv.equivalence.tiers.table import TIERS
from onnx_fc2conv.equivalence.tracing.interface import match_interfaces
from onnx_fc2conv.errors import ArgumentError, InvalidModelError
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.geometry import Geometry, read_geometry
from onnx_fc2conv.passes import Normalize
from onnx_fc2conv.pipeline import inspect
from onnx_fc2conv.runtime.session import RunError, outdated, require, runtime_version
from onnx_fc2conv.runtime.start import Provider, settings
from onnx_fc2conv.views.inputs import native_shapes

__all__ = ["check"]

_LARGER = ("feature windows", "image windows", "larger sizes")

Progress = Callable[[str], None]
PathLike = str | os.PathLike[str]


def check(  # noqa: PLR0913 - the contract's options, all keyword-only
    reference: ModelSource,
    converted: ModelSource,
    *,
    providers: Sequence[Provider] = ("cpu",),
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    geometry: Mapping[str, Geometry] | None = None,
    expect: Expect | None = None,
    data: Sequence[PathLike] = (),
    sizes: Sequence[tuple[int, ...]] = (),
    max_windows: int | None = None,
    rtol: Bounds = None,
    atol: Bounds = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EquivalenceReport:
    """Compare two models by running both: any conversion, whoever made it.

    Args:
        reference: The original model.
        converted: The model that claims to compute the same.
        providers: Where both models run: ``"cpu"``, ``"cuda"``; every tier on each of them.
        input_shapes: Native shape by input name where the reference's own is symbolic.
        geometry: Geometry of the converted outputs, by name; by default from the converted model's
            metadata, else from inspecting the reference.
        expect: ``"map"`` if the converted model must give a map of windows at larger sizes,
            ``"same"`` if it must keep the shapes of the original's outputs; by default it may do
            either, or be equal at the native size only.
        data: Files and folders of samples to compare on, as `fc2conv check --data` takes them.
        sizes: Larger sizes of the image to compare at; three of our own choice by default.
        max_windows: The most cells that are compared at each size, drawn at random; all by default.
        rtol: Relative tolerance, for all outputs or by name (``"*"`` for the others); by default
            128 units in the last place.
        atol: Absolute tolerance, likewise; by default rtol times the largest magnitude of the
            output.
        seed: Seed of the random inputs.
        progress: Called with the name of each tier before it starts.

    Returns:
        The report; true if the models are equivalent.

    Raises:
        ArgumentError: If the models have different inputs, a native size is missing, or another
            argument does not fit them.
        InvalidModelError: If either is not a valid model.
        RefusedError: If either is of an old opset that cannot be upgraded.
        RuntimeUnavailableError: If onnxruntime or a provider is missing.
    """
    start = time.perf_counter()
    for provider in providers:
        require(provider)
    one, two = _normalized(reference), _normalized(converted)
    claimed_by_model = read_geometry(two)
    notes, names = match_interfaces(one, two)
    stored = renamed(claimed_by_model, names)
    claims = geometry if geometry is not None else stored or None
    found = inspect(one, input_shapes=input_shapes).geometry if claims is None else claims
    single = unbatched_images(one)
    given = {
        name: (1, *shape) if name in single else tuple(shape)
        for name, shape in (input_shapes or {}).items()
    }
    batched = with_batch_axis(one, single)
    pair = Pair(
        batched,
        with_batch_axis(two, single),
        _native(batched, given),
        tolerances=tolerances_of(one, rtol, atol),
        provider=providers[0],
        seed=seed,
        sizes=tuple(tuple(size) for size in sizes),
        max_windows=max_windows,
        size_steps={m.input: m.size_step for m in found.values() if m.size_step is not None},
        several={n: len(m.stride) for n, m in found.items() if _several_cells(m)},
        unbatched=single,
    )
    check_sizes(pair)
    claim = Claim(
        pair,
        found,
        claims_sizes=claims is not None or is_ours(two),
        original=as_model(reference),
        stored=stored,
        unreduced=_unreduced(one, found, input_shapes),
        recordings=tuple(read_recordings(path, pair) for path in data),
        expect=expect,
    )
    if claims is None:
        claim = claim.of_windows(one, input_shapes)
    runs: list[ProviderRun] = []
    for provider in providers:
        say = _says(progress, provider, providers)
        began = time.perf_counter()
        same = provider == pair.provider
        here = claim if same else replace(claim, pair=replace(pair, provider=provider))
        results = tuple(_run(here, say))
        seconds = time.perf_counter() - began
        runs.append(ProviderRun(provider, settings(provider), results, seconds))
    if not all(runs) and (too_old := outdated()) is not None:
        notes = (*notes, too_old)
    return EquivalenceReport(
        runs=tuple(runs),
        relation=claim.relation,
        runtime=runtime_version(),
        seed=seed,
        seconds=time.perf_counter() - start,
        notes=notes,
        geometry=claim.geometry,
        reference=_file_name(reference),
        converted=_file_name(converted),
    )


def _run(claim: Claim, say: Progress) -> list[TierResult]:
    """Every tier that applies."""
    results: list[TierResult] = []
    for tier in TIERS:
        if tier.needs(claim):
            say(tier.name)
            try:
                results += tier.run(claim)
            except (RunError, InvalidModelError) as error:
                results.append(TierResult(tier.name, "all outputs", "failed", str(error)))
    if claim.larger_sizes == "windows" and not any(
        r.tier in _LARGER and r.status in ("passed", "failed") for r in results
    ):
        why = "the converted model takes any size, but no output could be compared at a larger one"
        results.append(TierResult(_LARGER[0], "all outputs", "failed", why))
    return results


def _says(progress: Progress | None, provider: str, providers: Collection[str]) -> Progress:
    """Return the callback that announces a tier, with the provider if there are several."""
    if progress is None:
        return _silent
    if len(providers) == 1:
        return progress
    return lambda tier: progress(f"{tier} on {provider}")


def _several_cells(meaning: Geometry) -> bool:
    """Whether a map of windows has more than one cell at the native size."""
    rests = zip(meaning.remainder, meaning.stride, strict=True)
    return set(meaning.cells) == {1} and any(step and rest >= step for rest, step in rests)


def _unreduced(
    reference: ir.Model,
    claimed: Mapping[str, Geometry],
    input_shapes: Mapping[str, tuple[int, ...]] | None,
) -> dict[str, Geometry]:
    """The windows over which outputs are said to be reduced."""
    reduced = [name for name, meaning in claimed.items() if meaning.reduction is not None]
    if not reduced:
        return {}
    maps = inspect(reference, input_shapes=input_shapes, pool="window").geometry
    return {name: maps[name] for name in reduced if name in maps}


def _file_name(source: ModelSource) -> str | None:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else None


def _silent(_: str) -> None:
    """Report no progress."""


def _normalized(source: ModelSource) -> ir.Model:
    model = as_model(source)
    Normalize()(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return model


def _native(
    reference: ir.Model, given: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The native shape of every input; a symbolic batch is 1.

    Raises:
        ArgumentError: If another dim is symbolic and not given, or a given one is not the model's.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, found in native_shapes(reference.graph, given).items():
        shape = list(found)
        if shape and shape[0] is None:
            shape[0] = 1
        if any(dim is None for dim in shape):
            raise ArgumentError(
                f"input {name!r} has symbolic dims: give its native size with --input-shape"
            )
        shapes[name] = tuple(dim for dim in shape if dim is not None)
    return shapes
