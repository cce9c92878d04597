"""The tiers of a check, in the order in which they run.

A new tier is one file and one row. README.md and docs/check.md show this table
(``python tools/tier_tables.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.byte_products import has_products
from onnx_fc2conv.equivalence.running.reference import rare_types
from onnx_fc2conv.equivalence.subject import Subject
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
from onnx_fc2conv.equivalence.tiers.opset import check_lifted
from onnx_fc2conv.equivalence.tiers.other_sizes import check_other_sizes
from onnx_fc2conv.equivalence.tiers.refined_grid import check_refined_grid
from onnx_fc2conv.equivalence.tiers.relation import check_relation
from onnx_fc2conv.equivalence.tiers.same_sizes import check_same_sizes
from onnx_fc2conv.equivalence.tiers.saturated_sums import check_saturation
from onnx_fc2conv.equivalence.tiers.weights import check_weights

__all__ = ["TIERS", "Tier"]


@dataclass(frozen=True)
class Tier:
    """One kind of comparison.

    Attributes:
        name: Its name in reports.
        compares: The compared things, and the inputs.
        closeness: How close the two must be.
        needs: Whether it applies to a subject.
        run: Compares, and returns a result for each output, layer or model.
    """

    name: str
    compares: str
    closeness: str
    needs: Callable[[Subject], bool]
    run: Callable[[Subject], list[TierResult]]


def _always(_: Subject) -> bool:
    return True


def _data(subject: Subject) -> list[TierResult]:
    return [r for samples in subject.recordings for r in check_data(subject.pair, samples)]


def _native(subject: Subject) -> list[TierResult]:
    return [*check_native(subject.pair), *check_constant_outputs(subject.pair)]


def _claims(subject: Subject) -> list[TierResult]:
    any_size = subject.relation.kind == "any size"
    return check_claims(subject.described, subject.stored, any_size=any_size)


def _feature_windows(subject: Subject) -> list[TierResult]:
    if subject.larger_sizes == "none":
        return [TierResult("feature windows", "all outputs", "skipped", subject.relation.words)]
    reduced = {o: m.reduction for o, m in subject.geometry.items() if m.reduction is not None}
    whole = {output for output, meaning in subject.geometry.items() if 0 in meaning.stride}
    return check_feature_windows(subject.pair, subject.strides, whole - set(reduced), reduced)


def _image_windows(subject: Subject) -> list[TierResult]:
    return check_claimed_windows(subject.pair, subject.geometry, subject.strides)


def _refined_grid(subject: Subject) -> list[TierResult]:
    assert subject.denser is not None
    return check_refined_grid(subject.pair, subject.denser, subject.strides)


def _refined_windows(subject: Subject) -> list[TierResult]:
    assert subject.denser is not None
    return check_denser_windows(subject.described, subject.denser)


def _relation(subject: Subject) -> list[TierResult]:
    assert subject.expect is not None
    return check_relation(subject.pair, subject.relation, subject.expect)


TIERS = (
    Tier(
        "runtime",
        "nothing: it names a model in float64 or bfloat16 that onnxruntime has no kernels for",
        "ONNX's reference implementation runs it",
        lambda subject: any(map(rare_types, subject.pair.models)),
        lambda subject: missing_kernels(subject.pair),
    ),
    Tier(
        "opset",
        "an original of opset 1 to 6 with its lift to opset 7, the reference of all other tiers",
        "the tolerance",
        lambda subject: subject.is_lifted,
        lambda subject: check_lifted(subject.original, subject.pair),
    ),
    Tier(
        "weights",
        "every kernel and bias with its layer's, each element in its place",
        "byte for byte",
        _always,
        lambda subject: check_weights(subject.pair),
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
        lambda subject: is_small(subject.pair),
        lambda subject: check_by_evaluator(subject.pair),
    ),
    Tier(
        "geometry",
        "the geometry in the converted model's metadata with its behavior: window, number of "
        "cells, receptive field",
        "exactly",
        lambda subject: bool(subject.stored),
        _claims,
    ),
    Tier(
        "data",
        "all outputs on your own samples (`--data`), and outputs recorded for them",
        "the tolerance; 0.1 % for recordings",
        lambda subject: bool(subject.recordings),
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
        lambda subject: subject.larger_sizes == "other",
        lambda subject: check_other_sizes(subject.pair),
    ),
    Tier(
        "larger sizes",
        "where the original takes any size itself: all outputs on larger images",
        "the tolerance",
        lambda subject: subject.larger_sizes == "same",
        lambda subject: check_same_sizes(subject.pair, subject.strides),
    ),
    Tier(
        "feature windows",
        "every cell at three larger sizes with the original head on its window of the feature map",
        "the tolerance",
        lambda subject: subject.larger_sizes in ("none", "windows"),
        _feature_windows,
    ),
    Tier(
        "image windows",
        "every cell with the original model on its crop of the image",
        "the tolerance where windows are exact; elsewhere measured",
        lambda subject: subject.larger_sizes == "windows",
        _image_windows,
    ),
    Tier(
        "refined grid",
        "with `--stride`: every S/N-th cell with the ordinary conversion",
        "the tolerance",
        lambda subject: subject.denser is not None,
        _refined_grid,
    ),
    Tier(
        "refined image windows",
        "with `--stride`, where windows are exact: every cell with its crop",
        "the tolerance",
        lambda subject: subject.denser is not None,
        _refined_windows,
    ),
    Tier(
        "saturation",
        "on a CPU whose sums of bytes saturate: what default sessions give, with the exact sums",
        "measured",
        lambda subject: (
            subject.pair.provider == "cpu" and any(map(has_products, subject.pair.models))
        ),
        lambda subject: check_saturation(subject.pair, subject.recordings),
    ),
    Tier(
        "relation",
        "with `--expect`: how the converted model relates to the original",
        "the same",
        lambda subject: subject.expect is not None,
        _relation,
    ),
)
