"""Tier *larger sizes*: where the original takes any size itself, both give the same there too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_fc2conv.equivalence.comparing.comparison import Arrays
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.larger import enlarged, sizes_text
from onnx_fc2conv.runtime.session import RunError

__all__ = ["check_same_sizes"]

_TIER = "larger sizes"
_KINDS = ("image-like", "normal", "uniform")


def check_same_sizes(pair: Pair, strides: Mapping[str, Sequence[int]]) -> list[TierResult]:
    """Compare all outputs, and the logits before a saturating one, on larger images.

    Args:
        pair: The models.
        strides: By input, the distance in pixels between neighboring cells per growing axis; it
            decides how large the images are, nothing else.
    """
    names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
    reference = pair.compared(pair.reference)
    converted = pair.compared(pair.converted)
    comparisons = {name: pair.comparison(name) for name in names}
    arrays: dict[str, list[Arrays]] = {name: [] for name in names}
    try:
        for image in enlarged(pair, strides, _KINDS):
            expected = reference.run(image.feeds, list(names))
            got = converted.run(image.feeds, list(dict.fromkeys(names.values())))
            for one, two in names.items():
                arrays[one].append((str(image), expected[one], got[two]))
    except RunError as error:
        return [TierResult(_TIER, "all outputs", "failed", f"does not run: {error}")]
    pair.compare(comparisons, arrays)
    what = f"both models at {sizes_text(pair)}"
    return [as_result(_TIER, pair.subject(name), c, what) for name, c in comparisons.items()]
