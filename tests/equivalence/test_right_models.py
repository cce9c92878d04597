"""Right conversions of real models pass every tier; windows are what they are said to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.utils import Extractor

from onnx_fc2conv import check, convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.tiers.integers import Codings
from tests.equivalence.conftest import MODELS, NETS, SHARED, Case
from tests.nets import Net, i64

SHARED_NAMES = (
    "marabou__cifar_base_kw.onnx",
    "marabou__cifar_base_kw_simp.onnx",
    "marabou__cnn_max_mninst2.onnx",
    "marabou__conv_mp1.onnx",
    "mtcnn__rnet.onnx",
    "onnx2c__cntk_mnist8.onnx",
    "onnxmlir__mnist_pool_fc.onnx",
    "ortoe__cnn_mnist_pytorch.onnx",
    "wonnx__opt_mnist.onnx",
)
REAL = [
    *(
        pytest.param(MODELS / name, id=name)
        for name in sorted(p.name for p in MODELS.glob("*.onnx"))
    ),
    *(
        pytest.param(
            SHARED / name,
            id=name,
            marks=pytest.mark.skipif(
                not (SHARED / name).exists(), reason="shared/models is not there"
            ),
        )
        for name in SHARED_NAMES
    ),
]
SKIPPED = {
    "globally_pooled": {"image windows"},
    "two_images": {"image windows"},
    "two_embeddings": {"image windows"},
    "flattened_mean": {"image windows"},
    "flattened_mean_of_9": {"image windows", "feature windows"},
}
TIERS = {
    *("native", "geometry", "feature windows", "integers"),
    "image windows",
}

WHOLE = TIERS - {"feature windows"} | {"larger sizes"}
TIERS_OF = {"globally_pooled": WHOLE, "flattened_mean": WHOLE}


@pytest.mark.parametrize("file", REAL)
def test_real_model(file: Path) -> None:
    converted = convert(file).model
    assert converted is not None
    report = check(file, converted)
    print(report.to_markdown())
    assert report
    assert {result.tier for result in report.results} == TIERS
    assert not {r.tier for r in report.results if r.status == "skipped"}
    assert not report.failures
    assert all(result.elements > 0 for result in report.results if result.status != "skipped")
    outputs = {value.name for value in converted.graph.outputs}
    for tier in ("native", "feature windows", "image windows"):
        assert outputs <= {result.subject for result in report.results if result.tier == tier}


@pytest.mark.parametrize("net", NETS)
def test_small_net(net: str, case_of: Callable[[str], Case]) -> None:
    report = case_of(net).check()
    print(report.to_markdown())
    assert report
    assert {result.tier for result in report.results} == TIERS_OF.get(net, TIERS)
    assert all(result.elements > 0 for result in report.results if result.status != "skipped")
    skipped = {result.tier for result in report.results if result.status == "skipped"}
    assert skipped == SKIPPED.get(net, set())


@pytest.mark.parametrize("file", REAL)
def test_static_conversion(file: Path) -> None:
    """The same interface, so nothing is compared at other sizes, and the report says so."""
    converted = convert(file, static=True).model
    assert converted is not None
    report = check(file, converted)
    print(report.to_markdown())
    assert report
    passed = {result.tier for result in report.results if result.status == "passed"}
    assert passed == {"native", "integers"}
    assert {r.status for r in report.results if r.tier == "feature windows"} == {"skipped"}


def test_exact_and_measured_image_windows() -> None:
    statuses = {
        name: [
            result.status
            for result in check(MODELS / name, convert(MODELS / name).model).results  # type: ignore[arg-type]
            if result.tier == "image windows"
        ]
        for name in ("dress64x128.onnx", "dress64x128_padded.onnx")
    }
    assert statuses == {"dress64x128.onnx": ["passed"], "dress64x128_padded.onnx": ["measured"]}


# The tests from here on know nothing of the package but `convert`: loops over onnxruntime.

TOLERANCE = 1e-4
HEIGHT, WIDTH, STRIDE = 128, 64, 32
CELLS = (13, 31)


def session(model: onnx.ModelProto | ir.Model | Path) -> ort.InferenceSession:
    if isinstance(model, Path):
        model = onnx.load(model)
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """1024 wide and 512 high, from noise of several scales."""
    rng = np.random.default_rng(5)
    image = np.zeros((1, 3, 512, 1024), np.float32)
    for scale in (1, 4, 16, 64):
        coarse = rng.random((1, 3, 512 // scale, 1024 // scale), np.float32)
        image += coarse.repeat(scale, axis=2).repeat(scale, axis=3) / 4
    return image


def crops(photo: np.ndarray) -> np.ndarray:
    """All 403 crops, row by row."""
    corners = [(y * STRIDE, x * STRIDE) for y in range(CELLS[0]) for x in range(CELLS[1])]
    return np.concatenate([photo[:, :, y : y + HEIGHT, x : x + WIDTH] for y, x in corners])


def test_all_403_windows_equal_their_crops(photo: np.ndarray) -> None:
    file = MODELS / "dress64x128.onnx"
    conversion = convert(file)
    assert conversion.model is not None
    assert conversion.geometry["scores"].windows_exact
    (dense,) = session(conversion.model).run(["scores"], {"image": photo})
    assert dense.shape == (1, 2, *CELLS)
    (expected,) = session(file).run(["scores"], {"image": crops(photo)})
    assert expected.shape == (403, 2)
    assert len(np.unique(expected[:, 0])) == 403
    actual = dense[0].reshape(2, 403).T
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_all_403_windows_equal_their_crops_bit_for_bit() -> None:
    """With integers for weights and pixels, whatever the order of the sums."""
    file = MODELS / "dress64x128.onnx"
    conversion = convert(file)
    assert conversion.model is not None
    shape = {"image": (1, 3, HEIGHT, WIDTH)}
    pair = Codings(Pair(ir.load(file), conversion.model, shape)).short
    image = np.random.default_rng(0).integers(-2, 3, (1, 3, 512, 1024)).astype(np.float32)
    (dense,) = session(pair.converted).run(["scores"], {"image": image})
    (expected,) = session(pair.reference).run(["scores"], {"image": crops(image)})
    assert len(np.unique(expected)) > 40
    np.testing.assert_array_equal(dense[0].reshape(2, 403).T, expected)


def padded_head(model: onnx.ModelProto, feature_map: str) -> ort.InferenceSession:
    """Everything from the feature map to the scores."""
    head = Extractor(model).extract_model([feature_map], ["scores"])
    return session(head)


def test_padded_twin_is_its_head_on_feature_windows_and_not_its_crops(photo: np.ndarray) -> None:
    file = MODELS / "dress64x128_padded.onnx"
    conversion = convert(file)
    assert conversion.model is not None
    geometry = conversion.geometry["scores"]
    assert not geometry.windows_exact
    original = onnx.load(file)
    assert any(node.name in geometry.why for node in original.graph.node if node.op_type == "Conv")
    (flatten,) = (n for n in original.graph.node if n.op_type in ("Reshape", "Flatten"))
    feature_map = flatten.input[0]

    dense_model = ir.to_proto(conversion.model)
    dense_model.graph.output.add(name=feature_map)
    dense, maps = session(dense_model).run(["scores", feature_map], {"image": photo})
    assert dense.shape == (1, 2, *CELLS)
    assert maps.shape == (1, 96, 16, 32)

    head = padded_head(original, feature_map)
    for y in range(CELLS[0]):
        for x in range(CELLS[1]):
            window = maps[:, :, y : y + 4, x : x + 2]
            (expected,) = head.run(["scores"], {feature_map: np.ascontiguousarray(window)})
            np.testing.assert_allclose(
                dense[0, :, y, x], expected[0], rtol=TOLERANCE, atol=TOLERANCE
            )

    (on_crops,) = session(original).run(["scores"], {"image": crops(photo)})
    difference = np.abs(dense[0].reshape(2, 403).T - on_crops).max(axis=1)
    assert np.median(difference) > 0.01, "padding shows inside the image"


def test_padded_trunk_at_larger_sizes_is_the_original_trunk(photo: np.ndarray) -> None:
    file = MODELS / "dress64x128_padded.onnx"
    converted = convert(file).model
    assert converted is not None
    original = onnx.load(file)
    (flatten,) = (n for n in original.graph.node if n.op_type in ("Reshape", "Flatten"))
    feature_map = flatten.input[0]
    trunk = Extractor(original).extract_model(["image"], [feature_map])
    for dim in (*trunk.graph.input[0].type.tensor_type.shape.dim[2:],):
        dim.ClearField("dim_value")
    del trunk.graph.value_info[:]
    trunk.graph.output[0].type.tensor_type.ClearField("shape")
    dense = ir.to_proto(converted)
    dense.graph.output.add(name=feature_map)
    np.testing.assert_array_equal(
        session(dense).run([feature_map], {"image": photo})[0],
        session(trunk).run([feature_map], {"image": photo})[0],
    )


def _excited(pooling: str) -> onnx.ModelProto:
    """Squeeze and excite by layers, then a layer of all that is excited."""
    net = Net()
    y = net.trunk()
    channels = y.shape[0]
    if pooling == "mean":
        cell = net.op("ReduceMean", y, axes=[2, 3], keepdims=0, shape=(channels,))
    else:
        cell = net.flat(net.op("GlobalAveragePool", y, shape=(channels, 1, 1)))
    gate = net.op("Sigmoid", net.fc(net.op("Relu", net.fc(cell, 5), shape=(5,)), channels))
    gate = net.op("Unsqueeze", gate, i64(2, 3), shape=(channels, 1, 1))
    model: onnx.ModelProto = net.model(net.head(net.op("Mul", y, gate, shape=y.shape)))
    return model


@pytest.mark.parametrize("pooling", ["mean", "operator"])
def test_a_gate_of_layers_sees_the_whole_larger_image(pooling: str) -> None:
    model = _excited(pooling)
    converted = convert(model).model
    assert converted is not None
    report = check(model, converted)
    assert report, report.to_markdown()
    (windows,) = (r for r in report.results if r.tier == "feature windows")
    assert windows.status == "passed"
    gate = next(node for node in converted.graph if node.op_type == "Sigmoid")
    conv = gate.inputs[0].producer() if gate.inputs[0] is not None else None
    assert conv is not None
    kernel = conv.inputs[1]
    assert kernel is not None
    assert kernel.const_value is not None
    kernel.const_value = ir.Tensor(kernel.const_value.numpy()[::-1].copy())
    assert {"native", "feature windows"} <= {r.tier for r in check(model, converted).failures}


def test_a_single_score_that_is_a_small_difference_of_large_terms() -> None:
    """Of this size its rounding errors are no measure: the seed is one where they are large."""
    net = Net(batch=1, seed=18)
    features = net.fc(net.flat(net.trunk()), 32)
    score = net.fc(net.op("Abs", features, shape=(32,)), 1)
    model = net.model(net.op("Sigmoid", score, shape=(1,)))
    converted = convert(model, static=True).model
    assert converted is not None
    report = check(model, converted)
    assert report, report.to_markdown()


def test_a_vector_over_rows_of_each_channel() -> None:
    """One number of each row of each channel: a kernel for each channel, of one vector."""
    net = Net(image=(2, 4, 3))
    y = net.op("MatMul", net.x, net.random(3), shape=(2, 4))
    model = net.model(net.head(y))
    report = check(model, convert(model).model)
    assert report, report.to_markdown()
