"""Which tensors of two models correspond, found by running both: those that hold the same numbers.

Neither names nor operators nor shapes play a part, only values: a conversion of any origin is
treated alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.equivalence.comparing.comparison import Tolerance
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.runtime.session import RunError
from onnx_fc2conv.views.maps.labels import AnyArray

if TYPE_CHECKING:
    from onnx_fc2conv.equivalence.pair import Pair

__all__ = ["computed", "corresponding"]

_KINDS = ("normal", "uniform")
_PLACES = 256
"""Numbers of each tensor that are compared on each input, drawn at random."""
_AT_ONCE = 1 << 28
"""Bytes of tensors that one run gives out."""
_TEXT = np.dtype(np.str_)


def corresponding(pair: Pair) -> dict[str, str]:
    """Return converted names by reference names, of tensors that hold the same numbers.

    Both models run at the native size on two random inputs. Two tensors correspond if they have
    the same numbers in the same order, whatever their shapes, within the tolerance; among several,
    the nearest is taken, and of those the first that is computed. Tensors that are the same on both
    inputs, or not finite, correspond to none. Empty if a model does not run with all its tensors as
    outputs.
    """
    try:
        ours, theirs = (_fingerprints(pair, model) for model in pair.models)
    except (InvalidModelError, RunError):
        return {}
    tolerance = replace(next(iter(pair.tolerances.values()), Tolerance()), rtol=None)
    alike: dict[tuple[int, np.dtype[np.generic]], list[str]] = defaultdict(list)
    for name, (size, places) in theirs.items():
        alike[size, places.dtype].append(name)
    stacked = {key: np.stack([theirs[name][1] for name in names]) for key, names in alike.items()}
    found: dict[str, str] = {}
    for name, (size, places) in ours.items():
        key = (size, places.dtype)
        if key in alike:
            distance = np.abs(stacked[key].astype(np.float64) - places).max(axis=1)
            nearest = int(distance.argmin())
            if distance[nearest] <= tolerance.relative(places.dtype) * float(np.abs(places).max()):
                found[name] = alike[key][nearest]
    return found


def computed(
    pair: Pair, model: ir.Model, feeds: Mapping[str, AnyArray]
) -> Iterator[tuple[str, AnyArray]]:
    """Yield the inputs of a model at the native size and the tensors that it computes from them.

    Raises:
        InvalidModelError: If onnxruntime does not load it with all of them as outputs.
        RunError: If it does not run.
    """
    names = [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and isinstance(value.type, ir.TensorType | None)
    ]
    session = pair.session(with_outputs(model, names))
    yield from feeds.items()
    for part in _parts(names, lambda name: prod(pair.native_shape(model, name) or ()) * 8):
        made = session.run(feeds, part, shrink_arena=True)
        yield from ((n, a) for n, a in made.items() if getattr(a, "dtype", _TEXT).kind in "fiub")


def _parts(names: Iterable[str], weight: Callable[[str], int]) -> Iterator[list[str]]:
    part: list[str] = []
    total = 0
    for name in names:
        total += weight(name)
        if part and total > _AT_ONCE:
            yield part
            part, total = [], weight(name)
        part.append(name)
    yield part


def _fingerprints(pair: Pair, model: ir.Model) -> dict[str, tuple[int, AnyArray]]:
    """Return, by tensor that depends on the input, its size and its numbers at some places."""
    drawn: list[dict[str, tuple[int, AnyArray]]] = []
    for number, kind in enumerate(_KINDS):
        feeds = sample(pair.inputs, pair.batched(pair.fixed_batch or 1), kind, pair.rng(9, number))
        drawn.append({n: (a.size, _places(a)) for n, a in computed(pair, model, feeds) if a.size})
    one, two = drawn
    return {
        name: (size, np.concatenate([places, two[name][1]]))
        for name, (size, places) in one.items()
        if two[name][0] == size
        and not np.array_equal(places, two[name][1])
        and np.isfinite(places).all()
        and np.isfinite(two[name][1]).all()
    }


def _places(array: AnyArray) -> AnyArray:
    flat = array.reshape(-1)
    if flat.size <= _PLACES:
        return flat.copy()
    return flat[np.random.default_rng(flat.size).integers(0, flat.size, _PLACES)]
