"""Starting onnxruntime on a model, whatever its size and wherever its weights are."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir

from onnx_fc2conv.errors import RuntimeUnavailableError
from onnx_fc2conv.files.embedded import MappedTensor
from onnx_fc2conv.files.reading import INLINE_LIMIT, weigh

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "PROVIDERS",
    "Optimization",
    "Provider",
    "mapped_folder",
    "one_line",
    "onnxruntime",
    "settings",
    "start",
]

Provider = Literal["cpu", "cuda"]
Optimization = Literal["none", "extended", "default"]

PROVIDERS: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
"""onnxruntime's names of the providers that a check can run on."""

_SMALL = 1 << 10
"""Bytes below which a tensor is no weight."""


def onnxruntime() -> ModuleType:
    """The module.

    Raises:
        RuntimeUnavailableError: If it is missing or cannot be loaded.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            raise RuntimeUnavailableError(
                f"onnxruntime cannot be loaded: {one_line(error)}"
            ) from error
        raise RuntimeUnavailableError(
            "the check runs the models with onnxruntime, which is not installed: "
            'pip install "onnx-fc2conv[cpu]" (or [gpu]), or convert with --no-check'
        ) from error


def settings(provider: Provider) -> dict[str, str]:
    """The options that a provider runs with.

    TF32 would round the factors of every product to 10 bits: not the arithmetic under test. The
    search for cuDNN's algorithms is the heuristic one: it takes no time at each new size, and does
    not depend on what else the GPU does.
    """
    if provider == "cpu":
        return {}
    return {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def start(
    model: ir.Model,
    provider: Provider = "cpu",
    *,
    optimization: Optimization = "extended",
    optimized: Path | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` of the model, on the provider and no other.

    Args:
        model: The model.
        provider: Where it runs.
        optimization: How far onnxruntime rewrites the graph. What it does by default packs a second
            copy of every large kernel: a 7×7 convolution of 512 channels takes seconds and
            gigabytes to load. ``"default"`` leaves all other options at their defaults, too.
        optimized: Where onnxruntime writes the optimized graph.

    Raises:
        RuntimeUnavailableError: If onnxruntime is missing.
        Exception: Whatever onnxruntime raises where it does not load the model.
    """
    ort: Any = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if optimization != "default":
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_DISABLE_ALL if optimization == "none" else levels.ORT_ENABLE_EXTENDED
        )
        options.enable_mem_pattern = False
        # A packed copy of a weight is as large as the weight, and saves little in a few runs.
        options.add_session_config_entry("session.disable_prepacking", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{optimized.name}.weights"
        )
    if provider == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    with _serialized(model) as (source, folder):
        if folder is not None:
            key = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(key, folder)
        return ort.InferenceSession(
            source,
            options,
            providers=[(PROVIDERS[provider], settings(provider))],
            enable_fallback=0,  # neither here nor in a run that fails
        )


def one_line(error: Exception) -> str:
    """Return onnxruntime's message in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    # Many begin with a C++ signature of that length, and end with the actual message.
    return text if len(text) <= 300 else f"{text[:60]} … {text[-240:]}"


@contextmanager
def _serialized(model: ir.Model) -> Generator[tuple[bytes | str, str | None]]:
    """The model as onnxruntime takes it: in bytes, or in files if one protobuf cannot hold it.

    Yields:
        The bytes or the name of the file, and the folder of the external data that bytes refer to.
    """
    if weigh(model) <= INLINE_LIMIT:
        ready, folder = _with_external_folder(model)
        yield ir.to_proto(ready).SerializeToString(), folder
        return
    with mapped_folder() as temporary:
        file = temporary / "model.onnx"
        ir.save(model, file, external_data="weights")
        yield str(file), None


@contextmanager
def mapped_folder() -> Generator[Path]:
    """A temporary folder with weights that a session maps.

    Windows does not delete mapped files: there the folder is deleted with the next one, or at the
    end.
    """
    folder = tempfile.mkdtemp(prefix="fc2conv-")
    try:
        yield Path(folder)
    finally:
        _delete(folder)


_undeleted: set[str] = set()


@atexit.register
def _delete(*folders: str) -> None:
    """Delete folders, also those that could not be deleted before."""
    for folder in {*folders, *_undeleted}:
        shutil.rmtree(folder, ignore_errors=True)
        (_undeleted.add if Path(folder).exists() else _undeleted.discard)(folder)


def _with_external_folder(model: ir.Model) -> tuple[ir.Model, str | None]:
    """The model as onnxruntime takes it from memory, and the folder of its external data.

    onnxruntime takes one folder, and wants small tensors (shapes) in the model itself: tensors that
    are small, lie elsewhere, or in a file whose name is not text, are read.
    """
    external = list(_external_tensors(model))
    if not external:
        return model, None
    folder = _folder(max((tensor for _, tensor in external), key=lambda tensor: tensor.nbytes))
    copy = model.clone()
    for value, tensor in _external_tensors(copy):
        value.const_value = tensor
        named = _is_text(f"{folder}/{tensor.location}")
        if tensor.nbytes < _SMALL or _folder(tensor) != folder or not named:
            value.const_value = ir.Tensor(
                tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name
            )
    return copy, folder if _is_text(folder) else None


def _external_tensors(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, MappedTensor):
                yield value, tensor.as_external()
            elif isinstance(tensor, ir.ExternalTensor):
                yield value, tensor


def _folder(tensor: ir.ExternalTensor) -> str:
    return os.path.abspath(tensor.base_dir or ".")  # noqa: PTH100 - nothing is resolved


def _is_text(name: str) -> bool:
    """Whether a file name is text, without bytes that could not be decoded."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
