"""Images larger than the native size, and the windows in them and in their feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.running.samples import sample
from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = [
    "Enlarged",
    "check_sizes",
    "chosen_cells",
    "crops",
    "enlarged",
    "larger_sizes",
    "remainders_text",
]

_BATCHES = (1, 2, 1)
_PERIOD = 8
"""So many lengths follow each other at least: a fault may show at some of them only."""

_FEW = 2
"""Sizes of a model whose runs are slow."""

_PRODUCTS = 2_000_000_000
"""About how many products the runs for the remainders of a stride may take."""


@dataclass(frozen=True, eq=False)
class Enlarged:
    """Images that are larger than the native size.

    Attributes:
        feeds: All inputs of the models by name.
        size: Spatial size of the first image input.
        batch: Number of images.
    """

    feeds: Mapping[str, AnyArray]
    size: tuple[int, ...]
    batch: int

    def __str__(self) -> str:
        return "×".join(map(str, self.size))


def larger_sizes(
    native: Sequence[int], stride: Sequence[int], step: Sequence[int] | None, remainders: int
) -> list[tuple[int, ...]]:
    """Sizes above the native one: three that are not square, and one for each remainder.

    Args:
        native: The native size.
        stride: Pixels between neighboring cells, along each axis.
        step: The sizes must exceed the native one by multiples of it; None where all will do.
        remainders: How many remainders of the largest stride are tried at least, spread evenly.
    """
    steps = [max(1, s) for s in stride]
    cycle = [(1, 3), (2, 1), (3, 2)]
    sizes: list[tuple[int, ...]] = []
    for n, grown in enumerate(cycle):
        size = [
            own + (grown[axis % 2] + (axis > 1)) * by
            for axis, (own, by) in enumerate(zip(native, steps, strict=True))
        ]
        if n:  # odd numbers of pixels, so that strides leave remainders
            size = [length + (length + 1) % 2 for length in size]
        if step is not None:
            pairs = zip(size, native, step, strict=True)
            size = [length + (own - length) % by for length, own, by in pairs]
        sizes.append(tuple(size))
    period = max(*steps, _PERIOD)
    if step is None and remainders:
        for rest in np.unique(np.linspace(1, period - 1, min(period - 1, remainders)).round()):
            # Every other axis has a further cell, and the remainders in the opposite order.
            more = [
                by + period - int(rest) if axis % 2 else int(rest) for axis, by in enumerate(steps)
            ]
            sizes.append(tuple(map(sum, zip(native, more, strict=True))))
    return sizes


def remainders_text(pair: Pair, strides: Mapping[str, Sequence[int]]) -> str:
    """How many of the remainders that a length leaves, divided by the stride, the sizes have."""
    found = [
        (len({(size[n] - pair.native[name][axis]) % stride for size in sizes}), stride)
        for name, sizes in _sizes(pair, strides).items()
        for n, (axis, stride) in enumerate(zip(pair.growing[name], strides[name], strict=False))
    ]
    tried, wanted = min(found, key=lambda each: each[0] / each[1], default=(1, 1))
    return "every remainder" if tried == wanted else f"{tried} of {wanted} remainders"


def check_sizes(pair: Pair) -> None:
    """Check before any work that the models can take the sizes that the user chose.

    Raises:
        ArgumentError: If they cannot.
    """
    images = {name: axes for name, axes in pair.growing.items() if axes}
    for size in pair.sizes:
        text = "×".join(map(str, size))
        if not images:
            raise ArgumentError(f"size {text}: the converted model takes its native size only")
        for name, axes in images.items():
            native = tuple(pair.native[name][axis] for axis in axes)
            own = "×".join(map(str, native))
            if len(size) != len(native):
                raise ArgumentError(f"size {text} is not one of {name!r}, whose size is {own}")
            if any(length < least for length, least in zip(size, native, strict=True)):
                raise ArgumentError(f"size {text} is smaller than the native size {own}")


def enlarged(
    pair: Pair, strides: Mapping[str, Sequence[int]], kinds: Sequence[str]
) -> Iterator[Enlarged]:
    """Yield the image inputs at larger sizes or the user's own, every third a batch of two.

    Args:
        pair: The models.
        strides: Pixels between neighboring cells, per growing axis of each input.
        kinds: The kind of image at each size; they recur where there are more sizes.
    """
    images = {name: axes for name, axes in pair.growing.items() if axes}
    first = next(iter(images))
    options = _sizes(pair, strides)
    batches = (1,) if pair.unbatched else _BATCHES
    if pair.keeps_batch:
        batches = (pair.fixed_batch or 1,)
    for number in range(min(map(len, options.values()))):
        kind, batch = kinds[number % len(kinds)], batches[number % len(batches)]
        shapes = pair.batched(batch)
        for name, axes in images.items():
            shape = list(shapes[name])
            for axis, length in zip(axes, options[name][number], strict=True):
                shape[axis] = length
            shapes[name] = tuple(shape)
        feeds = sample(pair.inputs, shapes, kind, pair.rng(2, number))
        yield Enlarged(feeds, options[first][number], batch)


def _sizes(pair: Pair, strides: Mapping[str, Sequence[int]]) -> dict[str, list[tuple[int, ...]]]:
    """The sizes of each image input: those that the user chose, else our own."""
    return {
        name: list(pair.sizes)
        or larger_sizes(
            [pair.native[name][axis] for axis in axes],
            strides[name],
            pair.size_steps.get(name),
            _PRODUCTS // max(pair.products, 1),
        )[: _FEW if pair.is_heavy else None]
        for name, axes in pair.growing.items()
        if axes
    }


def chosen_cells(pair: Pair, count: int, most: int | None = None) -> AnyArray | None:
    """Choose the cells to compare if there are too many: the first, the last and random others.

    ``most`` is the limit if the user sets none.

    Returns:
        Their indices in rising order; None for all.
    """
    wanted = most if pair.max_windows is None else pair.max_windows
    if wanted is None or count <= wanted:
        return None
    corners = [0, count - 1][:wanted]
    others = pair.rng(6, count).permutation(np.arange(1, count - 1))[: wanted - len(corners)]
    return np.sort(np.concatenate([corners, others])).astype(np.int64)


def crops(
    image: AnyArray,
    axes: Sequence[int],
    native: Sequence[int],
    stride: Sequence[int],
    positions: Iterable[Sequence[int]],
) -> AnyArray:
    """The crops of native size at these multiples of the stride: [batch·positions, …]."""
    found: list[AnyArray] = []
    for cell in positions:
        window = [slice(None)] * image.ndim
        for axis, position, own, step in zip(axes, cell, native, stride, strict=True):
            window[axis] = slice(position * step, position * step + own)
        found.append(image[tuple(window)])
    return np.stack(found, axis=1).reshape(-1, *found[0].shape[1:])
