"""Running models: what is missing is said, samples are seeded, weights may lie in other files."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fc2conv import convert
from onnx_fc2conv.equivalence.check import check
from onnx_fc2conv.equivalence.running.samples import KINDS, ModelInput, sample
from onnx_fc2conv.errors import InvalidModelError, RuntimeUnavailableError
from onnx_fc2conv.files.staging import staged
from onnx_fc2conv.runtime import session
from onnx_fc2conv.runtime.session import RunError, Session, outdated
from tests.equivalence.conftest import MODELS, Case


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'onnxruntime'"), r"onnx-fc2conv\[cpu\]"),
        (ImportError("libstdc++.so.6: cannot open"), r"cannot be loaded: libstdc\+\+"),
    ],
    ids=["missing", "broken"],
)
def test_an_onnxruntime_that_does_not_start(
    error: ImportError,
    message: str,
    case_of: Callable[[str], Case],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = case_of("plain")
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "onnxruntime":
            raise error
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(RuntimeUnavailableError, match=message) as raised:
        case.check()
    assert "\n" not in str(raised.value)


def test_missing_provider_names_the_extra(case_of: Callable[[str], Case]) -> None:
    ort = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    case = case_of("plain")
    with pytest.raises(RuntimeUnavailableError, match=r"onnx-fc2conv\[gpu\]"):
        check(case.reference, case.converted, providers=("cuda",))


def of_an_unknown_operator(case_of: Callable[[str], Case]) -> Case:
    """Valid as the specification goes, but of an operator set that no runtime knows."""
    case = case_of("plain")
    case.converted.graph.append(
        ir.node("Relu", [case.converted.graph.outputs[0]], domain="nobody.knows")
    )
    case.converted.graph.opset_imports["nobody.knows"] = 1
    case.converted.graph.outputs.append(list(case.converted.graph)[-1].outputs[0])
    return case


def test_model_that_does_not_load(case_of: Callable[[str], Case]) -> None:
    with pytest.raises(InvalidModelError, match="onnxruntime does not load the model") as error:
        of_an_unknown_operator(case_of).check()
    assert "\n" not in str(error.value)
    assert "older" not in str(error.value)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of an onnxruntime that is too old."""
    monkeypatch.setattr(importlib.import_module("onnxruntime"), "__version__", "1.23.2")
    monkeypatch.setattr(sys, "platform", "linux")
    return (
        "onnxruntime 1.23.2 is older than 1.27: it lacks operators and computes some wrongly, so "
        "that a failure may be its own (install a newer one)"
    )


def test_an_old_onnxruntime_that_does_not_load_a_model(
    old: str, case_of: Callable[[str], Case]
) -> None:
    with pytest.raises(InvalidModelError) as error:
        of_an_unknown_operator(case_of).check()
    assert str(error.value).endswith(f"; {old}")


def test_an_old_onnxruntime_is_named_where_a_check_fails(
    old: str, case_of: Callable[[str], Case]
) -> None:
    case = case_of("plain")
    assert case.check().notes == ()
    different = check(case.reference, case_of("padded").reference)
    assert not different
    assert different.notes == (old,)


def test_intel_macs_have_no_newer_onnxruntime(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert outdated() == old.replace("install a newer one", "no newer one is made for Intel Macs")


@pytest.mark.parametrize("version", ["1.27.0", "1.27.0.dev20261101", "1.100.0", "2.0.0", "main"])
def test_an_onnxruntime_that_is_not_too_old(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("onnxruntime"), "__version__", version)
    assert outdated() is None


def test_the_oldest_onnxruntime_is_the_one_that_the_extra_brings() -> None:
    project = (MODELS.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(project)["project"]["optional-dependencies"]
    oldest = ".".join(map(str, session._OLDEST))
    assert extras["cpu"][0].startswith(f"onnxruntime>={oldest};")


def test_model_that_does_not_run(case_of: Callable[[str], Case]) -> None:
    session = Session(ir.from_proto(case_of("plain").reference))
    with pytest.raises(RunError) as error:
        session.run({"x": np.zeros((1, 2, 9, 17), np.float32)})
    assert "\n" not in str(error.value)


def test_no_outputs_asked_for_are_none(case_of: Callable[[str], Case]) -> None:
    session = Session(ir.from_proto(case_of("plain").reference))
    feeds = {"x": np.zeros((1, 2, 8, 8), np.float32)}
    assert session.run(feeds, []) == {}
    assert list(session.run(feeds)) == ["y"]


@pytest.mark.parametrize("threshold", [0, 1024], ids=["all-tensors", "large-tensors"])
def test_external_data(threshold: int, tmp_path: Path) -> None:
    reference = tmp_path / "face.onnx"
    onnx.save(
        onnx.load(MODELS / "face25.onnx"),
        reference,
        save_as_external_data=True,
        location="face.bin",
        size_threshold=threshold,
    )
    converted = convert(reference).model
    assert converted is not None
    in_memory = check(reference, converted)
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "dense.onnx"
    with staged(target, converted, overwrite=False) as pending:
        on_disk = check(reference, pending)
    assert in_memory
    assert on_disk
    assert check(MODELS / "face25.onnx", target)
    assert {r.status for r in in_memory.results + on_disk.results} == {"passed"}


def test_external_data_in_two_folders(tmp_path: Path) -> None:
    """Weights of a model that was put together from two files."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    file = folders[0] / "face.onnx"
    onnx.save(
        onnx.load(MODELS / "face25.onnx"), file, save_as_external_data=True, location="face.bin"
    )
    shutil.copy(folders[0] / "face.bin", folders[1])
    model = ir.load(file)
    tensor = next(v for v in model.graph.initializers.values() if v.name == "2.weight")
    assert isinstance(tensor.const_value, ir.ExternalTensor)
    tensor.const_value = ir.ExternalTensor(
        tensor.const_value.location,
        tensor.const_value.offset,
        tensor.const_value.length,
        tensor.const_value.dtype,
        shape=ir.Shape(tensor.const_value.shape),
        name=tensor.const_value.name,
        base_dir=folders[1],
    )
    image = {"image": np.random.default_rng(0).random((1, 1, 25, 25), np.float32)}
    np.testing.assert_array_equal(
        Session(model).run(image)["scores"],
        Session(ir.load(MODELS / "face25.onnx")).run(image)["scores"],
    )


INPUTS = (
    ModelInput("image", np.dtype(np.float32), (None, 3, 8, 8)),
    ModelInput("bytes", np.dtype(np.uint8), (None, 3, 8, 8)),
    ModelInput("signed", np.dtype(np.int8), (4,)),
    ModelInput("mask", np.dtype(np.bool_), (None, 8)),
    ModelInput("half", np.dtype(np.float16), (None, 8)),
)
SHAPES = {
    "image": (2, 3, 8, 8),
    "bytes": (2, 3, 8, 8),
    "signed": (4,),
    "mask": (2, 8),
    "half": (2, 8),
}


def draw(kind: str, seed: int) -> dict[str, np.ndarray]:
    return sample(INPUTS, SHAPES, kind, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_seeded(kind: str) -> None:
    one, two, other = draw(kind, 1), draw(kind, 1), draw(kind, 2)
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
        assert array.shape == SHAPES[name]
        assert array.dtype == next(i.dtype for i in INPUTS if i.name == name)
        if kind not in ("dark", "bright", "one bright pixel"):
            assert not np.array_equal(array, other[name])
        assert np.isfinite(array).all()


def test_kinds_of_samples_differ() -> None:
    images = {kind: draw(kind, 0)["image"] for kind in KINDS}
    assert images["normal"].min() < 0
    assert 0 <= images["uniform"].min() < images["uniform"].max() < 1
    assert 0 <= images["image-like"].min() < images["image-like"].max() <= 1
    assert np.abs(images["large"]).max() > 1000
    assert set(np.unique(images["0 to 255"])) <= set(range(256))
    assert images["0 to 255"].max() > 200
    assert images["negative"].min() < -200
    assert images["negative"].max() <= 0
    assert (images["dark"].max(), images["bright"].min()) == (0, 255)
    assert images["one bright pixel"].sum() == 255 * np.prod(images["dark"].shape[:2])
    steps = {kind: np.abs(np.diff(image)).mean() for kind, image in images.items()}
    assert steps["image-like"] < steps["uniform"]


def test_whole_numbers_keep_their_range() -> None:
    arrays = draw("uniform", 0)
    assert arrays["bytes"].max() > 127
    assert arrays["signed"].min() >= 0
    arrays = draw("large", 0)
    assert (arrays["signed"].min(), arrays["signed"].max()) == (-128, 127)
    assert (arrays["bytes"].min(), arrays["bytes"].max()) == (0, 255)
    assert draw("negative", 0)["signed"].max() < 0
    assert draw("bright", 0)["signed"].min() == 127
    assert draw("one bright pixel", 0)["bytes"].max() in (0, 255)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64, np.int64])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_table_stay_valid(kind: str, dtype: type[np.generic]) -> None:
    index = ModelInput("rows", np.dtype(dtype), (4, 3), 6)
    drawn = sample([index], {"rows": (4, 3)}, kind, np.random.default_rng(0))["rows"]
    assert drawn.max() <= 6
    assert drawn.min() >= 0


def test_seed_changes_the_inputs_and_not_the_verdict(case_of: Callable[[str], Case]) -> None:
    case = case_of("softmax")
    one, again, other = (
        check(case.reference, case.converted, seed=seed).as_dict()["checks"] for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_progress_names_the_tiers(case_of: Callable[[str], Case]) -> None:
    case = case_of("plain")
    said: list[str] = []
    check(case.reference, case.converted, progress=said.append)
    windows = ["larger sizes", "feature windows", "image windows"]
    assert said == ["native", "geometry", "integers", *windows]
