"""The committed models as matrix products, and back by fc2conv: what docs/conv2fc.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import RefusedError, check, convert, convert_to_fc
from tests.nets import op_types, session

MODELS = Path(__file__).parents[1] / "models"
PATCHES = {
    "digits8": "misaligned",
    "face25": "token-wise",
    "dress64x128": "token-wise",
    "dress64x128_padded": "constant-features",
}
"""Why a model whose convolutions are patches times filters does not slide."""

UNPOOLED = "digits_page"
"""One that does: nothing but layers and Relu, so that each is a kernel over the whole window."""


def test_every_model_is_here() -> None:
    assert {path.stem for path in MODELS.glob("*.onnx")} == {*PATCHES, UNPOOLED}


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "im2col") for name in [*PATCHES, UNPOOLED]), ("digits8", "dense")]
)
def test_there_and_back_at_the_native_size(name: str, form: Any) -> None:
    """conv2fc leaves no Conv, fc2conv --static no matrix product; all three compute the same."""
    original = ir.load(MODELS / f"{name}.onnx")
    matrices = convert_to_fc(original, form=form).model
    assert "Conv" not in op_types(matrices)
    back = convert(matrices, static=True).model
    assert back is not None
    assert not {"Gemm", "MatMul"} & set(op_types(back))
    assert op_types(back).count("Conv") == sum(
        op_types(original).count(op_type) for op_type in ("Conv", "Gemm")
    )
    assert check(matrices, back)

    (value,) = original.graph.inputs
    shape = [2, *(dim for dim in value.shape or () if isinstance(dim, int))]
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    (expected,) = session(original)({value.name or "": images}).values()
    for model in (matrices, back):
        (got,) = session(model)({value.name or "": images}).values()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", PATCHES)
def test_a_trunk_of_patches_does_not_slide(name: str) -> None:
    """No convolution is made again of its patches yet: refused by name, never wrong."""
    matrices = convert_to_fc(MODELS / f"{name}.onnx").model
    with pytest.raises(RefusedError) as refused:
        convert(matrices)
    assert refused.value.refusals[0].code == PATCHES[name]


@pytest.mark.parametrize("form", ["im2col", "dense"])
def test_layers_without_a_pooling_slide(form: Any) -> None:
    """The windows that the matrices score are those that the convolutions score."""
    matrices = convert_to_fc(MODELS / f"{UNPOOLED}.onnx", form=form).model
    dense, expected = convert(matrices), convert(MODELS / f"{UNPOOLED}.onnx")
    assert dense.model is not None and expected.model is not None
    image = {"image": np.random.default_rng(0).random((1, 1, 14, 19), dtype=np.float32)}
    scores, by_convolutions = (session(c.model)(image)["scores"] for c in (dense, expected))
    assert scores.shape == (1, 11, 5, 10)
    np.testing.assert_allclose(scores, by_convolutions, rtol=1e-4, atol=1e-5)
