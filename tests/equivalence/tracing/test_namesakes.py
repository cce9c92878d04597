"""Inner tensors of one name that are not the same: a right conversion may move data otherwise."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_fc2conv import check, convert
from tests.nets import Net, Tensor, i64


def channel_taken_twice() -> onnx.ModelProto:
    """The Relu of four channels becomes the Relu of three."""
    net = Net(image=(2, 8, 8), seed=1)
    y = net.trunk(relu=False, pool=False)
    taken = net.op("Gather", y, i64(0, 1, 1, 2), axis=1)
    return net.model(net.head(Tensor(net.op("Relu", taken).value, (4, 6, 6))))


def channels_scaled_one_by_one() -> onnx.ModelProto:
    """The products of one channel each become products of the whole image."""
    net = Net(image=(3, 8, 8), seed=1)
    parts: list[Tensor] = []
    for channel, factor in enumerate((0.5, 2.0, 3.0)):
        taken = net.op("Gather", net.x, i64(channel), axis=1)
        factors = net.random(1) * 0 + np.float32(factor)
        parts.append(net.op("Mul", taken, factors))
    joined = net.op("Concat", *parts, axis=1)
    conv = net.op("Conv", joined, net.random(3, 3, 3, 3))
    return net.model(net.head(Tensor(net.op("Relu", conv).value, (3, 6, 6))))


@pytest.mark.parametrize("make", [channel_taken_twice, channels_scaled_one_by_one])
def test_right_conversion_passes(make: object) -> None:
    reference = make()  # type: ignore[operator]
    report = check(reference, convert(reference).model)  # type: ignore[arg-type]
    print(report.to_markdown())
    assert report
    assert any(r.tier == "feature windows" and r.status == "passed" for r in report.results)
