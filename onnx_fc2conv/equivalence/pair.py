"""The two models of a check: their sessions and interfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison, Tolerance
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import run_in_batches, to_reference_shape
from onnx_fc2conv.equivalence.running.roundings import moved_inputs, rounding_otherwise
from onnx_fc2conv.equivalence.running.samples import KINDS, ModelInput, model_inputs
from onnx_fc2conv.equivalence.tracing.structure import (
    constants,
    with_outputs,
)
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.reading import stored_tensors
from onnx_fc2conv.graphs.cost import multiply_adds
from onnx_fc2conv.graphs.shapes import Shapes, shapes_at
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.runtime.start import Provider
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Pair", "as_result"]

_HEAVY = 5_000_000_000
"""Number of products for which a run on one image takes about a second on one core."""

_LARGE = 1 << 26
"""Bytes of weights of a large model."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A reference model and the model that claims to compute the same.

    Attributes:
        reference: The original.
        converted: The converted model.
        native: Native shape by input name; the batch dim is the model's own.
        tolerances: Tolerance by output; outputs that are not named have the default.
        provider: Execution provider of both.
        seed: Seed of all random inputs.
        sizes: Larger sizes of the image to compare at; if empty, three are chosen.
        max_windows: The most cells that are compared at each size; None for all.
        size_steps: By input, the step between the sizes at which the models run, where they do not
            run at every size.
        several: By output, the axes of its map, where this has more than one cell at the native
            size: a denser grid finds room in the pixels that the strides leave over.
        unbatched: The image inputs that had no batch axis, and take one image.
        kinds: The kinds of input at the native size.
        defined: By kind of input, the share of the reference's output values that are finite; the
            native tier measures it for later tiers.
    """

    reference: ir.Model
    converted: ir.Model
    native: Mapping[str, tuple[int, ...]]
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    provider: Provider = "cpu"
    seed: int = 0
    sizes: tuple[tuple[int, ...], ...] = ()
    max_windows: int | None = None
    size_steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    several: Mapping[str, int] = field(default_factory=dict)
    unbatched: frozenset[str] = frozenset()
    kinds: tuple[str, ...] = KINDS
    defined: dict[str, float] = field(default_factory=dict)
    _sessions: dict[ir.Model, Session] = field(init=False, default_factory=dict)

    @property
    def models(self) -> tuple[ir.Model, ir.Model]:
        """The reference and the converted model."""
        return self.reference, self.converted

    def kinds_of(self, preferred: Sequence[str]) -> tuple[str, ...]:
        """Return as many kinds of input, those on which the reference is finite first."""
        preferred = [k for k in preferred if k in self.kinds] or [self.kinds[0]] * len(preferred)
        kinds = [k for k in preferred if self.defined.get(k, 1.0) == 1.0]
        others = sorted(set(self.defined) - set(kinds), key=lambda k: -self.defined[k])
        best = [*kinds, *(k for k in others if self.defined[k] > 0)] or list(preferred)
        return tuple(best[n % len(best)] for n in range(len(preferred)))

    def session(self, model: ir.Model) -> Session:
        """Start a session of one of the models, or of a part of it, on the pair's provider."""
        return Session(model, self.provider)

    def compared(self, model: ir.Model) -> Session:
        """Return a session of a model, or of `jittery`, that outputs all compared tensors.

        The tiers share it, except for models so large that only one may be in memory.
        """
        if model in self._sessions:
            return self._sessions[model]
        names = [two if model is self.converted else one for one, two in self._names.items()]
        session = self.session(with_outputs(model, names))
        if not self.is_large:
            self._sessions[model] = session
        return session

    @cached_property
    def jittery(self) -> ir.Model:
        """The reference, rounded otherwise at random: what this changes says nothing."""
        return rounding_otherwise(self.reference)

    def jittered(
        self, feeds: Mapping[str, AnyArray], names: Sequence[str], draws: int = 2
    ) -> dict[str, AnyArray]:
        """Return what the reference gives with other roundings, [draws, samples, …] by name.

        Raises:
            Fc2ConvError, RunError, ValueError: If it cannot be measured.
        """
        session = self.compared(self.jittery)
        made = [
            run_in_batches(session, moved_inputs(feeds, self.rng(10, n)), names, self.fixed_batch)
            for n in range(draws)
        ]
        return {name: np.stack([outputs[name] for outputs in made]) for name in names}

    @cached_property
    def is_large(self) -> bool:
        """Whether the weights take more memory than the outputs on all kinds of input."""
        return sum(t.nbytes for t in stored_tensors(self.reference)) > _LARGE

    @cached_property
    def _names(self) -> dict[str, str]:
        return {one: two for one, two in self.outputs.items() if one not in self.missing}

    @cached_property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs of the reference, which the converted model must have too.

        Raises:
            ArgumentError: If its inputs have other names.
        """
        one, two = model_inputs(self.reference), model_inputs(self.converted)
        if {i.name for i in one} != {i.name for i in two}:
            raise ArgumentError(
                f"the models have different inputs: {', '.join(sorted(i.name for i in one))} and "
                f"{', '.join(sorted(i.name for i in two))}"
            )
        return one

    @cached_property
    def growing(self) -> dict[str, tuple[int, ...]]:
        """The symbolic axes of the converted model, by input, without axis 0 (the batch)."""
        dims = {i.name: enumerate(self._converted_shapes[i.name]) for i in self.inputs}
        return {n: tuple(a for a, dim in axes if a and dim is None) for n, axes in dims.items()}

    @cached_property
    def fixed_batch(self) -> int | None:
        """The batch size that the reference's inputs fix; None if they fix none or several."""
        fixed = {i.shape[0] for i in self.inputs if len(i.shape) > 1 and i.shape[0] is not None}
        return fixed.pop() if len(fixed) == 1 else None

    @cached_property
    def keeps_batch(self) -> bool:
        """Whether all inputs of both models have the same fixed first axis, longer than 1."""
        shapes = [*(i.shape for i in self.inputs), *self._converted_shapes.values()]
        sizes = {shape[:1] for shape in shapes}
        return sizes == {(self.fixed_batch,)} and self.fixed_batch not in (None, 1)

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes at which the native size is compared."""
        free = any(self._has_free_batch(i) for i in self.inputs)
        return (1, 3) if free else (self.fixed_batch or 1,)

    def native_shape(self, model: ir.Model, name: str) -> tuple[int, ...] | None:
        """Return the native shape of a tensor of one of the models; None if it is not inferred."""
        shapes = self._reference_shapes if model is self.reference else self._native_converted
        found = shapes.get(name, (None,))
        known = tuple(length for length in found if length is not None)
        return known if len(known) == len(found) else None

    @cached_property
    def products(self) -> int:
        """About how many products a run of the reference on one image computes."""
        weights = sum(tensor.size for tensor in stored_tensors(self.reference))
        return weights + (multiply_adds(self.reference, self._reference_shapes) or 0)

    @property
    def is_heavy(self) -> bool:
        """Whether a run takes so long that the tiers compare fewer inputs of each kind."""
        return self.products > _HEAVY

    @cached_property
    def _reference_shapes(self) -> Shapes:
        return shapes_at(self.reference, self.batched(self.fixed_batch or 1))

    @cached_property
    def _native_converted(self) -> Shapes:
        return shapes_at(self.converted, self.batched(self.fixed_batch or 1))

    @cached_property
    def missing(self) -> set[str]:
        """Outputs of the reference that the converted model does not have."""
        present = {value.name for value in self.converted.graph.outputs}
        return {v.name or "" for v in self.reference.graph.outputs if v.name not in present}

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The compared tensors: the outputs of the reference that depend on an input.

        They are converted names by reference names, as for other tensors.
        """
        fixed = constants(self.reference.graph)
        return {v.name or "": v.name or "" for v in self.reference.graph.outputs if v not in fixed}

    def compare(
        self, comparisons: Mapping[str, Comparison], arrays: Mapping[str, Sequence[Arrays]]
    ) -> None:
        """Compare arrays that share their scales, by the names of their tensors."""
        for name, compared in arrays.items():
            comparisons[name].add_all(compared)

    def comparison(self, name: str = "") -> Comparison:
        """Start a comparison of an output, with its tolerance."""
        return Comparison(self.tolerances.get(name, Tolerance()))

    def in_shape(self, name: str, array: AnyArray, shape: Sequence[int]) -> AnyArray:
        """A converted output at the native size, in the shape that the reference gives it."""
        for axis in range(array.ndim - self.several.get(name, 0), array.ndim):
            array = array.take([0], axis)
        return to_reference_shape(array, shape)

    def batched(self, batch: int) -> dict[str, tuple[int, ...]]:
        """The native shapes with another batch size, for the inputs that have a free one."""
        return {
            i.name: (batch, *self.native[i.name][1:])
            if self._has_free_batch(i)
            else self.native[i.name]
            for i in self.inputs
        }

    def repeated(self, name: str, array: AnyArray, count: int) -> AnyArray:
        """Repeat an input that is not cut into windows for the ``count`` windows of each image."""
        free = any(i.name == name and self._has_free_batch(i) for i in self.inputs)
        batched = free or self.keeps_batch
        return np.repeat(array, count, axis=0) if batched else array

    @property
    def converted_batch_is_free(self) -> bool:
        """Whether every image input of the converted model declares a symbolic batch."""
        images = [name for name, axes in self.growing.items() if axes]
        return all(self._converted_shapes[name][:1] == (None,) for name in images)

    @cached_property
    def _converted_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {i.name: i.shape for i in model_inputs(self.converted)}

    def _has_free_batch(self, an_input: ModelInput) -> bool:
        """Whether either model takes several samples of this input, or the converted any size."""
        if an_input.name in self.unbatched:
            return False
        shapes = (an_input.shape, self._converted_shapes[an_input.name])
        if shapes[0][:1] == shapes[1][:1] != (None,):
            return False
        free = any(shape[:1] == (None,) for shape in shapes)
        return free or bool(self.growing[an_input.name])

    def rng(self, *stream: int) -> np.random.Generator:
        """Return a random generator for one use, so that tiers do not depend on each other."""
        return np.random.default_rng((self.seed, *stream))


def as_result(tier: str, subject: str, comparison: Comparison, what: str) -> TierResult:
    """The comparison as a line of the report."""
    detail = what
    if comparison.not_finite:
        detail += f"; {comparison.not_finite} more are the same NaN or Inf in both"
    if comparison.undecided:
        detail += f"; {comparison.undecided} more are decided by rounding alone"
    undecided = not comparison.elements and comparison.undecided and not comparison.problems
    if comparison.problems:
        detail = "; ".join(comparison.problems)
    elif not comparison.elements and not undecided:
        detail = (
            f"unproven: nothing finite could be compared, {comparison.not_finite} values are NaN "
            "or Inf in both models"
        )
    elif comparison.failed:
        detail = (
            f"{comparison.failed} of {comparison.elements} values differ, most at "
            f"{comparison.where} (largest magnitude there {comparison.magnitude:.3g}); {what}"
        )
    floating = any(comparison.spread.histogram)
    return TierResult(
        tier=tier,
        subject=subject,
        status="measured" if undecided else "passed" if comparison.passed else "failed",
        detail=detail,
        elements=comparison.elements,
        worst_error=comparison.worst,
        required_rtol=comparison.required_rtol,
        where=comparison.where or None,
        quantiles=comparison.spread.quantiles if floating else None,
        histogram=comparison.spread.histogram if floating else None,
        not_finite=comparison.not_finite,
    )
