"""A few bytes may ask for terabytes, or for hours: such nodes are not run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.views.growth import check_growth, repeated
from onnx_fc2conv.views.maps.constant import NotComputable

ONES = np.ones((1, 3, 1, 1), np.float32)
HUGE = 1 << 40


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


CASES = {
    "ConstantOfShape": ([ints(4, 5)], [ints(HUGE, HUGE)]),
    "Expand": ([ONES, ints(1, 3, 2000, 2000)], [ONES, ints(HUGE)]),
    "Tile": ([ONES, ints(1, 1, 9, 9)], [ONES, ints(1, 1, HUGE, 1)]),
    "OneHot": ([ints(1, 2), ints(1000), ints(0, 1)], [ints(1, 2), ints(HUGE), ints(0, 1)]),
    "Range": ([*map(np.array, (0, 9, 1))], [*map(np.array, (0, 9.0, 1e-12))]),
    "Resize": (
        [ONES, None, floats(1, 1, 4, 4)],
        [ONES, None, None, ints(1, 3, 1 << 12, 1 << 12)],
    ),
    "Upsample": ([ONES, floats(1, 1, 4, 4)], [ONES, floats(1, 1, 1e6, 1e6)]),
    "Transpose": ([np.broadcast_to(np.float32(0), (1 << 14, 1 << 14))], None),
}


@pytest.mark.parametrize("op_type", CASES)
def test_growth(op_type: str) -> None:
    reasonable, bomb = CASES[op_type]
    check_growth(ir.node(op_type, []), reasonable)
    if bomb is not None:
        with pytest.raises(NotComputable, match=f"{op_type} would make a tensor of"):
            check_growth(ir.node(op_type, []), bomb)


def test_sizes_of_some_axes() -> None:
    node = ir.node("Resize", [], {"axes": [2, -1]})
    check_growth(node, [ONES, None, None, ints(590, 590)])
    with pytest.raises(NotComputable, match=r"3\.46e\+06"):
        check_growth(node, [ONES, None, None, ints(1074, 1074)])


def test_equal_numbers_take_no_memory_until_something_computes_with_them() -> None:
    weight = repeated(
        ir.node("ConstantOfShape", [], {"value": ir.tensor([np.float16(3)])}),
        ints(1 << 14, 1 << 13),
    )
    assert (weight.shape, weight.dtype, weight[-1, -1]) == ((1 << 14, 1 << 13), np.float16, 3)
    assert weight.strides == (0, 0)
    assert repeated(ir.node("ConstantOfShape", []), ints(2)).dtype == np.float32
    check_growth(ir.node("Transpose", []), [weight])
    with pytest.raises(NotComputable, match=r"Add would compute with 1\.34e\+08 equal numbers"):
        check_growth(ir.node("Add", []), [weight, weight])


def test_numbers_that_are_none() -> None:
    check_growth(ir.node("Range", []), [*map(np.array, (0.0, np.nan, 0.0))])
