"""Einsum of a view and a constant: a layer in another spelling."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.nets import Net, Tensor, i64
from tests.oracle import assert_refused, assert_slides

C, H, W, D, K = 3, 3, 4, 36, 5
GONE = ("Einsum", "Gemm", "MatMul", "Flatten", "Reshape")

ON_FEATURES = {
    "nd,kd->nk": (K, D),
    "nd,dk->nk": (D, K),
    "n d, d k -> n k": (D, K),
    "kd,nd->nk": (K, D),
    "nd,dab->nab": (D, 2, 3),
    "nd,abd->nba": (2, 3, D),
}

ON_MAPS = {
    "nchw,kchw->nk": (K, C, H, W),
    "nchw,hwck->nk": (H, W, C, K),
    "nchw,chwk": (C, H, W, K),
    "nchw,kc->nkhw": (K, C),
    "nchw,ck->nhwk": (C, K),
}


def built(net: Net, y: Tensor, equation: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The Einsum, and a layer that reads all that it gives."""
    weight = net.random(*shape)
    terms = (weight, y) if equation.startswith("k") else (y, weight)
    made = net.op("Einsum", *terms, equation=equation)
    native = np.einsum(equation, *(np.zeros((1, *t.shape)) if t is y else t for t in terms))
    made = net.op("Relu", made)
    if native.shape[0] != 1:  # an implicit output has its letters in alphabetical order
        made = net.op("Transpose", made, perm=[1, 0])
    return net.model(net.head(Tensor(made.value, (native.size,))))


@pytest.mark.parametrize("equation", ON_FEATURES)
def test_of_flattened_features(equation: str) -> None:
    net = Net()
    assert_slides(built(net, net.flat(net.trunk()), equation, ON_FEATURES[equation]), gone=GONE)


@pytest.mark.parametrize("equation", ON_MAPS)
def test_of_maps(equation: str) -> None:
    net = Net()
    assert_slides(built(net, net.trunk(), equation, ON_MAPS[equation]), gone=GONE)


def test_the_weight_keeps_its_bytes() -> None:
    net = Net()
    y = net.op("Einsum", net.flat(net.trunk()), net.random(K, D), equation="nd,kd->nk", shape=(K,))
    conversion = assert_slides(net.model(y), gone=GONE)
    (layer,) = conversion.heads
    assert layer.op_type == "Einsum"
    assert layer.bytes_kept == "same"


def test_tokens() -> None:
    net = Net()
    y = net.op("Transpose", net.op("Reshape", net.trunk(), i64(0, C, -1)), perm=[0, 2, 1])
    y = net.op("Einsum", y, net.random(C, K), equation="ntd,dk->ntk", shape=(H * W, K))
    assert_slides(net.model(net.head(y)), gone=GONE)


@pytest.mark.parametrize(
    ("equation", "shape", "code"),
    [
        ("nd,kd->kd", (K, D), "no-rule"),
        ("nd,kd->nkd", (K, D), "no-rule"),  # not summed over
        ("...d,kd->...k", (K, D), "no-rule"),
    ],
)
def test_what_is_no_layer_is_refused(equation: str, shape: tuple[int, ...], code: str) -> None:
    net = Net()
    y = net.op("Einsum", net.flat(net.trunk()), net.random(*shape), equation=equation, name="sum")
    model = net.model(net.fc(Tensor(y.value, (D,))))
    assert_refused(model, code, "Einsum sum", equation)


def test_a_sum_over_the_samples_is_refused() -> None:
    net = Net()
    y = net.op("Einsum", net.flat(net.trunk()), net.random(1, K), equation="nd,nk->dk", name="sum")
    assert_refused(net.model(Tensor(y.value, (K,))), "batch-mixing", "Einsum sum")


def test_attention_is_refused() -> None:
    net = Net()
    y = net.op("Reshape", net.trunk(), i64(0, C, -1))
    y = net.op("Einsum", y, y, equation="nct,nds->ncd", shape=(C, C), name="attend")
    assert_refused(net.model(net.head(y)), "weight-not-constant", "Einsum attend")
