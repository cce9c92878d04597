"""The committed models as matrix products, and back by fc2conv: what docs/conv2fc.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fc2conv import check, convert, convert_to_fc
from tests.nets import op_types, session

FOLDER = Path(__file__).parents[1] / "models"
MODELS = ("digits8", "face25", "dress64x128", "dress64x128_padded", "digits_page")

UNPOOLED = "digits_page"
"""Nothing but layers and Relu, so that each matrix is a kernel over the whole window."""


def test_every_model_is_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.onnx")} == set(MODELS)


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "im2col") for name in MODELS), ("digits8", "dense")]
)
def test_there_and_back_at_the_native_size(name: str, form: Any) -> None:
    """conv2fc leaves no Conv, fc2conv --static no matrix product; all three compute the same."""
    original = ir.load(FOLDER / f"{name}.onnx")
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


@pytest.mark.parametrize("name", MODELS)
def test_patches_slide_again(name: str) -> None:
    """fc2conv of the im2col form is fc2conv of the model itself: at any size, byte for byte."""
    original = ir.load(FOLDER / f"{name}.onnx")
    matrices = convert_to_fc(original).model
    direct, back = convert(original), convert(matrices)
    one, two = direct.model, back.model
    assert one is not None
    assert two is not None
    assert kernels(one) == kernels(two)
    for output, meaning in direct.geometry.items():
        means = back.geometry[output]
        assert (means.window, means.stride, means.verdict, means.cells) == (
            *(meaning.window, meaning.stride, meaning.verdict, meaning.cells),
        )
    assert check(original, two)
    assert check(matrices, two)

    (value,) = original.graph.inputs
    native = [dim for dim in value.shape or () if isinstance(dim, int)]
    for grown in (0, 16, 21):
        shape = (2, native[0], *(length + grown for length in native[1:]))
        images = np.random.default_rng(grown).random(shape, dtype=np.float32)
        (wanted,) = session(one)({value.name or "": images}).values()
        (got,) = session(two)({value.name or "": images}).values()
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("form", ["dense"])
def test_layers_without_a_pooling_slide(form: Any) -> None:
    """The windows that the matrices score are those that the convolutions score."""
    matrices = convert_to_fc(FOLDER / f"{UNPOOLED}.onnx", form=form).model
    dense, expected = convert(matrices), convert(FOLDER / f"{UNPOOLED}.onnx")
    assert dense.model is not None and expected.model is not None
    image = {"image": np.random.default_rng(0).random((1, 1, 14, 19), dtype=np.float32)}
    scores, by_convolutions = (session(c.model)(image)["scores"] for c in (dense, expected))
    assert scores.shape == (1, 11, 5, 10)
    np.testing.assert_allclose(scores, by_convolutions, rtol=1e-4, atol=1e-5)


def test_the_check_sees_a_wrong_pad() -> None:
    """A convolution that pads on another side than its patches do is another function."""
    matrices = convert_to_fc(FOLDER / "dress64x128_padded.onnx").model
    back = convert(matrices).model
    assert back is not None
    first = next(node for node in back.graph if node.op_type == "Conv")
    first.attributes.add(ir.AttrInt64s("pads", [1, 2, 3, 2]))
    assert not check(matrices, back)


def test_the_check_sees_a_wrong_weight() -> None:
    original = ir.load(FOLDER / "digits8.onnx")
    back = convert(convert_to_fc(original).model).model
    assert back is not None
    stored = next(node for node in back.graph if node.op_type == "Conv").inputs[1]
    assert stored is not None
    assert stored.const_value is not None
    kernel = stored.const_value.numpy().copy()
    kernel[3, 0, 1, 1] = np.nextafter(kernel[3, 0, 1, 1], np.float32(np.inf))
    stored.const_value = ir.tensor(kernel, name=stored.name)
    assert {failure.tier for failure in check(original, back).failures} == {"integers"}


def kernels(model: ir.Model) -> list[tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of the kernel of each Conv."""
    stored = [node.inputs[1] for node in model.graph if node.op_type == "Conv"]
    tensors = [value.const_value for value in stored if value is not None]
    return [(tuple(t.shape.numpy()), t.tobytes()) for t in tensors if t is not None]
