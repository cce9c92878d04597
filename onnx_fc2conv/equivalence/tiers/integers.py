"""Tier *integers*: with small integers for weights and inputs both models agree bit for bit.

Every sum of products of small integers is exact, in whatever order an implementation adds. So there
is no tolerance, and nothing hides in one. The weights' own values play no part: a unit that is dead
behind a Relu with them is alive with others.

On a GPU TF32 is on, where no factor needs more than the eleven bits that it leaves of a number: the
very arithmetic that a user may get is exact there. But cuDNN may choose a transform (Winograd's of
4×4 tiles, Fourier's) whose factors are no integers. So there the numbers must have the same nearest
integer, and the report says where they are not the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.comparing.comparison import Tolerance
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.exactness import (
    ROUNDED,
    Inexact,
    exact_values,
    exactly,
    magnitudes,
)
from onnx_fc2conv.equivalence.running.integer_coding import Codebook, coded
from onnx_fc2conv.equivalence.running.larger import enlarged
from onnx_fc2conv.equivalence.running.samples import INTEGERS
from onnx_fc2conv.equivalence.tiers.claimed_windows import without_windows
from onnx_fc2conv.equivalence.tiers.feature_windows import check_feature_windows
from onnx_fc2conv.equivalence.tiers.image_windows import check_image_windows
from onnx_fc2conv.equivalence.tiers.native import check_native
from onnx_fc2conv.equivalence.tiers.same_sizes import check_same_sizes
from onnx_fc2conv.equivalence.tracing.structure import computing_type
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.runtime.start import settings
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_integers", "integer_pair"]

TIER = "integers"

_GAINS = (16.0, 8.0, 4.0, 3.0)
"""Numbers of nonzero terms in a sum; the more, the sooner a deep model runs out of bits."""

_MOST_WEIGHTS = 1 << 25
_MANTISSA_OF_TF32 = 11
"""Its ten bits and the leading one."""

_MULTIPLYING = {"Conv", "Gemm", "MatMul"}
_LARGEST_INPUT = 2


def check_integers(claim: Claim) -> list[TierResult]:
    """Compare whole models whose weights are integers, at the native size and at larger ones."""
    pair = claim.pair
    try:
        integers = integer_pair(pair, larger=claim.larger_sizes in ("same", "windows"))
        results = check_native(integers) + _at_larger_sizes(integers, claim)
    except Inexact as reason:
        return [TierResult(TIER, "whole models", "skipped", str(reason))]
    except (Fc2ConvError, RunError, ValueError) as error:
        return [TierResult(TIER, "whole models", "failed", f"does not run on integers: {error}")]
    return _named(integers, pair, results)


def _weights(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(t.size for t in tensors if t is not None and t.dtype.is_floating_point())


def _at_larger_sizes(integers: Pair, claim: Claim) -> list[TierResult]:
    if not any(integers.growing.values()):
        return []
    if claim.larger_sizes == "same":
        return check_same_sizes(integers, claim.strides)
    return _windows(integers, claim) if claim.larger_sizes == "windows" else []


def _windows(integers: Pair, claim: Claim) -> list[TierResult]:
    """Cells against windows: of the feature map, and of the image where no padding shows."""
    pair = claim.pair
    output_of = {logits: output for output, (logits, _) in pair.logits.items()}
    outputs = {name: output_of.get(name, name) for name in integers.outputs}
    meanings = {n: claim.geometry[o] for n, o in outputs.items() if o in claim.geometry}
    reduced = {name: m.reduction for name, m in meanings.items() if m.reduction is not None}
    whole = {name for name, m in meanings.items() if 0 in m.stride} - set(reduced)
    results = check_feature_windows(integers, claim.strides, whole, reduced)
    for name, meaning in meanings.items():
        if meaning.windows_exact and not without_windows(pair, outputs[name], meaning):
            own = {**claim.strides, meaning.input: meaning.stride}
            results += check_image_windows(integers, name, own, asserted=True)
    return results


def _named(integers: Pair, pair: Pair, results: Sequence[TierResult]) -> list[TierResult]:
    """Return the results under this tier's name; skipped ones only if there are no others."""
    told = settings(pair.provider, tf32=integers.tf32).get("use_tf32")
    tf32 = "" if told is None else f", use_tf32={told}"
    named: list[TierResult] = []
    for result in results:
        how = exactly(pair.provider, result.worst_error) + tf32
        detail = f"{result.tier}, {how}: {result.detail}"
        subject = pair.subject(result.subject)
        named.append(replace(result, tier=TIER, subject=subject, detail=detail, required_rtol=None))
    return [result for result in named if result.status != "skipped"] or named


def integer_pair(pair: Pair, *, larger: bool = True) -> Pair:
    """Return both models with integers for weights, and the outputs that are exact then.

    Args:
        pair: The models; another seed draws other integers.
        larger: Whether they will run at larger sizes too.

    Raises:
        Inexact: If there are none.
    """
    weights = max(map(_weights, (pair.reference, pair.converted)))
    if weights > _MOST_WEIGHTS:
        raise Inexact(f"{weights:,} weights are too many to be coded")
    names = _exact_outputs(pair)
    reference = _only(pair.reference, {one: one for one in names})
    converted = _only(pair.converted, names)
    mantissa, sums = _mantissa(pair), 0.0
    tf32 = pair.provider == "cuda"
    exact = exact_values(reference)
    apart = {n: ROUNDED[pair.provider] * 2.0 ** -exact[n] for n in names}
    without: Pair | None = None
    for gain in _GAINS:
        codebook = Codebook(pair.seed, gain)
        integers = replace(
            pair,
            reference=coded(reference, codebook.learn),
            converted=coded(converted, codebook.look_up),
            tolerances={name: Tolerance(0.0, atol) for name, atol in apart.items()},
            tf32=tf32,
            kinds=(INTEGERS,),
            defined={},
        )
        sums, factors = _largest(integers, larger=larger)
        if sums >= 2.0**mantissa:
            continue
        if not tf32 or factors <= 2.0**_MANTISSA_OF_TF32:
            return integers
        without = without or replace(integers, tf32=False)
    if without is not None:
        return without
    raise Inexact(
        f"the model is too deep: sums of up to {sums:.0f} do not fit into {mantissa} bits"
    )


def _exact_outputs(pair: Pair) -> dict[str, str]:
    """Return outputs and logits that integers make exact: converted names by reference names.

    Raises:
        Inexact: If there are none.
    """
    one, two = exact_values(pair.reference), exact_values(pair.converted)
    names = {
        own: other
        for own, other in pair.outputs.items()
        if own not in pair.missing and own in one and other in two
    }
    inputs = {i.name for i in pair.inputs}
    names = {own: other for own, other in names.items() if own not in inputs}
    if names:
        return names
    for model, exact in ((pair.reference, one), (pair.converted, two)):
        for node in model.graph:
            stuck = node.outputs[0].name not in exact
            reads_exact = any(v is not None and v.name in exact for v in node.inputs)
            if stuck and reads_exact:
                name = node.name or node.outputs[0].name
                raise Inexact(f"{node.op_type} {name} turns integers into other numbers")
    raise Inexact("no output is made by layers whose sums are exact")


def _only(model: ir.Model, names: Mapping[str, str]) -> ir.Model:
    """A copy of the model with these outputs, under these names."""
    copy = model.clone()
    values = ir.convenience.create_value_mapping(copy.graph, include_subgraphs=False)
    copy.graph.outputs.clear()
    for wanted, own in names.items():
        value = values[own]
        if own != wanted and wanted in values:
            values[wanted].name = f"{wanted}.other"
        value.name = wanted
        copy.graph.outputs.append(value)
    RemoveUnusedNodesPass()(copy)
    return copy


def _mantissa(pair: Pair) -> int:
    """Return the n for which the coarsest type holds every integer up to 2^n."""
    types = [np.dtype(i.dtype) for i in pair.inputs if np.issubdtype(i.dtype, np.floating)]
    computing = computing_type(pair.reference)
    if computing is not None:
        types.append(np.dtype(computing.numpy()))
    if not types or any(dtype.name not in ("float16", "float32", "float64") for dtype in types):
        raise Inexact("it computes in a type that has no integers")
    return min(int(np.finfo(dtype.name).nmant) for dtype in types) + 1


def _largest(integers: Pair, *, larger: bool) -> tuple[float, float]:
    """The largest partial sum and the largest factor that can occur, in units of the last bit.

    They are found on an image whose every pixel is the largest one, at the native size and, as
    padding reaches into fewer sums of a larger image, at the largest size that is compared.
    """

    def full(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, AnyArray]:
        return {
            i.name: np.full(shapes[i.name], _LARGEST_INPUT if i.dtype != np.bool_ else 1, i.dtype)
            for i in integers.inputs
        }

    sums = factors = 0.0
    native = full(integers.batched(integers.fixed_batch or 1))
    sizes = [(integers.reference, native), (integers.converted, native)]
    if larger and any(integers.growing.values()):
        steps = {name: (8,) * len(axes) for name, axes in integers.growing.items()}
        *_, image = enlarged(integers, steps, (INTEGERS,) * 3)
        sizes.append((integers.converted, full({n: a.shape for n, a in image.feeds.items()})))
    for model, feeds in sizes:
        exact = exact_values(model)
        made = {v.name for node in model.graph for v in node.outputs[:1]}
        floats = [name for name in exact if name in made]
        found = magnitudes(model, feeds, floats)
        in_units = {name: found[name] * 2.0 ** exact[name] for name in floats}
        sums = max([sums, *in_units.values()])
        multiplied = {
            value.name or ""
            for node in model.graph
            if node.op_type in _MULTIPLYING
            for value in node.inputs[:2]
            if value is not None
        }
        factors = max([factors, *(in_units[name] for name in multiplied & set(floats))])
    return sums, factors
