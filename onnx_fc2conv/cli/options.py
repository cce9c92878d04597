"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.options import Options

if TYPE_CHECKING:
    from onnx_fc2conv.runtime.start import Provider

__all__ = [
    "Atol",
    "InputShapes",
    "ModelPath",
    "ProviderName",
    "Providers",
    "Quiet",
    "Reports",
    "Rtol",
    "Seed",
    "option",
    "parse_bounds",
    "parse_providers",
    "parse_sizes",
    "with_options",
]

_FIELDS = {field.name: field for field in fields(Options)}
_OF_PYTHON = ("given", "read")


class ProviderName(StrEnum):
    """Where the check runs; typer takes no list of a Literal."""

    CPU = "cpu"
    CUDA = "cuda"


def option(name: str, *default: Any) -> Any:
    """The form of a field of `Options` on the command line, as its metadata have it."""
    form = {key: value for key, value in _FIELDS[name].metadata.items() if key not in _OF_PYTHON}
    return typer.Option(*default, form.pop("flag", f"--{name.replace('_', '-')}"), **form)


ModelPath = Annotated[Path, typer.Argument(metavar="IN.onnx", help="The model to read.")]
InputShapes = Annotated[list[str] | None, option("input_shapes")]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write a report; the ending chooses the format: .json, .md or .xml (JUnit). "
        "Repeatable.",
    ),
]
Providers = Annotated[
    list[ProviderName] | None,
    typer.Option(
        "--provider",
        help="onnxruntime provider that runs the check: cpu by default. Repeatable: the same tiers "
        "on each.",
    ),
]
Rtol = Annotated[
    list[str] | None,
    typer.Option(
        "--rtol",
        metavar="[OUTPUT=]NUMBER",
        help="Relative tolerance of the check, of all outputs or of one (scores=1e-4). Default: "
        "128 ulps, 1.5e-5. Repeatable.",
    ),
]
Atol = Annotated[
    list[str] | None,
    typer.Option(
        "--atol",
        metavar="[OUTPUT=]NUMBER",
        help="Absolute tolerance of the check, likewise. Default: rtol × the output's largest "
        "magnitude.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the check's random inputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `Options`, which it gets as ``options``.

    They stand in the place of that parameter.
    """
    parameters: list[Parameter] = []
    types = get_type_hints(Options)
    for own in signature(command, eval_str=True).parameters.values():
        if own.name != "options":
            parameters.append(own)
            continue
        for name, field in _FIELDS.items():
            given, form = field.metadata.get("given", types[name]), option(name, field.default)
            parameters.append(own.replace(name=name, annotation=given, default=form))

    @wraps(command)
    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in _FIELDS}
        for name, field in _FIELDS.items():
            if "read" in field.metadata:
                values[name] = field.metadata["read"](values[name])
        command(options=Options(**values), **given)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def parse_bounds(option: str, texts: Sequence[str] | None) -> dict[str, float] | None:
    """``["1e-3", "scores=1e-4"]`` as ``{"*": 1e-3, "scores": 1e-4}``.

    Raises:
        ArgumentError: If one is not written like that.
    """
    bounds: dict[str, float] = {}
    for text in texts or ():
        name, equals, number = text.rpartition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = -1.0
        if not 0 <= bound < float("inf") or (equals and not name):
            raise ArgumentError(
                f"{option} {text!r} is not written like {option} 1e-4 or {option} scores=1e-4"
            )
        bounds[name or "*"] = bound
    return bounds or None


def parse_providers(given: Sequence[ProviderName] | None) -> tuple[Provider, ...]:
    """The providers in the order given, each once; the CPU if there are none."""
    return tuple(dict.fromkeys(name.value for name in given or (ProviderName.CPU,)))


def parse_sizes(text: str | None) -> tuple[tuple[int, ...], ...]:
    """``"512x1024,300x200"`` as ``((512, 1024), (300, 200))``.

    Raises:
        ArgumentError: If it is not written like that.
    """
    if text is None:
        return ()
    try:
        sizes = [tuple(map(int, size.split("x"))) for size in text.split(",")]
    except ValueError:
        sizes = [()]
    if not all(sizes) or any(length < 1 for size in sizes for length in size):
        raise ArgumentError(f"--sizes {text!r} is not written like --sizes 512x1024,300x200")
    return tuple(sizes)
