"""CUDA: never a silent fallback; what is missing is said; and on a GPU, the tiers themselves."""

from __future__ import annotations

import ctypes
import importlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_fc2conv import RuntimeUnavailableError, check, convert
from onnx_fc2conv.runtime import cuda
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.runtime.start import settings
from tests.equivalence.conftest import MODELS, Case

WHY = "there is no NVIDIA driver here (libcuda.so.1 cannot be loaded)"


def fake_runtime(session: Callable[..., Any]) -> types.SimpleNamespace:
    """An onnxruntime package with CUDA, whose sessions are made like this."""
    return types.SimpleNamespace(
        __version__="1.31.0",
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: None,
        SessionOptions=ort.SessionOptions,
        GraphOptimizationLevel=ort.GraphOptimizationLevel,
        InferenceSession=session,
    )


@pytest.fixture
def cuda_session(
    case_of: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., Any]], Session]:
    """Opens a session on CUDA with a package that behaves as told, where there is no driver."""
    monkeypatch.setattr("onnx_fc2conv.runtime.session.why_no_cuda", lambda: WHY)
    model = ir.from_proto(case_of("plain").reference)
    real = importlib.import_module

    def open_with(session: Callable[..., Any]) -> Session:
        fake = fake_runtime(session)

        def load(name: str, package: str | None = None) -> Any:
            return fake if name == "onnxruntime" else real(name, package)

        monkeypatch.setattr(importlib, "import_module", load)
        return Session(model, "cuda")

    return open_with


def test_a_fallback_to_the_cpu_is_an_error(
    cuda_session: Callable[[Callable[..., Any]], Session],
) -> None:
    """onnxruntime only logs that CUDA's libraries cannot be loaded, and makes a session anyway."""

    def session(*_: Any, **__: Any) -> Any:
        return types.SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    with pytest.raises(RuntimeUnavailableError) as error:
        cuda_session(session)
    assert str(error.value) == f"CUDAExecutionProvider does not start: {WHY}"


def test_a_driver_that_is_too_old_is_no_bad_model(
    cuda_session: Callable[[Callable[..., Any]], Session],
) -> None:
    def session(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")

    with pytest.raises(RuntimeUnavailableError, match="does not start: there is no NVIDIA driver"):
        cuda_session(session)


def test_the_session_is_told_what_the_report_says(
    cuda_session: Callable[[Callable[..., Any]], Session],
) -> None:
    told: dict[str, Any] = {}

    def session(*_: Any, **options: Any) -> Any:
        told.update(options)
        return types.SimpleNamespace(
            get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            get_outputs=list,
        )

    cuda_session(session)
    assert told == {
        "providers": [("CUDAExecutionProvider", settings("cuda"))],
        "enable_fallback": 0,
    }
    assert settings("cuda") == {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert settings("cpu") == {}


@pytest.mark.parametrize(
    ("status", "devices", "words"),
    [
        (0, 0, "sees no device"),
        (100, 0, "sees no device (is CUDA_VISIBLE_DEVICES empty?)"),
        (35, 0, "does not start (CUDA error 35)"),
        (0, 2, "sees 2 device(s), but onnxruntime cannot load the CUDA or cuDNN libraries"),
    ],
)
def test_what_the_driver_says(
    status: int, devices: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(target: Any) -> int:
        target._obj.value = devices
        return 0

    driver = types.SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert words in cuda.why_no_cuda()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert "there is no NVIDIA driver here" in cuda.why_no_cuda()


@pytest.fixture
def gpu(case_of: Callable[[str], Case]) -> None:
    """Skips, with the reason, where the check could not run on CUDA."""
    try:
        Session(ir.from_proto(case_of("plain").reference), "cuda")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("file", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_models_on_both_providers(file: Path) -> None:
    conversion = convert(file)
    assert conversion.model is not None
    report = check(
        file,
        conversion.model,
        geometry=conversion.geometry,
        providers=("cpu", "cuda"),
        expect="map",
    )
    print(report.to_markdown())
    assert report
    assert [run.provider for run in report.runs] == ["cpu", "cuda"]
    assert {r.status for r in report.runs[1].results if r.tier == "integers"} == {"passed"}
