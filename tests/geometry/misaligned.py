"""The verdict *misaligned*, measured: no grid of windows fits the map at every size of the image.

Such models are refused, so it is the original's own layers that are run at larger sizes.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx.utils import Extractor

from tests.nets import Array, Run, session

_STEPS = range(1, 25)
_MORE = 12
_FAILURES = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
)


def measure_misaligned(model: onnx.ModelProto, seed: int = 0) -> int:
    """Along some axis no step up to 24 pixels moves the map by one cell, or some size fails.

    Args:
        model: A random net; its last output is the map that the head reads.
        seed: Of the images.

    Returns:
        Number of steps and sizes that were tried.
    """
    dims = model.graph.input[0].type.tensor_type.shape.dim
    native = tuple(dim.dim_value for dim in dims[1:])
    run = session(_trunk(model))
    tried = 0
    for axis in range(1, len(native)):
        steps = [step for step in _STEPS if _slides(run, native, axis, step, seed)]
        tried += len(_STEPS)
        tried += len(_STEPS)
        if not steps or any(_fails(run, native, axis, more) for more in _STEPS):
            return tried
    raise AssertionError("said to be misaligned, but along each axis its map moves as a window")


def _trunk(model: onnx.ModelProto) -> onnx.ModelProto:
    """Up to the map, for images of any size."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    image, feature_map = bare.graph.input[0], bare.graph.output[-1]
    made = Extractor(bare).extract_model([image.name], [feature_map.name])
    for value in (made.graph.input[0], made.graph.output[0]):
        for dim in (d for n, d in enumerate(value.type.tensor_type.shape.dim) if n != 1):
            dim.Clear()
    return made


def _fails(run: Run, native: tuple[int, ...], axis: int, more: int) -> bool:
    """Whether the layers do not fit together on an image with so many pixels more."""
    shape = [1, *native]
    shape[1 + axis] += more
    try:
        run({"x": np.zeros(shape, np.float32)})
    except _FAILURES:
        return True
    return False


def _slides(run: Run, native: tuple[int, ...], axis: int, step: int, seed: int) -> bool:
    """Whether the map of an image without its first pixels is the map without its first cell."""
    shape = [1, *native]
    shape[1 + axis] += _MORE * step
    image: Array = np.random.default_rng((seed, axis, step)).normal(size=shape).astype(np.float32)
    shifted = np.delete(image, range(step), axis=1 + axis)
    try:
        (whole,), (part,) = (run({"x": x}).values() for x in (image, shifted))
        (own,) = run({"x": np.zeros((1, *native), np.float32)}).values()
    except _FAILURES:
        return False
    cells = whole.shape[1 + axis]
    if (part.shape[1 + axis], own.shape[1 + axis]) != (cells - 1, cells - _MORE):
        return False
    middle = cells // 2  # away from the borders, where padding may move
    one, two = whole.take(middle, 1 + axis), part.take(middle - 1, 1 + axis)
    return bool(np.allclose(one, two, rtol=1e-4, atol=1e-4 * float(np.abs(own).max())))
