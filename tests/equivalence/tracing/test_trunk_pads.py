"""The pads of layers that follow the size of the image, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv.equivalence.tracing.freed import native_pads
from tests.nets import Net, session

# onnxruntime works out negative padding where SAME meets a stride above the kernel, and refuses it.
CASES = [
    (attributes, kernel, stride)
    for attributes in (
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"ceil_mode": 1},
        {"ceil_mode": 1, "pads": [1, 0, 0, 1]},
    )
    for kernel in (1, 2, 3)
    for stride in (1, 2, 3)
    if not (("auto_pad" in attributes and stride > kernel) or ("pads" in attributes and kernel < 2))
]


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize(("attributes", "kernel", "stride"), CASES, ids=str)
def test_written_out_pads_are_the_same(
    attributes: dict[str, object], kernel: int, stride: int, size: int
) -> None:
    def pooled(**how: object) -> np.ndarray:
        net = Net(image=(1, size, size + 1), seed=1)
        y = net.op("MaxPool", net.x, kernel_shape=[kernel] * 2, strides=[stride] * 2, **how)
        model = net.ir_model(y)
        nodes.append(next(iter(model.graph)))
        return session(model)({"x": image})["y"]

    nodes: list[ir.Node] = []
    image = np.random.default_rng(0).standard_normal((1, 1, size, size + 1)).astype(np.float32)
    expected = pooled(**attributes)
    pads = native_pads(nodes[0], (size, size + 1))
    if max(pads) < kernel:  # a larger one pads cells that see nothing, which no pooling takes
        np.testing.assert_array_equal(pooled(pads=pads), expected)
