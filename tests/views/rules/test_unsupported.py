"""Operators that are refused by name, with what to do about it."""

from __future__ import annotations

import pytest

from tests.nets import Net, Tensor, i64
from tests.oracle import refusals


def _refused_after_a_layer(
    op_type: str, domain: str, *operands: Tensor, opset: int = 13
) -> tuple[str, str]:
    net = Net(opset=opset)
    y = net.fc(net.flat(net.trunk()))
    made = net.op(op_type, y, *operands, domain=domain, shape=(4,), name="last")
    model = net.ir_model(made)
    if domain:
        model.graph.opset_imports[domain] = 1
    first = refusals(model)[0]
    assert first.node == f"{op_type} last"
    return first.code, first.reason


@pytest.mark.parametrize(
    ("op_type", "domain", "code", "reason"),
    [
        ("ArrayFeatureExtractor", "ai.onnx.ml", "post-processing", "cut it off"),
        ("ZipMap", "ai.onnx.ml", "post-processing", "cut it off"),
        ("LabelEncoder", "ai.onnx.ml", "post-processing", "cut it off"),
        ("FusedGemm", "com.microsoft", "other-domain", "com.microsoft"),
        ("MultiHeadAttention", "com.microsoft", "attention", "all others"),
        ("NonMaxSuppression", "", "post-processing", "cut it off"),
        ("LSTM", "", "recurrent", "one after the other"),
        ("GRU", "", "recurrent", "one after the other"),
        ("Attention", "", "attention", "all others"),
        ("OneHot", "", "post-processing", "let it output the numbers"),
        ("Trilu", "", "positional-constant", "triangle"),
        ("SoftmaxCrossEntropyLoss", "", "training-mode", "loss"),
        ("CenterCropPad", "", "baked-size", "size that is written into the model"),
        ("DFT", "", "flattened-features", "all positions"),
        ("GridSample", "", "data-dependent", "another input"),
        ("RotaryEmbedding", "", "positional-constant", "angle"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_refused_by_name(op_type: str, domain: str, code: str, reason: str) -> None:
    found, sentence = _refused_after_a_layer(op_type, domain)
    assert found == code
    assert reason in sentence


def test_features_picked_by_another_domain_next_to_the_scores() -> None:
    """The scores themselves could stay, so the refusal names the operator alone."""
    net = Net()
    scores = net.fc(net.flat(net.trunk()))
    label = net.op("ArrayFeatureExtractor", scores, i64(0), domain="ai.onnx.ml", name="pick")
    model = net.ir_model(scores, label)
    model.graph.opset_imports["ai.onnx.ml"] = 1
    assert [refusal.node for refusal in refusals(model)] == ["ArrayFeatureExtractor pick"]
