"""The user's own samples, from every kind of file; what does not fit is one clear line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from PIL import Image

from onnx_fc2conv import ArgumentError, EquivalenceReport, check, convert
from onnx_fc2conv.equivalence.pair import Pair
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.images import read_images
from tests.equivalence.conftest import MODELS, SQUARE, Case
from tests.equivalence.planting import edit_constant
from tests.nets import Array, Net, Tensor, session

RNG = np.random.default_rng(0)
IMAGES = RNG.random((5, *SQUARE), np.float32)


def expected(case: Case, images: Array = IMAGES) -> Array:
    return session(case.reference)({"x": images})["y"]


def on_data(case: Case, *paths: Path) -> EquivalenceReport:
    return check(case.reference, case.converted, data=paths)


def rows(report: EquivalenceReport) -> list[TierResult]:
    return [result for result in report.results if result.tier == "data"]


def as_npz(case: Case, folder: Path, expect: Array) -> Path:
    np.savez(folder / "samples.npz", x=IMAGES, y=expect)
    return folder / "samples.npz"


def as_test_data(case: Case, folder: Path, expect: Array) -> Path:
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        own = folder / "zoo" / f"test_data_set_{number}"
        own.mkdir(parents=True)
        for kind, array in (("input", IMAGES[part]), ("output", expect[part])):
            tensor = numpy_helper.from_array(array, "")
            (own / f"{kind}_0.pb").write_bytes(tensor.SerializeToString())
    return folder / "zoo"


RECORDED: dict[str, Callable[[Case, Path, Array], Path]] = {
    "npz": as_npz,
    "onnx-test-data": as_test_data,
}


@pytest.mark.parametrize("write", RECORDED.values(), ids=RECORDED)
def test_recorded_outputs_are_compared_with_both_models(
    write: Callable[[Case, Path, Array], Path],
    case_of: Callable[[str], Case],
    tmp_path: Path,
) -> None:
    case = case_of("plain")
    path = write(case, tmp_path, expected(case))
    report = on_data(case, path)
    assert report, report.to_markdown()
    assert [(r.subject, r.elements) for r in rows(report)] == [
        (f"y on {path}", 20),
        (f"y of the reference as recorded in {path}", 20),
        (f"y of the converted model as recorded in {path}", 20),
    ]
    assert rows(report)[0].detail == f"5 samples of {path}"


@pytest.mark.parametrize("write", RECORDED.values(), ids=RECORDED)
def test_outputs_that_neither_model_gives(
    write: Callable[[Case, Path, Array], Path],
    case_of: Callable[[str], Case],
    tmp_path: Path,
) -> None:
    case = case_of("plain")
    report = on_data(case, write(case, tmp_path, expected(case) * np.float32(1.01)))
    assert not report
    assert [r.status for r in rows(report)] == ["passed", "failed", "failed"]


def test_a_fault_that_shows_on_these_samples_only(
    case_of: Callable[[str], Case], tmp_path: Path
) -> None:
    """A weight of a feature that is nearly always 0 on images."""
    case = case_of("plain")
    np.save(tmp_path / "samples.npy", IMAGES)
    assert on_data(case, tmp_path / "samples.npy")
    edit_constant(0, 1, lambda kernel: kernel * np.float32(1.01))(case.converted)
    report = on_data(case, tmp_path / "samples.npy")
    assert [r.status for r in rows(report)] == ["failed"]


def test_several_sources_and_a_single_sample(
    case_of: Callable[[str], Case], tmp_path: Path
) -> None:
    case = case_of("softmax")
    np.save(tmp_path / "one.npy", IMAGES[:1].astype(np.float64))
    np.savez(tmp_path / "all.npz", x=IMAGES)
    report = on_data(case, tmp_path / "one.npy", tmp_path / "all.npz")
    assert report
    assert [r.elements for r in rows(report)] == [4, 20]
    assert rows(report)[1].subject == f"y on {tmp_path / 'all.npz'}"
    assert rows(report)[0].detail.startswith("1 sample of ")


def test_samples_of_a_model_with_a_fixed_batch(
    case_of: Callable[[str], Case], tmp_path: Path
) -> None:
    case = case_of("fixed_batch")
    np.save(tmp_path / "samples.npy", IMAGES)
    assert [r.elements for r in rows(on_data(case, tmp_path / "samples.npy"))] == [20]


def test_tensors_find_their_input_by_name(case_of: Callable[[str], Case], tmp_path: Path) -> None:
    case = case_of("two_images")
    one, two = RNG.random((2, 1, *SQUARE), np.float32)
    for number, (name, array) in enumerate((("z", two), ("x", one))):
        tensor = numpy_helper.from_array(array, name)
        (tmp_path / f"input_{number}.pb").write_bytes(tensor.SerializeToString())
    output = session(case.reference)({"x": one, "z": two})["y"]
    proto = numpy_helper.from_array(output, "y")
    (tmp_path / "output_0.pb").write_bytes(proto.SerializeToString())
    assert [r.status for r in rows(on_data(case, tmp_path))] == ["passed"] * 3


def picture(folder: Path, name: str, size: tuple[int, int], mode: str) -> None:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8), mode).save(folder / name)


def channels_last() -> onnx.ModelProto:
    net = Net(image=(8, 10, 3))
    first = net.op("Transpose", net.x, perm=[0, 3, 1, 2])
    conv = net.op("Conv", first, net.random(3, 3, 3, 3))
    return net.model(net.head(Tensor(conv.value, (3, 6, 8))))


@pytest.mark.parametrize("model", [MODELS / "face25.onnx", MODELS / "dress64x128.onnx", None])
def test_folder_of_images(model: Path | None, tmp_path: Path) -> None:
    reference = channels_last() if model is None else model
    picture(tmp_path, "a.png", (70, 40), "RGB")
    picture(tmp_path, "b.JPG", (31, 99), "L")
    (tmp_path / "notes.txt").write_text("no image")
    converted = convert(reference).model
    assert converted is not None
    report = check(reference, converted, data=[tmp_path])
    assert report, report.to_markdown()
    assert rows(report)[0].detail == f"2 samples of {tmp_path}"


def test_what_is_done_to_an_image(tmp_path: Path) -> None:
    """Cut about the center, in proportion; 0..255 becomes 0..1; no mean, no deviation."""
    pixels = np.zeros((8, 20), np.uint8)
    pixels[:, 6:14] = 102
    Image.fromarray(pixels, "L").save(tmp_path / "a.png")
    net = Net(image=(1, 4, 4))
    model = net.ir_model(net.head(net.trunk()))
    samples = read_images([tmp_path / "a.png"], Pair(model, model, {"x": (1, 1, 4, 4)}))
    np.testing.assert_array_equal(samples["x"], np.full((1, 1, 4, 4), np.float32(102 / 255)))


def refuse(case: Case, path: Path) -> str:
    with pytest.raises(ArgumentError) as error:
        on_data(case, path)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("gone.npz", lambda _: None, "No such file or directory"),
    "missing-folder": ("gone", lambda _: None, "does not exist"),
    "other-format": ("a.csv", lambda p: p.write_text("1,2"), "is no .npz or .npy file"),
    "broken-npz": ("a.npz", lambda p: p.write_bytes(b"PK\3\4"), "cannot read the samples"),
    "broken-npy": ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY"), "cannot read the samples"),
    "empty-file": ("a.npy", lambda p: p.touch(), "cannot read the samples"),
    "pickled": (
        "a.npy",
        lambda p: np.save(p, np.array([{}], object), allow_pickle=True),
        "cannot read the samples",
    ),
    "empty-folder": ("a", Path.mkdir, "holds neither input_0.pb nor test_data_set_0 nor images"),
    "other-name": ("a.npz", lambda p: write_npz(p, q=IMAGES), "has an array 'q', but the model's"),
    "no-input": ("a.npz", lambda p: write_npz(p, y=IMAGES), "no array for the input 'x'"),
    "other-size": (
        "a.npy",
        lambda p: np.save(p, IMAGES[..., :7]),
        "'x' has shape [5, 2, 8, 7], the model takes [N, 2, 8, 8]",
    ),
    "no-batch": ("a.npy", lambda p: np.save(p, IMAGES[0]), "has shape [2, 8, 8], the model takes"),
    "no-samples": ("a.npy", lambda p: np.save(p, IMAGES[:0]), "has shape [0, 2, 8, 8]"),
    "bytes": (
        "a.npy",
        lambda p: np.save(p, IMAGES.astype(np.uint8)),
        "'x' has type uint8, the model takes float32",
    ),
}


@pytest.mark.parametrize(("name", "write", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line(
    name: str,
    write: Callable[[Path], object],
    message: str,
    case_of: Callable[[str], Case],
    tmp_path: Path,
) -> None:
    write(tmp_path / name)
    assert message in refuse(case_of("plain"), tmp_path / name)


def test_a_tensor_file_that_is_none(case_of: Callable[[str], Case], tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(b"\xff\xff\xff")
    assert "input_0.pb is not an ONNX tensor" in refuse(case_of("plain"), tmp_path)


def test_numbers_of_samples_differ(case_of: Callable[[str], Case], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, z=IMAGES[:2])
    assert "different numbers of samples: [2, 5]" in refuse(
        case_of("two_images"), tmp_path / "a.npz"
    )


def test_images_of_two_inputs_or_channels(case_of: Callable[[str], Case], tmp_path: Path) -> None:
    picture(tmp_path, "a.png", (8, 8), "L")
    assert "several inputs" in refuse(case_of("two_images"), tmp_path)
    assert "two spatial axes and one or three channels" in refuse(case_of("plain"), tmp_path)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ArgumentError, match="cannot read the samples"):
        check(MODELS / "face25.onnx", MODELS / "face25.onnx", data=[tmp_path])


def test_missing_pillow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path, "a.png", (25, 25), "L")
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name.startswith("PIL"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ArgumentError, match=r"onnx-fc2conv\[images\]"):
        check(MODELS / "face25.onnx", MODELS / "face25.onnx", data=[tmp_path])


def test_half_precision_takes_float32_samples(
    case_of: Callable[[str], Case], tmp_path: Path
) -> None:
    case = case_of("half")
    assert isinstance(case.converted, ir.Model)
    np.save(tmp_path / "a.npy", IMAGES)
    assert on_data(case, tmp_path / "a.npy")
