"""Running models on as many samples as there are, and reading their outputs sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_fc2conv.runtime.session import RunError, Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["run_in_batches", "to_reference_shape"]


def to_reference_shape(array: AnyArray, shape: Sequence[int]) -> AnyArray:
    """Reshape a map of one cell per sample, [N, K, 1, …], to the reference's shape [N, K].

    Shapes that differ in more than axes of length 1 are left for the comparison to refuse.
    """

    def of_samples(lengths: Sequence[int]) -> tuple[int, ...]:
        return (*lengths[:1], *(length for length in lengths[1:] if length != 1))

    if of_samples(array.shape) == of_samples(shape):
        return array.reshape(tuple(shape))
    return array


def run_in_batches(
    session: Session, feeds: Mapping[str, AnyArray], outputs: Sequence[str], batch: int | None
) -> dict[str, AnyArray]:
    """Run as many samples as there are, ``batch`` at a time (None: as many as the model takes).

    Returns:
        By name, the outputs stacked on a first axis of samples.

    Raises:
        RunError: If the model computes neither several samples nor one.
    """
    count = max((len(array) for array in feeds.values() if array.ndim > 1), default=1)
    if batch is None:
        try:
            return _stacked(session, feeds, outputs, min(count, 32), count)
        except (RunError, ValueError):
            batch = 1
    return _stacked(session, feeds, outputs, batch, count)


def _stacked(
    session: Session,
    feeds: Mapping[str, AnyArray],
    outputs: Sequence[str],
    batch: int,
    count: int,
) -> dict[str, AnyArray]:
    parts: dict[str, list[AnyArray]] = {name: [] for name in outputs}
    for start in range(0, count, batch):
        wanted = min(batch, count - start)
        # A model with a fixed batch gets its last one filled up with repetitions.
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        got = session.run(
            {n: a[rows] if a.ndim > 1 and len(a) == count else a for n, a in feeds.items()},
            outputs,
        )
        for name, array in got.items():
            parts[name].append(_by_sample(array, batch)[:wanted])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _by_sample(array: AnyArray, batch: int) -> AnyArray:
    """The output of ``batch`` samples as [batch, …].

    Raises:
        ValueError: If it does not have the samples on its first axis.
    """
    if array.ndim and array.shape[0] == batch:
        return array
    if batch == 1:  # the export dropped the batch axis
        return array[None]
    raise ValueError(f"an output of shape {list(array.shape)} for {batch} samples")
