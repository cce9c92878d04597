"""Running models with onnxruntime, on the provider that was asked for and no other."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir

from onnx_fc2conv.embedded_weights import MappedTensor
from onnx_fc2conv.equivalence.cuda import why_no_cuda
from onnx_fc2conv.equivalence.reference import ReferenceRunner, hands_over_bfloat16, rare_types
from onnx_fc2conv.errors import ArgumentError, InvalidModelError, RuntimeUnavailableError
from onnx_fc2conv.model_io import INLINE_LIMIT, weigh
from onnx_fc2conv.views.labels import AnyArray

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["PROVIDERS", "Provider", "RunError", "Session", "require", "runtime_version", "settings"]

Provider = Literal["cpu", "cuda"]

PROVIDERS: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
"""onnxruntime's names of the providers that a check can run on."""

_SMALL = 1 << 10
"""Bytes below which a tensor is no weight."""


def _onnxruntime() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            raise RuntimeUnavailableError(
                f"onnxruntime cannot be loaded: {_text(error)}"
            ) from error
        raise RuntimeUnavailableError(
            "the check runs the models with onnxruntime, which is not installed: "
            'pip install "onnx-fc2conv[cpu]" (or [gpu]), or convert with --no-check'
        ) from error


def runtime_version() -> str:
    """Version of the onnxruntime that runs the checks."""
    return str(_onnxruntime().__version__)


def settings(provider: Provider, *, tf32: bool = False) -> dict[str, str]:
    """The options that a provider runs with.

    TF32 rounds the factors of every product to 10 bits: not the arithmetic under test, unless the
    numbers are so short that nothing is rounded. The search for cuDNN's algorithms is the
    heuristic one: it takes no time at each new size, and does not depend on what else the GPU does.
    """
    if provider == "cpu":
        return {}
    return {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}


def require(provider: Provider) -> None:
    """Find out before any work whether a provider can be had.

    Raises:
        RuntimeUnavailableError: If onnxruntime is missing or its package lacks the provider; the
            message says which.
        ArgumentError: If there is no such provider.
    """
    if provider not in PROVIDERS:
        raise ArgumentError(f"provider {provider!r} is not one of: {', '.join(PROVIDERS)}")
    ort: Any = _onnxruntime()
    name, available = PROVIDERS[provider], ort.get_available_providers()
    if name not in available:
        raise RuntimeUnavailableError(
            f"{name} is not in this onnxruntime package (it has: {', '.join(available)}); "
            'pip install "onnx-fc2conv[gpu]" in an environment without the CPU package'
        )


class Session:
    """An onnxruntime session of a model, on one provider.

    Where the provider lacks an operator, onnxruntime runs this one on the CPU; a provider that
    does not start, or gives up while it runs, is an error.

    A model in float64 or bfloat16, for which onnxruntime lacks kernels, runs in ONNX's reference
    implementation if onnxruntime does not load it, and any model does ``by_reference``.

    Graph optimization is EXTENDED: ALL would pack a second copy of every large kernel (a 7×7
    convolution of 512 channels takes seconds and gigabytes to load).

    Attributes:
        outputs: Names of the outputs.
        not_loaded: Why onnxruntime does not run the model; None where it does.

    Raises:
        RuntimeUnavailableError: If onnxruntime or the provider is missing, or does not start.
        InvalidModelError: If it does not load the model.
    """

    def __init__(
        self,
        model: ir.Model,
        provider: Provider = "cpu",
        *,
        tf32: bool = False,
        by_reference: bool = False,
    ) -> None:
        self.outputs: tuple[str, ...] = tuple(value.name or "" for value in model.graph.outputs)
        self.not_loaded: str | None = None
        self._session: Any
        self._provider: Provider = provider
        if hands_over_bfloat16(model):
            by_reference, self.not_loaded = True, "it takes no bfloat16 from NumPy"
        if by_reference:
            self._session = ReferenceRunner(model)
            return
        require(provider)
        ort: Any = _onnxruntime()
        name = PROVIDERS[provider]
        if provider == "cuda" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 4
        options.enable_mem_pattern = False
        # A packed copy of a weight is as large as the weight, and saves little in a few runs.
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            with _serialized(model) as (source, folder):
                if folder is not None:
                    key = "session.model_external_initializers_file_folder_path"
                    options.add_session_config_entry(key, folder)
                self._session = ort.InferenceSession(
                    source,
                    options,
                    providers=[(name, settings(provider, tf32=tf32))],
                    enable_fallback=0,  # neither here nor in a run that fails
                )
        except Exception as error:
            if provider == "cuda" and "CUDA failure" in str(error):
                raise RuntimeUnavailableError(
                    f"{name} does not start: {why_no_cuda()}; onnxruntime says: {_text(error)}"
                ) from error
            self.not_loaded = _text(error)
            if rare_types(model):
                self._session = ReferenceRunner(model)
                return
            raise InvalidModelError(
                f"onnxruntime does not load the model: {self.not_loaded}"
            ) from error
        if self._session.get_providers()[0] != name:
            raise RuntimeUnavailableError(f"{name} does not start: {why_no_cuda()}")

    def run(
        self,
        feeds: Mapping[str, AnyArray],
        outputs: Sequence[str] | None = None,
        *,
        shrink_arena: bool = False,
    ) -> dict[str, AnyArray]:
        """Outputs by name.

        With ``shrink_arena`` onnxruntime gives its memory back after the run: it would keep the
        most that any run has taken. That is as much to be touched anew by the next.

        Raises:
            RunError: If the model does not compute on these inputs.
        """
        names = list(self.outputs if outputs is None else outputs)
        if not names:  # onnxruntime takes none for all
            return {}
        shrinks = shrink_arena and not isinstance(self._session, ReferenceRunner)
        options = (_shrinking(self._provider),) if shrinks else ()
        try:
            arrays = self._session.run(names, dict(feeds), *options)
        except Exception as error:
            raise RunError(_text(error)) from error
        return dict(zip(names, arrays, strict=True))


class RunError(Exception):
    """A model does not compute on these inputs; the message is onnxruntime's, in one line."""


def _shrinking(provider: Provider) -> Any:
    """Options of a run that gives the memory back that it does not use any more."""
    options = _onnxruntime().RunOptions()
    devices = {"cpu": "cpu:0", "cuda": "cpu:0;gpu:0"}
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", devices[provider])
    return options


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
    # onnxruntime maps the weights; where a mapped file cannot be deleted, it stays.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "model.onnx")
        ir.save(model, file, external_data="weights")
        yield str(file), None


def _with_external_folder(model: ir.Model) -> tuple[ir.Model, str | None]:
    """The model as onnxruntime takes it from memory, and the folder of its external data.

    There can be one folder, and onnxruntime wants small tensors (shapes) in the model itself: what
    is small or lies elsewhere is read.
    """
    external = list(_external_tensors(model))
    if not external:
        return model, None
    folder = _folder(max((tensor for _, tensor in external), key=lambda tensor: tensor.nbytes))
    copy = model.clone()
    for value, tensor in _external_tensors(copy):
        value.const_value = tensor
        if tensor.nbytes < _SMALL or _folder(tensor) != folder:
            value.const_value = ir.Tensor(
                tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name
            )
    return copy, folder


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


def _text(error: Exception) -> str:
    text = " ".join(str(error).split())
    # Many begin with a C++ signature of that length, and end with what is wrong.
    return text if len(text) <= 300 else f"{text[:60]} … {text[-240:]}"
