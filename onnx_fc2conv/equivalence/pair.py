"""The two models of a check: their sessions, interfaces and shared tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import (
    Arrays,
    Comparison,
    Tolerance,
    largest_magnitude,
)
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.batches import to_reference_shape
from onnx_fc2conv.equivalence.running.native_shapes import Shapes, native_shapes_of, products_of
from onnx_fc2conv.equivalence.running.samples import KINDS, ModelInput, model_inputs, sample
from onnx_fc2conv.equivalence.tracing.logits import add_logits, saturating_types
from onnx_fc2conv.equivalence.tracing.structure import (
    Shared,
    constants,
    shared_values,
    with_outputs,
)
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.reading import stored_tensors
from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.runtime.start import Provider
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["Pair", "as_result"]

_HEAVY = 5_000_000_000
"""Number of products for which a run on one image takes about a second on one core."""

_LARGE = 1 << 26
"""Bytes of weights of a large model."""

_BOUNDED = {"Softmax", "LogSoftmax", "Sigmoid", "Tanh", "HardSigmoid"}


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
        unbatched: The image inputs that had no batch axis, and take one image.
        tf32: Whether a GPU may round the factors of its products to the ten bits of TF32.
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
    unbatched: frozenset[str] = frozenset()
    tf32: bool = False
    kinds: tuple[str, ...] = KINDS
    defined: dict[str, float] = field(default_factory=dict)
    _logits: tuple[dict[str, str], dict[str, str]] = field(init=False)
    _sessions: dict[ir.Model, Session] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        models = self.reference.clone(), self.converted.clone()
        object.__setattr__(self, "_logits", tuple(map(add_logits, models)))
        object.__setattr__(self, "reference", models[0])
        object.__setattr__(self, "converted", models[1])

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
        return Session(model, self.provider, tf32=self.tf32)

    def compared(self, model: ir.Model) -> Session:
        """Return a session of one of the two models that outputs all compared tensors.

        The tiers share it, except for models so large that only one may be in memory.
        """
        if model in self._sessions:
            return self._sessions[model]
        names = [one if model is self.reference else two for one, two in self._names.items()]
        session = self.session(with_outputs(model, names))
        if not self.is_large:
            self._sessions[model] = session
        return session

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
        shapes = {i.name: self._converted_shapes[i.name] for i in self.inputs}
        return {
            name: tuple(axis for axis, length in enumerate(shape) if axis > 0 and length is None)
            for name, shape in shapes.items()
        }

    @cached_property
    def fixed_batch(self) -> int | None:
        """The batch size that the reference's inputs fix; None if they fix none or several."""
        fixed = {i.shape[0] for i in self.inputs if len(i.shape) > 1 and i.shape[0] is not None}
        return fixed.pop() if len(fixed) == 1 else None

    @cached_property
    def keeps_batch(self) -> bool:
        """Whether all inputs of both models have the same fixed first axis, longer than 1."""
        sizes = {i.shape[:1] for i in self.inputs} | {
            s[:1] for s in self._converted_shapes.values()
        }
        return sizes == {(self.fixed_batch,)} and self.fixed_batch not in (None, 1)

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes at which the native size is compared."""
        free = any(self._has_free_batch(i) for i in self.inputs)
        return (1, 3) if free else (self.fixed_batch or 1,)

    def native_shape(self, model: ir.Model, name: str) -> tuple[int, ...] | None:
        """Return the native shape of a tensor of one of the models; None if it is not inferred."""
        shapes = self._reference_shapes if model is self.reference else self._native_converted
        return shapes.get(name)

    @cached_property
    def is_heavy(self) -> bool:
        """Whether a run takes so long that the tiers compare fewer inputs of each kind."""
        return products_of(self.reference, self._reference_shapes) > _HEAVY

    @cached_property
    def _reference_shapes(self) -> Shapes:
        return native_shapes_of(self.reference, self.batched(self.fixed_batch or 1))

    @cached_property
    def _native_converted(self) -> Shapes:
        return native_shapes_of(self.converted, self.batched(self.fixed_batch or 1))

    @cached_property
    def shared(self) -> dict[str, str]:
        """The tensors that both models compute alike: converted names by reference names."""
        return dict(self._common.names)

    @cached_property
    def moved(self) -> frozenset[str]:
        """The shared tensors before which the models move data in different ways."""
        return self._common.moved

    @cached_property
    def _common(self) -> Shared:
        common = shared_values(self.reference, self.converted)
        if not common.moved:
            return common
        others = self._namesakes(common.names)
        names = {one: two for one, two in common.names.items() if one not in others}
        return Shared(names, common.moved - others)

    def _namesakes(self, names: Mapping[str, str]) -> set[str]:
        """Return the shared tensors that hold different numbers at the native size.

        Where the models move data in different ways before a tensor (channels and positions of a
        map swapped, a channel taken twice), tensors matched there or later may hold different
        numbers.
        """
        shapes = self.batched(self.fixed_batch or 1)
        feeds = sample(self.inputs, shapes, "uniform", self.rng(5))
        try:
            one = self.session(with_outputs(self.reference, names)).run(feeds)
            two = self.session(with_outputs(self.converted, names.values())).run(feeds)
        except RunError:  # the tiers will say so
            return set()
        return {
            name for name, own in names.items() if not self._may_be_one(name, one[name], two[own])
        }

    def _may_be_one(self, name: str, one: AnyArray, two: AnyArray) -> bool:
        comparison = self.comparison(name)
        comparison.add("", one, to_reference_shape(two, one.shape))
        return comparison.passed

    @cached_property
    def missing(self) -> set[str]:
        """Outputs of the reference that the converted model does not have."""
        present = {value.name for value in self.converted.graph.outputs}
        return {v.name or "" for v in self.reference.graph.outputs if v.name not in present}

    @cached_property
    def logits(self) -> dict[str, tuple[str, str]]:
        """The logits in both models, for each output that ends in a saturating operator."""
        one, two = self._logits
        return {name: (one[name], two[name]) for name in one if name in two}

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The compared tensors: converted names by reference names.

        They are the outputs of the reference that depend on an input, and their logits.
        """
        fixed = constants(self.reference.graph)
        names = {v.name or "": v.name or "" for v in self.reference.graph.outputs if v not in fixed}
        return names | {one: two for one, two in self.logits.values() if one not in names}

    def compare(
        self,
        comparisons: Mapping[str, Comparison],
        arrays: Mapping[str, Sequence[Arrays]],
        floors: Mapping[str, float] | None = None,
    ) -> None:
        """Compare outputs and logits that share a scale, by their names in the reference.

        Softmax, sigmoid and tanh do not enlarge the errors of their logits. But the error of a
        probability scales with 1, however small the probability is.

        Args:
            comparisons: The comparison of each name, to add to.
            arrays: The arrays of each name.
            floors: The scale of the rounding errors, where it is known to be larger than that of
                the numbers.
        """
        for name, compared in arrays.items():
            scales = [0.0 if floors is None else floors.get(name, 0.0)]
            if name in self.logits and name in self._bounded:
                logits = arrays.get(self.logits[name][0], ())
                scales += [1.0, *(largest_magnitude(reference) for _, reference, _ in logits)]
            comparisons[name].add_all(compared, max(scales))

    def comparison(self, name: str = "") -> Comparison:
        """Start a comparison of an output, or of its logits, with the output's tolerance."""
        output = next((o for o, (logits, _) in self.logits.items() if logits == name), name)
        return Comparison(self.tolerances.get(output, Tolerance()))

    @cached_property
    def _bounded(self) -> set[str]:
        """The outputs that are probabilities or the like."""
        return {name for name, op_type in self._saturating.items() if op_type in _BOUNDED}

    @cached_property
    def _saturating(self) -> dict[str, str]:
        return saturating_types(self.reference.graph)

    def subject(self, name: str) -> str:
        """Return the name of a compared tensor in reports."""
        outputs = {value.name for value in self.reference.graph.outputs}
        for output, (logits, _) in self.logits.items():
            if name == logits and name not in outputs:
                return f"{output} before its {self._saturating[output]}"
        return name

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
        batched = any(i.name == name and self._has_free_batch(i) for i in self.inputs)
        return np.repeat(array, count, axis=0) if batched else array

    @property
    def converted_batch_is_free(self) -> bool:
        """Whether every image input of the converted model declares a symbolic batch."""
        return all(
            self._converted_shapes[name][:1] == (None,)
            for name, axes in self.growing.items()
            if axes
        )

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
    if comparison.problems:
        detail = "; ".join(comparison.problems)
    elif not comparison.elements:
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
        status="passed" if comparison.passed else "failed",
        detail=detail,
        elements=comparison.elements,
        worst_error=comparison.worst,
        required_rtol=comparison.required_rtol,
        where=comparison.where or None,
        quantiles=comparison.spread.quantiles if floating else None,
        histogram=comparison.spread.histogram if floating else None,
        not_finite=comparison.not_finite,
    )
