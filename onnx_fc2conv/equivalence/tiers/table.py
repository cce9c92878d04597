"""The tiers of a check, in the order in which they run.

A new tier is one file and one row. README.md and docs/check.md show this table
(``python tools/tier_tables.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx_fc2conv.equivalence.claim import Claim
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.claimed_windows import (
    check_claimed_windows,
    check_denser_windows,
)
from onnx_fc2conv.equivalence.tiers.claims import check_claims
from onnx_fc2conv.equivalence.tiers.constant_outputs import check_constant_outputs
from onnx_fc2conv.equivalence.tiers.data import check_data
from onnx_fc2conv.equivalence.tiers.evaluator import check_by_evaluator, is_small
from onnx_fc2conv.equivalence.tiers.feature_windows import check_feature_windows
from onnx_fc2conv.equivalence.tiers.integers import check_integers
from onnx_fc2conv.equivalence.tiers.missing_kernels import missing_kernels
from onnx_fc2conv.equivalence.tiers.native import check_native
from onnx_fc2conv.equivalence.tiers.opset import check_upgraded
from onnx_fc2conv.equivalence.tiers.other_sizes import check_other_sizes
from onnx_fc2conv.equivalence.tiers.refined_grid import check_refined_grid
from onnx_fc2conv.equivalence.tiers.relation import check_relation
from onnx_fc2conv.equivalence.tiers.same_sizes import check_same_sizes
from onnx_fc2conv.equivalence.tiers.saturated_sums import check_saturation
from onnx_fc2conv.equivalence.tiers.weights import check_weights
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


def _always(_: Claim) -> bool:
    return True


def _data(claim: Claim) -> list[TierResult]:
    return [r for samples in claim.recordings for r in check_data(claim.pair, samples)]


def _native(claim: Claim) -> list[TierResult]:
    return [*check_native(claim.pair), *check_constant_outputs(claim.pair)]


def _claims(claim: Claim) -> list[TierResult]:
    any_size = claim.relation.kind == "any size"
    return check_claims(claim.described, claim.stored, any_size=any_size)


def _feature_windows(claim: Claim) -> list[TierResult]:
    if claim.larger_sizes == "none":
        return [TierResult("feature windows", "all outputs", "skipped", claim.relation.words)]
    reduced = {o: m.reduction for o, m in claim.geometry.items() if m.reduction is not None}
    whole = {output for output, meaning in claim.geometry.items() if 0 in meaning.stride}
    return check_feature_windows(claim.pair, claim.strides, whole - set(reduced), reduced)


def _image_windows(claim: Claim) -> list[TierResult]:
    return check_claimed_windows(claim.pair, claim.geometry, claim.strides)


def _refined_grid(claim: Claim) -> list[TierResult]:
    assert claim.denser is not None
    return check_refined_grid(claim.pair, claim.denser, claim.strides)


def _refined_windows(claim: Claim) -> list[TierResult]:
    assert claim.denser is not None
    return check_denser_windows(claim.described, claim.denser)


def _relation(claim: Claim) -> list[TierResult]:
    assert claim.expect is not None
    return check_relation(claim.pair, claim.relation, claim.expect)


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
        "weights",
        "every kernel and bias with its layer's, each element in its place",
        "byte for byte",
        _always,
        lambda claim: check_weights(claim.pair),
    ),
    Tier(
        "native",
        "all outputs at the native size, batch 1 and 3, on four kinds of input, and the logits "
        "before a softmax or the like",
        "the tolerance",
        _always,
        _native,
    ),
    Tier(
        "native (reference evaluator)",
        "the same on one image, both models run by ONNX's reference evaluator; small models only",
        "the tolerance",
        lambda claim: is_small(claim.pair),
        lambda claim: check_by_evaluator(claim.pair),
    ),
    Tier(
        "geometry",
        "the geometry in the converted model's metadata with its behavior: window, number of "
        "cells, receptive field",
        "exactly",
        lambda claim: bool(claim.stored),
        _claims,
    ),
    Tier(
        "data",
        "all outputs on your own samples (`--data`), and outputs recorded for them",
        "the tolerance; 0.1 % for recordings",
        lambda claim: bool(claim.recordings),
        _data,
    ),
    Tier(
        "integers",
        "whole models with small integers for weights and pixels, which every sum holds exactly, "
        "at the native size and on all windows",
        "bit for bit",
        _always,
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
        "where the original takes any size itself: all outputs on larger images",
        "the tolerance",
        lambda claim: claim.larger_sizes == "same",
        lambda claim: check_same_sizes(claim.pair, claim.strides),
    ),
    Tier(
        "feature windows",
        "every cell at three larger sizes with the original head on its window of the feature map",
        "the tolerance",
        lambda claim: claim.larger_sizes in ("none", "windows"),
        _feature_windows,
    ),
    Tier(
        "image windows",
        "every cell with the original model on its crop of the image",
        "the tolerance where windows are exact; elsewhere measured",
        lambda claim: claim.larger_sizes == "windows",
        _image_windows,
    ),
    Tier(
        "refined grid",
        "with `--stride`: every S/N-th cell with the ordinary conversion",
        "the tolerance",
        lambda claim: claim.denser is not None,
        _refined_grid,
    ),
    Tier(
        "refined image windows",
        "with `--stride`, where windows are exact: every cell with its crop",
        "the tolerance",
        lambda claim: claim.denser is not None,
        _refined_windows,
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
        _relation,
    ),
)
