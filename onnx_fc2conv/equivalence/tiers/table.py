"""The tiers of a check, in the order in which they run.

A new tier is one file and one row. README.md and docs/check.md show this table
(``python tools/tier_tables.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.claims import check_claims
from onnx_fc2conv.equivalence.tiers.constant_outputs import check_constant_outputs
from onnx_fc2conv.equivalence.tiers.data import check_data
from onnx_fc2conv.equivalence.tiers.feature_windows import check_feature_windows, check_same_sizes
from onnx_fc2conv.equivalence.tiers.image_windows import check_image_windows
from onnx_fc2conv.equivalence.tiers.integers import check_integers
from onnx_fc2conv.equivalence.tiers.missing_kernels import missing_kernels
from onnx_fc2conv.equivalence.tiers.native import check_native
from onnx_fc2conv.equivalence.tiers.opset import check_upgraded
from onnx_fc2conv.equivalence.tiers.other_sizes import check_other_sizes
from onnx_fc2conv.equivalence.tiers.relation import check_relation
from onnx_fc2conv.equivalence.tiers.saturated_sums import check_saturation
from onnx_fc2conv.runtime.byte_products import has_products
from onnx_fc2conv.runtime.reference import rare_types

__all__ = ["TIERS", "Tier"]


@dataclass(frozen=True)
class Tier:
    """One kind of comparison.

    Attributes:
        name: Its name in reports.
        compares: The compared things, and the inputs.
        closeness: How close the two must be.
        needs: Whether the claim calls for it.
        run: Compares; a result for each output, layer or model.
    """

    name: str
    compares: str
    closeness: str
    needs: Callable[[Claim], bool]
    run: Callable[[Claim], list[TierResult]]


TIERS = (
    Tier(
        "runtime",
        "nothing: it names a model in float64 or bfloat16 that onnxruntime has no kernels for",
        "ONNX's reference implementation runs it",
        lambda claim: any(map(rare_types, claim.pair.models)),
        lambda claim: missing_kernels(claim.pair),
    ),
    Tier(
        "opset",
        "an original of opset 1 to 6 with the upgrade that all other tiers take for it",
        "the tolerance",
        lambda claim: claim.is_upgraded,
        lambda claim: check_upgraded(claim.original, claim.pair),
    ),
    Tier(
        "native",
        "all outputs at the native size, batch 1 and 3, on nine kinds of input, and on inputs that "
        "are searched for, where the two may differ",
        "the tolerance",
        lambda _: True,
        lambda claim: [*check_native(claim.pair), *check_constant_outputs(claim.pair)],
    ),
    Tier(
        "geometry",
        "the geometry in the converted model's metadata with its behavior: window, number of "
        "cells, receptive field",
        "exactly",
        lambda claim: bool(claim.stored),
        check_claims,
    ),
    Tier(
        "data",
        "all outputs on your own samples (`--data`), and outputs recorded for them",
        "the tolerance; 0.1 % for recordings",
        lambda claim: bool(claim.recordings),
        lambda claim: [r for given in claim.recordings for r in check_data(claim.pair, given)],
    ),
    Tier(
        "integers",
        "whole models with small integers for weights and pixels, others in each coding: "
        "at the native size, and on all windows",
        "the tolerance, which no wrong integer meets",
        lambda _: True,
        check_integers,
    ),
    Tier(
        "other sizes",
        "models with the same symbolic dims: all outputs at other lengths of them",
        "the tolerance",
        lambda claim: claim.larger_sizes == "other",
        lambda claim: check_other_sizes(claim.pair),
    ),
    Tier(
        "larger sizes",
        "outputs that the original, freed of its size, computes itself: on larger images",
        "the tolerance",
        lambda claim: claim.larger_sizes in ("same", "windows"),
        check_same_sizes,
    ),
    Tier(
        "feature windows",
        "every cell of a larger image with the original head on its windows of the original's maps",
        "the tolerance",
        lambda claim: claim.larger_sizes in ("none", "same", "windows"),
        check_feature_windows,
    ),
    Tier(
        "image windows",
        "every cell with the original model on its crop of the image",
        "the tolerance where windows are exact; elsewhere measured",
        lambda claim: claim.larger_sizes == "windows",
        check_image_windows,
    ),
    Tier(
        "saturation",
        "on a CPU whose sums of bytes saturate: what default sessions give, with the exact sums",
        "measured",
        lambda claim: claim.pair.provider == "cpu" and any(map(has_products, claim.pair.models)),
        lambda claim: check_saturation(claim.pair, claim.recordings),
    ),
    Tier(
        "relation",
        "with `--expect`: how the converted model relates to the original",
        "the same",
        lambda claim: claim.expect is not None,
        check_relation,
    ),
)
