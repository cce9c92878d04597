"""The native tier: which inputs are fed, at which batches, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence.comparing.tolerances import tolerances_of
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.tiers.native import check_native
from onnx_fc2conv.files.reading import as_model
from tests.nets import Array, Net, Tensor, i64

IMAGE = (1, 8, 8)
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
Before = Callable[[Net, Tensor], Tensor]
After = Callable[[Net, Tensor], Tensor]


def same(_: Net, y: Tensor) -> Tensor:
    return y


def original(
    before: Before = same, after: After = same, batch: int | str = "N", dtype: ir.DataType = FLOAT
) -> onnx.ModelProto:
    """A convolution and a layer of three classes."""
    return _net(before, after, batch, dtype, dense=False)


def dense(
    before: Before = same, after: After = same, batch: int | str = "N", dtype: ir.DataType = FLOAT
) -> onnx.ModelProto:
    """The same as a fully convolutional net, with what is put before and after it."""
    return _net(before, after, batch, dtype, dense=True)


def _net(
    before: Before, after: After, batch: int | str, dtype: ir.DataType, *, dense: bool
) -> onnx.ModelProto:
    net = Net(image=IMAGE, batch=batch, dtype=dtype, seed=1)
    weights = np.random.default_rng(5)
    number = np.float16 if dtype == HALF else np.float32

    def drawn(*shape: int) -> Array:
        return (weights.normal(size=shape) / 6).astype(number)

    y = net.x if dtype in (FLOAT, HALF) else net.op("Cast", net.x, to=FLOAT)
    y = net.op("Conv", before(net, y), drawn(2, 1, 3, 3))
    weight, bias = drawn(3, 72), drawn(3)
    if dense:
        y = net.op("Conv", y, weight.reshape(3, 2, 6, 6), bias)
    else:
        y = net.op("Gemm", net.op("Flatten", y, shape=(72,)), weight, bias, transB=1)
    return net.model(after(net, y), dtype=dtype if dtype == HALF else FLOAT)


def native(reference: onnx.ModelProto, converted: onnx.ModelProto, **options: object) -> TierResult:
    """The result of the only output."""
    one, two = as_model(reference), as_model(converted)
    pair = Pair(one, two, {"x": (1, *IMAGE)}, tolerances_of(one, None, None), **options)  # type: ignore[arg-type]
    (result,) = check_native(pair)
    return result


def clip(low: float, high: float, number: type[np.generic] = np.float32) -> Before:
    return lambda net, y: net.op("Clip", y, np.array(low, number), np.array(high, number))


def unary(op_type: str) -> Before:
    return lambda net, y: net.op(op_type, y)


@pytest.mark.parametrize(
    ("dtype", "before"),
    [
        (FLOAT, clip(-1e9, 200)),
        (FLOAT, clip(-200, 1e9)),
        (FLOAT, clip(-1e9, 999)),
        (FLOAT, unary("Abs")),
        (FLOAT, unary("Relu")),
        (HALF, clip(-64, 64, np.float16)),
        (ir.DataType.INT8, unary("Relu")),
        (ir.DataType.INT16, unary("Abs")),
        (ir.DataType.UINT16, clip(0, 255)),
        (ir.DataType.INT32, clip(-(2.0**23), 2.0**23)),
        (ir.DataType.UINT8, clip(0, 254)),
    ],
)
def test_a_conversion_of_some_numbers_only_is_found(dtype: ir.DataType, before: Before) -> None:
    reference = original(dtype=dtype)
    assert native(reference, dense(dtype=dtype)).status == "passed"
    assert native(reference, dense(before, dtype=dtype)).status == "failed"


def first_only(net: Net, y: Tensor) -> Tensor:
    return net.op("Slice", y, i64(0), i64(1), i64(0))


def first_repeated(net: Net, y: Tensor) -> Tensor:
    count = net.op("Slice", net.op("Shape", y), i64(0), i64(1))
    ones = net.op("Concat", count, i64(1, 1, 1), axis=0)
    return net.op("Tile", first_only(net, y), ones)


def batch_doubled(net: Net, y: Tensor) -> Tensor:
    return net.op("Concat", y, y, axis=0)


@pytest.mark.parametrize("after", [first_only, first_repeated, batch_doubled])
@pytest.mark.parametrize("batch", [1, "N"])
def test_samples_that_are_mixed_are_found(after: After, batch: int | str) -> None:
    result = native(original(batch=batch), dense(after=after))
    assert result.status == "failed"


def test_an_original_of_one_image_is_compared_one_by_one() -> None:
    result = native(original(batch=1), dense())
    assert result.status == "passed"
    assert "normal at batch 1 and 3, seed 0; the original ran 1 at a time" in result.detail
    assert "at a time" not in native(original(), dense()).detail


def test_a_conversion_that_takes_one_image_only_does_not_run() -> None:
    result = native(original(), dense(batch=1))
    assert result.status == "failed"
    assert result.detail.startswith("does not run: ")


def rows_in_the_batch(net: Net, y: Tensor) -> Tensor:
    """All classes of all samples in one row."""
    return net.op("Reshape", y, i64(1, -1))


def test_a_batch_that_both_models_lay_out_alike() -> None:
    assert native(original(after=rows_in_the_batch), dense(after=rows_in_the_batch))


def baked(net: Net, y: Tensor) -> Tensor:
    return net.op("Reshape", y, i64(1, 3))


def test_a_batch_that_neither_takes_is_not_claimed() -> None:
    result = native(original(after=baked), dense(after=baked))
    assert result.status == "passed"
    assert "neither model runs at batch 3" in result.detail
    reference = original(after=baked)
    assert native(reference, dense()).status == "passed"
    assert native(original(), dense(after=baked)).status == "failed"


def unread(net: Net, y: Tensor) -> Tensor:
    """Zero times the whole image: nothing, unless a pixel is not finite."""
    nothing = net.op("ReduceSum", net.x, i64(1, 2, 3), keepdims=1)
    return net.op("Add", y, net.op("Mul", nothing, np.zeros(1, np.float32)))


def test_pixels_that_are_not_finite_convict_nobody() -> None:
    assert "with a pixel that is NaN or Inf: the same" in native(original(), dense()).detail
    masked = [
        lambda net, y: net.op("Mul", y, _without_a_corner()),
        lambda net, y: net.op("Where", _without_a_corner() > 0, y, np.zeros(1, np.float32)),
    ]
    result = native(original(masked[1]), dense(masked[0]))
    assert result.status == "passed"
    assert "with a pixel that is NaN or Inf: different (y on NaN, y on Inf)" in result.detail


def _without_a_corner() -> Array:
    mask: Array = np.ones(IMAGE, np.float32)
    mask[:, 4, 0] = 0  # where the pixel is
    return mask


def test_a_small_channel_beside_a_large_one_is_compared() -> None:
    scale = np.array([1e6, 1, 1], np.float32)

    def large(shape: tuple[int, ...]) -> After:
        return lambda net, y: net.op("Mul", y, scale.reshape(shape))

    def large_and_wrong(net: Net, y: Tensor) -> Tensor:
        wrong = np.array([1, 1, 1.001], np.float32).reshape(3, 1, 1)
        return net.op("Mul", large((3, 1, 1))(net, y), wrong)

    reference = original(after=large((3,)))
    assert native(reference, dense(after=large((3, 1, 1)))).status == "passed"
    result = native(reference, dense(after=large_and_wrong))
    assert result.status == "failed"
    assert (result.where or "").endswith("2]")
