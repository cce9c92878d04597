"""Running models with onnxruntime, on the requested provider and no other."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError, InvalidModelError, RuntimeUnavailableError
from onnx_fc2conv.runtime.byte_products import start_exact
from onnx_fc2conv.runtime.cuda import why_no_cuda
from onnx_fc2conv.runtime.reference import (
    ReferenceRunner,
    hands_over_bfloat16,
    rare_types,
)
from onnx_fc2conv.runtime.start import PROVIDERS, Provider, one_line, onnxruntime, start
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["RunError", "Session", "outdated", "require", "runtime_version"]

_OLDEST = (1, 27)
"""The oldest onnxruntime that passes the test suite."""


def runtime_version() -> str:
    """Version of the onnxruntime that runs the checks."""
    return str(onnxruntime().__version__)


def outdated() -> str | None:
    """Return a warning if this onnxruntime is too old, else None."""
    version = runtime_version()
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) >= _OLDEST:
        return None
    intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"
    advice = "no newer one is made for Intel Macs" if intel_mac else "install a newer one"
    return (
        f"onnxruntime {version} is older than {_OLDEST[0]}.{_OLDEST[1]}: it lacks operators and "
        f"computes some wrongly, so that a failure may be its own ({advice})"
    )


def require(provider: Provider) -> None:
    """Check before any work that a provider is available.

    Raises:
        RuntimeUnavailableError: If onnxruntime is missing or its package lacks the provider; the
            message says which.
        ArgumentError: If there is no such provider.
    """
    if provider not in PROVIDERS:
        raise ArgumentError(f"provider {provider!r} is not one of: {', '.join(PROVIDERS)}")
    ort: Any = onnxruntime()
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

    Products of bytes are exact on every CPU, also where onnxruntime's own saturate. A session
    ``as_deployed`` has onnxruntime's default options, and computes what a user of the model sees.

    Attributes:
        outputs: Names of the outputs.
        not_loaded: Why onnxruntime does not run the model; None where it does.
        saturating: The types of the operators that would saturate on this CPU, one for each node.

    Raises:
        RuntimeUnavailableError: If onnxruntime or the provider is missing, or does not start.
        InvalidModelError: If it does not load the model.
    """

    def __init__(
        self,
        model: ir.Model,
        provider: Provider = "cpu",
        *,
        by_reference: bool = False,
        as_deployed: bool = False,
    ) -> None:
        self.outputs: tuple[str, ...] = tuple(value.name or "" for value in model.graph.outputs)
        self.not_loaded: str | None = None
        self.saturating: tuple[str, ...] = ()
        self._session: Any
        self._provider: Provider = provider
        if hands_over_bfloat16(model):
            by_reference, self.not_loaded = True, "it takes no bfloat16 from NumPy"
        if by_reference:
            self._session = ReferenceRunner(model)
            return
        require(provider)
        name = PROVIDERS[provider]
        try:
            if as_deployed:
                self._session = start(model, provider, optimization="default")
            else:
                self._session, self.saturating = start_exact(model, provider)
        except Exception as error:
            if provider == "cuda" and "CUDA failure" in str(error):
                raise RuntimeUnavailableError(
                    f"{name} does not start: {why_no_cuda()}; onnxruntime says: {one_line(error)}"
                ) from error
            self.not_loaded = one_line(error)
            if rare_types(model):
                self._session = ReferenceRunner(model)
                return
            why = "; ".join(filter(None, (self.not_loaded, outdated())))
            raise InvalidModelError(f"onnxruntime does not load the model: {why}") from error
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

        With ``shrink_arena`` onnxruntime frees its memory after the run, where it would keep the
        most that any run has taken. The next run then has to allocate it again.

        Raises:
            RunError: If the model does not compute on these inputs.
        """
        names = list(self.outputs if outputs is None else outputs)
        if not names:  # onnxruntime reads an empty list as all outputs
            return {}
        shrinks = shrink_arena and not isinstance(self._session, ReferenceRunner)
        options = (_shrinking(self._provider),) if shrinks else ()
        try:
            arrays = self._session.run(names, dict(feeds), *options)
        except Exception as error:
            raise RunError(one_line(error)) from error
        found = zip(names, arrays, strict=True)
        # Until 1.25 an output that is an input points into the feed's memory, without a reference.
        return {name: array.copy() if name in feeds else array for name, array in found}


class RunError(Exception):
    """A model does not compute on these inputs; the message is onnxruntime's, in one line."""


def _shrinking(provider: Provider) -> Any:
    """Return run options that free unused memory after the run."""
    options = onnxruntime().RunOptions()
    devices = {"cpu": "cpu:0", "cuda": "cpu:0;gpu:0"}
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", devices[provider])
    return options
