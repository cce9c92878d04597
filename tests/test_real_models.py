"""Models by others convert or are refused for the right reason; ours find what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnx_fc2conv
from onnx_fc2conv import RefusedError

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "models"

by_others = pytest.mark.skipif(not SHARED.is_dir(), reason="the models made by others are not here")


def _session(model: ir.Model) -> ort.InferenceSession:
    return ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )


@by_others
@pytest.mark.parametrize(
    ("name", "kernels", "exact"),
    [
        ("marabou__cifar_base_kw", [(100, 16, 8, 8), (10, 100, 1, 1)], False),
        ("marabou__cifar_base_kw_simp", [(100, 16, 8, 8), (10, 100, 1, 1)], False),
        ("marabou__cnn_max_mninst2", [(32, 4, 11, 11), (10, 32, 1, 1)], True),
        ("marabou__conv_mp1", [(32, 8, 4, 4), (5, 32, 1, 1)], False),
        ("mtcnn__rnet", [(128, 64, 3, 3), (4, 128, 1, 1), (2, 128, 1, 1)], False),
        ("onnx2c__cntk_mnist8", [(10, 16, 4, 4)], False),
        ("onnxmlir__mnist_pool_fc", [(128, 1, 14, 14), (10, 128, 1, 1)], True),
        ("ortoe__cnn_mnist_pytorch", [(50, 20, 4, 4), (10, 50, 1, 1)], True),
        ("wonnx__opt_mnist", [(10, 16, 4, 4)], False),
    ],
)
def test_converts_and_is_equivalent(name: str, kernels: list[tuple[int, ...]], exact: bool) -> None:
    path = SHARED / f"{name}.onnx"
    conversion = onnx_fc2conv.convert(path)
    assert conversion.model is not None
    assert [head.kernel_shape for head in conversion.heads] == kernels
    assert conversion.left_alone == ()
    assert all(geometry.windows_exact is exact for geometry in conversion.geometry.values())
    remaining = {node.op_type for node in conversion.model.graph}
    assert remaining.isdisjoint({"Gemm", "MatMul", "Flatten", "Reshape", "Shape"})
    report = onnx_fc2conv.check(path, conversion.model, geometry=conversion.geometry)
    assert report, report.to_markdown()


@by_others
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("marabou__conv_mp1_intermediate", "flattened-features", ["Reshape 11", "output '11'"]),
        ("mtcnn__pnet", "nothing-to-convert", ["no Gemm or MatMul"]),
    ],
)
def test_is_refused_for_the_right_reason(name: str, code: str, words: list[str]) -> None:
    with pytest.raises(RefusedError) as error:
        onnx_fc2conv.convert(SHARED / f"{name}.onnx")
    assert [refusal.code for refusal in error.value.refusals] == [code]
    for word in words:
        assert word in str(error.value)


@by_others
def test_real_digits_get_the_recorded_scores() -> None:
    """CNTK's MNIST model with the inputs and outputs that were recorded beside it."""
    conversion = onnx_fc2conv.convert(SHARED / "onnx2c__cntk_mnist8.onnx")
    assert conversion.model is not None
    session = _session(conversion.model)
    for number in range(3):
        image, expected = (
            ir.serde.deserialize_tensor(_tensor_proto(f"onnx2c__cntk_mnist8.{kind}_{number}.pb"))
            for kind in ("input", "output")
        )
        (scores,) = session.run(None, {"Input3": image.numpy()})
        np.testing.assert_allclose(scores[:, :, 0, 0], expected.numpy(), rtol=1e-4, atol=1e-2)


def _tensor_proto(name: str) -> object:
    proto = onnx.TensorProto()
    proto.ParseFromString((SHARED / name).read_bytes())
    return proto


def test_face25_finds_the_face_of_the_astronaut() -> None:
    """One pass over the whole photograph: the best cell's window lies on her face."""
    data = pytest.importorskip("skimage.data")
    color = pytest.importorskip("skimage.color")
    transform = pytest.importorskip("skimage.transform")
    scale = 0.25
    photo = transform.rescale(color.rgb2gray(data.astronaut()), scale, anti_aliasing=True)

    conversion = onnx_fc2conv.convert(ROOT / "models" / "face25.onnx")
    assert conversion.model is not None
    grid = conversion.geometry["scores"]
    image = photo.astype(np.float32)[None, None]
    (scores,) = _session(conversion.model).run(["scores"], {"image": image})
    faces = scores[0, 1]
    assert faces.shape == tuple(
        (length - window) // stride + 1
        for length, window, stride in zip(photo.shape, grid.window, grid.stride, strict=True)
    )

    row, column = np.unravel_index(int(faces.argmax()), faces.shape)
    top, left = row * grid.stride[0] / scale, column * grid.stride[1] / scale
    side = grid.window[0] / scale
    assert faces[row, column] > 0.99
    face = (65, 175, 175, 275)  # by eye: top, left, bottom, right
    window = (top, left, top + side, left + side)
    assert _overlap(window, face) >= 0.4
    assert face[0] < top + side / 2 < face[2]
    assert face[1] < left + side / 2 < face[3]


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (top, left, bottom, right)."""
    height = min(one[2], two[2]) - max(one[0], two[0])
    width = min(one[3], two[3]) - max(one[1], two[1])
    common = max(0.0, height) * max(0.0, width)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two))
    return common / (areas - common)
