"""Every way to say "flatten"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.errors import RefusedError
from onnx_fc2conv.pipeline import convert
from tests.nets import Array, Net, Tensor, i64, op_types
from tests.oracle import (
    assert_refused,
    assert_slides,
)

C, H, W = 3, 3, 4
D = C * H * W

Spelling = Callable[[Net, Tensor], Tensor]


@pytest.mark.parametrize(("opset", "axis"), [(9, 1), (9, None), (13, 1), (13, -3), (13, None)])
def test_flatten_axis(axis: int | None, opset: int) -> None:
    net = Net(opset=opset)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    flat = net.op("Flatten", net.trunk(), shape=(D,), **attributes)
    assert_slides(net.model(net.fc(flat)))


@pytest.mark.parametrize(
    ("axis", "code"),
    [
        pytest.param(2, "shape-mismatch", id="2"),
        pytest.param(3, "shape-mismatch", id="3"),
        pytest.param(4, "shape-mismatch", id="4"),
        pytest.param(-1, "shape-mismatch", id="-1"),
        pytest.param(-2, "shape-mismatch", id="-2"),
    ],
)
def test_flatten_that_does_not_fit_the_layer(axis: int, code: str) -> None:
    net = Net(batch=1)
    flat = net.op("Flatten", net.trunk(), axis=axis)
    y = net.op("MatMul", flat, net.random(D, 4), name="fc")
    assert_refused(net.model(y), code, "MatMul fc", "does not compute")


@pytest.mark.parametrize(("axis", "features"), [(2, H * W), (3, W), (-1, W), (4, 1)])
def test_flatten_that_keeps_rows(axis: int, features: int) -> None:
    """The layer is applied to every row; each reads other elements of the map."""
    net = Net(batch=1)
    flat = net.op("Flatten", net.trunk(), axis=axis)
    y = net.op("MatMul", flat, net.random(features, 4))
    y = net.op("Reshape", y, np.array([1, -1]), shape=(4 * D // features,))
    assert_slides(net.model(net.fc(y)), free_batch=False)


def test_flatten_axis_0_drops_the_batch() -> None:
    net = Net(batch=1)
    flat = net.op("Flatten", net.trunk(), axis=0, shape=(D,))
    assert_slides(net.model(net.fc(flat)), free_batch=False)


def test_flatten_axis_0_of_several_samples_is_refused() -> None:
    net = Net(batch=2)
    flat = net.op("Flatten", net.trunk(), axis=0, shape=(2 * D,), name="all")
    assert_refused(net.model(net.fc(flat)), "batch-mixing", "Flatten all")


RESHAPES: dict[str, tuple[Array, dict[str, Any], bool]] = {
    "[-1, D]": (i64(-1, D), {}, True),
    "[0, -1]": (i64(0, -1), {}, True),
    "[0, D]": (i64(0, D), {}, True),
    "[1, -1]": (i64(1, -1), {}, False),
    "[1, D]": (i64(1, D), {}, False),
    "[1, 1, D]": (i64(1, 1, D), {}, False),
    "[-1, 1, D]": (i64(-1, 1, D), {}, True),
    "[-1, D] allowzero": (i64(-1, D), {"allowzero": 1}, True),
}


@pytest.mark.parametrize(
    ("shape", "attributes", "free_batch"), RESHAPES.values(), ids=RESHAPES.keys()
)
def test_reshape(shape: Array, attributes: dict[str, Any], free_batch: bool) -> None:
    net = Net(opset=14, batch="N" if free_batch else 1)
    flat = net.op("Reshape", net.trunk(), shape, shape=(D,), **attributes)
    y = net.op("MatMul", flat, net.random(D, 4))
    assert_slides(net.model(y), free_batch=free_batch)


@pytest.mark.parametrize("shape", [i64(D), i64(-1)], ids=["[D]", "[-1]"])
def test_reshape_to_rank_1(shape: Array) -> None:
    net = Net(batch=1)
    flat = net.op("Reshape", net.trunk(), shape)
    y = net.op("Add", net.op("MatMul", flat, net.random(D, 4)), net.random(4))
    conversion = assert_slides(net.model(y), free_batch=False, batch_axis=None)
    assert conversion.before.outputs["y"] == (4,)


def test_reshape_with_a_baked_batch_of_a_symbolic_model() -> None:
    """Exported at batch 1, batch declared symbolic all the same: works for one sample only."""
    net = Net()
    flat = net.op("Reshape", net.trunk(), i64(1, -1), shape=(D,))
    assert_slides(net.model(net.fc(flat)), free_batch=False)


@pytest.mark.parametrize("shape", [i64(4, -1), i64(4, D), i64(-1, D)], ids=str)
def test_native_batch_of_4(shape: Array) -> None:
    net = Net(batch=4)
    flat = net.op("Reshape", net.trunk(), shape, shape=(D,))
    conversion = assert_slides(net.model(net.op("Relu", net.fc(flat))), free_batch=False)
    assert conversion.after is not None
    assert conversion.after.inputs["x"] == ("N", 2, "H", "W")


def test_reshape_that_mixes_samples_is_refused() -> None:
    net = Net(batch=4)
    flat = net.op("Reshape", net.trunk(), i64(2, -1), shape=(2 * D,), name="view")
    assert_refused(net.model(net.fc(flat)), "batch-mixing", "Reshape view", "4 samples")


def test_transpose_that_mixes_samples_is_refused() -> None:
    net = Net(batch=4)
    flat = net.op("Transpose", net.flat(net.trunk()), perm=[1, 0])
    back = net.op("Reshape", flat, i64(4, -1), shape=(D,), name="view")
    assert_refused(net.model(net.fc(back)), "batch-mixing", "Reshape view")


def gather_concat(net: Net, y: Tensor) -> Tensor:
    batch = net.op("Gather", net.op("Shape", y), np.array(0, np.int64), axis=0)
    axes = i64(0) if net.opset >= 13 else None
    if axes is None:
        unsqueezed = net.op("Unsqueeze", batch, axes=[0])
    else:
        unsqueezed = net.op("Unsqueeze", batch, axes)
    shape = net.op("Concat", unsqueezed, net.constant(i64(-1)), axis=0)
    return net.op("Reshape", y, shape, shape=(D,))


def slice_concat(net: Net, y: Tensor) -> Tensor:
    size = net.op("Shape", y)
    if net.opset < 10:
        batch = net.op("Slice", size, axes=[0], starts=[0], ends=[1])
    else:
        batch = net.op("Slice", size, i64(0), i64(1), i64(0))
    return net.op("Reshape", y, net.op("Concat", batch, i64(-1), axis=0), shape=(D,))


def product_of_sizes(net: Net, y: Tensor) -> Tensor:
    """tf2onnx and older PyTorch: the feature count is computed from the shape as well."""
    size = net.op("Shape", y)
    counts = [net.op("Gather", size, np.array([axis], np.int64), axis=0) for axis in range(4)]
    features = net.op("Mul", net.op("Mul", counts[1], counts[2]), counts[3])
    return net.op("Reshape", y, net.op("Concat", counts[0], features, axis=0), shape=(D,))


def cast_chain(net: Net, y: Tensor) -> Tensor:
    size = net.op("Cast", net.op("Shape", y), to=ir.DataType.INT32)
    batch = net.op("Gather", size, np.array([0]), axis=0)
    shape = net.op("Concat", batch, np.array([-1], np.int32), axis=0)
    return net.op("Reshape", y, net.op("Cast", shape, to=ir.DataType.INT64), shape=(D,))


@pytest.mark.parametrize("spelling", [gather_concat, slice_concat, product_of_sizes, cast_chain])
@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_shape_arithmetic(spelling: Spelling, opset: int) -> None:
    net = Net(opset=opset)
    conversion = assert_slides(
        net.model(net.fc(spelling(net, net.trunk()))), gone=("Gemm", "Reshape", "Shape", "Gather")
    )
    assert conversion.model is not None
    assert op_types(conversion.model) == ["Conv", "Relu", "MaxPool", "Conv"]


@pytest.mark.parametrize(("start", "end"), [(0, 1), (-4, -3)])
def test_shape_with_start_and_end(start: int, end: int) -> None:
    net = Net(opset=15)
    trunk = net.trunk()
    batch = net.op("Shape", trunk, start=start, end=end)
    flat = net.op("Reshape", trunk, net.op("Concat", batch, i64(-1), axis=0), shape=(D,))
    assert_slides(net.model(net.fc(flat)))


@pytest.mark.parametrize("opset", [7, 10, 12, 13, 22])
@pytest.mark.parametrize("where", ["map", "flat"])
def test_dropout(opset: int, where: str) -> None:
    net = Net(opset=opset)
    y = net.trunk()
    extra = (np.array(0.5, np.float32),) if opset >= 12 else ()
    if where == "map":
        y = net.op("Dropout", y, *extra, shape=y.shape)
    flat = net.op("Dropout", net.flat(y), *extra, shape=(D,))
    assert_slides(net.model(net.fc(flat)))


def test_dropout_with_training_mode_false() -> None:
    net = Net()
    flat = net.op(
        "Dropout", net.flat(net.trunk()), np.array(0.5, np.float32), np.array(False), shape=(D,)
    )
    assert_slides(net.model(net.fc(flat)), gone=("Gemm", "Dropout"))


def test_dropout_in_training_mode_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    drop = net.op(
        "Dropout", flat, np.array(0.5, np.float32), np.array(True), shape=(D,), name="drop"
    )
    assert_refused(net.model(net.fc(drop)), "training-mode", "Dropout drop")


def test_dropout_whose_mask_is_used_is_refused() -> None:
    net = Net()
    flat = net.flat(net.trunk())
    drop, mask = net.ops("Dropout", flat, outputs=2, shape=(D,), name="drop")
    y = net.op("Where", mask, drop, flat, shape=(D,))
    assert_refused(net.model(net.fc(y)), "dropout-mask", "Dropout drop")


def test_cast_to_half_before_the_layer() -> None:
    net = Net()
    half = net.op("Cast", net.flat(net.trunk()), to=ir.DataType.FLOAT16)
    y = net.op("Gemm", half, net.random(D, 4).astype(np.float16))
    out = net.op("Cast", y, to=ir.DataType.FLOAT)
    conversion = assert_slides(net.model(out), tolerance=5e-3)
    assert conversion.heads[0].bytes_kept == "permuted"


def test_cast_to_double_after_the_layer() -> None:
    net = Net()
    y = net.op("Cast", net.head(net.trunk()), to=ir.DataType.DOUBLE)
    assert_slides(net.model(y, dtype=ir.DataType.DOUBLE))


def test_a_layer_on_nothing_is_refused() -> None:
    net = Net()
    empty = net.op("Slice", net.flat(net.trunk()), i64(3), i64(3), i64(1))
    y = net.op("MatMul", empty, net.random(36, 4)[:0], name="fc")
    assert_refused(net.model(y), "shape-mismatch", "MatMul fc", "no elements")


def test_a_reshape_that_does_not_fit_names_itself() -> None:
    net = Net(image=(2, "H", "W"))  # type: ignore[arg-type]
    y = net.op("MaxPool", net.x, kernel_shape=[2, 2], strides=[2, 2])
    flat = net.op("Reshape", y, i64(-1, 40), shape=(40,), name="view")
    model = net.model(net.fc(flat))
    with pytest.raises(
        RefusedError, match=r"Reshape view: does not fit its input.*\[invalid-node\]"
    ):
        convert(model, input_shapes={"x": (1, 2, 9, 6)})
