"""Tiers *layers* and *integers* of single layers: a layer and its Conv on the same windows.

With the real weights the two may differ by the a-priori bound of rounding errors, element by
element; with small integers by nothing. Whatever lies before the layer plays no part, so that no
feature is dead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.bounds import largest_difference
from onnx_fc2conv.equivalence.exactness import ROUNDED, exactly
from onnx_fc2conv.equivalence.integer_coding import bit_patterns, integers_of
from onnx_fc2conv.equivalence.layer_windows import LayerWindows, Products, chosen_outputs
from onnx_fc2conv.equivalence.layers import LayerPair, Layers, NotComparable, layer_key
from onnx_fc2conv.equivalence.places import NotTraced
from onnx_fc2conv.equivalence.report import TierResult
from onnx_fc2conv.equivalence.runtime import RunError
from onnx_fc2conv.equivalence.sessions import Provider
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.views.labels import AnyArray

__all__ = ["check_single_layer"]

_LAYERS, _INTEGERS = "layers", "integers"
_LARGEST_INTEGER = 8
_LARGEST_CODE = 3
_ROUNDINGS_OF_FOLDING = 66
"""A scale that is folded into a kernel is compared to 64 units in the last place."""


def check_single_layer(
    layers: Layers, layer: ir.Node, convs: Sequence[ir.Node], number: int
) -> list[TierResult]:
    """Compare a layer with its Conv, on its own.

    Args:
        layers: All layers.
        layer: The one.
        convs: The Conv that stands for it, or all that its sum is split into.
        number: Another one for each layer, from which its random numbers come.
    """
    name = f"{layer_key(layer)} alone"
    try:
        windows = LayerWindows(layers.pair, _of_floats(layers.read(layer, convs)))
        rng = layers.pair.rng(6, number)
        within = _within_bound(windows, name, rng)
        return [within, _exact(windows, name, rng)]
    except NotTraced as reason:
        return [TierResult(_LAYERS, name, "skipped", str(reason))]
    except (NotComparable, Fc2ConvError, RunError, ValueError) as error:
        if layers.is_matrix(layer, convs):
            why = "its operand is made a map for it alone; the other tiers compare it"
            return [TierResult(_LAYERS, name, "skipped", why)]
        return [TierResult(_LAYERS, name, "failed", str(error))]


def _of_floats(both: LayerPair) -> LayerPair:
    """The layer, if it is one Conv that multiplies floats.

    Raises:
        NotTraced: If it is not.
    """
    if len(both.convs) > 1:
        raise NotTraced(f"it is the sum of {len(both.convs)} Convs; the other tiers compare it")
    if both.weight.dtype.name not in ("float16", "float32", "float64"):
        raise NotTraced(f"its weights are {both.weight.dtype}; the other tiers compare it")
    return both


def _within_bound(windows: LayerWindows, name: str, rng: np.random.Generator) -> TierResult:
    """Real weights on random features: apart by 2γₙ·Σ|x||w| at most."""
    both = windows.both
    rows = chosen_outputs(both.weight, rng)
    weight = both.times(both.scale) if both.folded else both.weight
    if both.alpha != 1.0 and _same_numbers(both.weight, both.kernel):
        raise NotTraced("alpha is not in the kernel; other tiers compare what is made of it")
    features = rng.standard_normal(windows.shape()).astype(weight.dtype)
    products = windows.run(features, weight[rows], both.kernel[rows])
    terms = weight.shape[1] + (_ROUNDINGS_OF_FOLDING if both.folded else 0)
    bound = largest_difference(products.operand, weight[rows], terms)
    if not np.isfinite(bound).all():
        return TierResult(_LAYERS, name, "skipped", f"no bound for sums of {terms} halves")
    difference = np.abs(products.expected.astype(np.float64) - products.found)
    share = np.where(difference == 0, 0.0, difference / bound)
    worst = int(np.nanargmax(share)) if not np.isnan(share).all() else 0
    where = tuple(int(axis) for axis in np.unravel_index(worst, share.shape))
    wrong = int((~(share <= 1)).sum())
    subset = "" if len(rows) == len(weight) else f" of {len(rows)} outputs drawn"
    detail = (
        f"{len(products.found)} windows{subset}, at most {float(share.max()):.2g} of the bound "
        f"2γₙ·Σ|x||w| for n = {terms}"
    )
    if wrong:
        detail = f"{wrong} of {share.size} values are further apart than rounding takes: {detail}"
    return TierResult(
        _LAYERS,
        name,
        "failed" if wrong else "passed",
        detail,
        share.size,
        float(difference.max()),
        where=f"window, output {list(where)}",
    )


def _exact(windows: LayerWindows, name: str, rng: np.random.Generator) -> TierResult:
    """Integer weights on integer features: equal bit for bit."""
    both = windows.both
    rows = chosen_outputs(both.weight, rng)
    dtype = both.weight.dtype
    limit = 2.0 ** (int(np.finfo(dtype.name).nmant) + 1)
    largest = min(_LARGEST_INTEGER, max(1, int(limit) >> 9))
    density = min(1.0, limit / (4 * largest * _LARGEST_CODE * both.weight.shape[1]))
    weight, kernel, how = _coded(both, rows, density, rng)
    if kernel is None:
        raise NotComparable("the layer reads elements that its Conv does not")
    if largest * float(np.abs(weight.astype(np.float64)).sum(axis=1).max()) >= limit:
        raise NotTraced(f"sums of integers do not fit into {dtype}")
    shape = windows.shape()
    features = rng.integers(-largest, largest, shape, endpoint=True).astype(dtype)
    products = windows.run(features, weight, kernel)
    return _bitwise(name, products, how, windows.pair.provider)


def _coded(
    both: LayerPair, rows: AnyArray, density: float, rng: np.random.Generator
) -> tuple[AnyArray, AnyArray | None, str]:
    """Integers for the weight [K, D] and the kernel [K, E].

    Each number becomes an integer, wherever it stands. Where something is folded into the kernel it
    holds other numbers: there the integers are put where the data movement says.
    """
    salt = int(rng.integers(1 << 30))
    weight = integers_of(both.weight[rows], salt, density, _LARGEST_CODE)
    if not both.folded:
        kernel = integers_of(both.kernel[rows], salt, density, _LARGEST_CODE)
        return weight, kernel, "an integer for each of the layer's numbers"
    return weight, both.placed(weight), "integers in the places of the layer's weights"


def _same_numbers(one: AnyArray, two: AnyArray) -> bool:
    left, right = np.unique(bit_patterns(one)), np.unique(bit_patterns(two))
    return bool(np.array_equal(left[left != 0], right[right != 0]))


def _bitwise(name: str, products: Products, how: str, provider: Provider) -> TierResult:
    difference = np.abs(products.expected.astype(np.float64) - products.found)
    different = ~(difference <= ROUNDED[provider])
    wrong, worst = int(different.sum()), float(difference.max())
    detail = f"{len(products.found)} windows, {exactly(provider, worst)}: {how}"
    if wrong:
        first = [int(axis) for axis in np.argwhere(different)[0]]
        detail = f"{wrong} of {different.size} values differ, first window, output {first}"
    return TierResult(
        _INTEGERS, name, "failed" if wrong else "passed", detail, different.size, worst
    )
