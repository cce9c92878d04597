"""Tier *other sizes*: models that take the same sizes give the same outputs at all of them.

A model whose interface a conversion has kept, symbolic dims included, is no map of windows at a
larger size: it computes the same as the original there.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx_fc2conv.equivalence.comparing.comparison import Arrays
from onnx_fc2conv.equivalence.pair import Pair, as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.errors import Fc2ConvError
from onnx_fc2conv.runtime.session import RunError

__all__ = ["check_other_sizes"]

_TIER = "other sizes"


def check_other_sizes(pair: Pair) -> list[TierResult]:
    """Compare all outputs where the symbolic dims have other lengths than the native ones."""
    names = {one: two for one, two in pair.outputs.items() if one not in pair.missing}
    reference = pair.compared(pair.reference)
    converted = pair.compared(pair.converted)
    comparisons = {name: pair.comparison(name) for name in names}
    sizes: list[str] = []
    for number, (size, shapes) in enumerate(_shapes(pair)):
        feeds = sample(pair.inputs, shapes, "normal", pair.rng(4, number))
        try:
            expected = reference.run(feeds, list(names))
        except (RunError, Fc2ConvError):
            continue
        try:
            made = converted.run(feeds, list(names.values()))
        except (RunError, Fc2ConvError) as error:
            return [TierResult(_TIER, size, "failed", f"the converted model does not run: {error}")]
        sizes.append(size)
        arrays = {one: [Arrays(size, expected[one], made[two])] for one, two in names.items()}
        pair.compare(comparisons, arrays)
    what = f"both models at {'; '.join(sizes)}"
    results = [as_result(_TIER, name, c, what) for name, c in comparisons.items()]
    why = "the original computes at its native size only"
    return results if sizes else [TierResult(_TIER, "all outputs", "skipped", why)]


def _shapes(pair: Pair) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """Shapes of the inputs at other sizes; dims of one name have one length."""
    for batch, change in ((1, 1), (2, 3), (3, -1)):
        lengths: dict[str, int] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for value in pair.reference.graph.inputs:
            native = pair.native.get(value.name or "")
            if native is None or value.shape is None:
                continue
            dims: list[int] = []
            for axis, (dim, length) in enumerate(zip(value.shape, native, strict=True)):
                if isinstance(dim, int):
                    dims.append(dim)
                    continue
                name = dim.value or f"{value.name}[{axis}]"
                other = batch if axis == 0 else max(1, length + change)
                dims.append(lengths.setdefault(name, other))
            shapes[value.name or ""] = tuple(dims)
        yield ", ".join(f"{name} {length}" for name, length in lengths.items()), shapes
