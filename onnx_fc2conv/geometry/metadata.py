"""The geometry in the model: a consumer can map cells to boxes without this package.

It is JSON under one key of the model's ``metadata_props``; ``docs/geometry.md`` describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast, get_args

import onnx_ir as ir

from onnx_fc2conv.errors import InvalidModelError
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.geometry.output import Geometry
from onnx_fc2conv.geometry.verdict import (
    CleanCells,
    ReceptiveField,
    SizeRule,
    TileCells,
    Verdict,
)

__all__ = ["GEOMETRY_KEY", "read_geometry", "write_geometry"]

GEOMETRY_KEY = "fc2conv.geometry"
"""Key in the metadata of a converted model."""

_SCHEMA = 1


def write_geometry(model: ir.Model, geometry: Mapping[str, Geometry]) -> None:
    """Store the geometry of each output in the model's metadata."""
    outputs = {name: meaning.as_dict() for name, meaning in geometry.items()}
    stored = {"schema": _SCHEMA, "outputs": outputs}
    model.metadata_props[GEOMETRY_KEY] = json.dumps(stored, separators=(",", ":"))


def read_geometry(model: ModelSource) -> dict[str, Geometry]:
    """Read the geometry in the model's metadata, by output; empty if it has none.

    Args:
        model: A converted model: a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.

    Raises:
        InvalidModelError: If the model is not valid, or its geometry cannot be read.
    """
    found = model if isinstance(model, ir.Model) else as_model(model)
    text = found.metadata_props.get(GEOMETRY_KEY)
    if text is None:
        return {}
    try:
        stored = json.loads(text)
        schema = stored["schema"]
        if schema != _SCHEMA:
            raise InvalidModelError(
                f"the model's {GEOMETRY_KEY} is of schema {schema}; this version reads {_SCHEMA}"
            )
        return {name: _geometry(values) for name, values in stored["outputs"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidModelError(f"the model's {GEOMETRY_KEY} cannot be read: {what}") from error


def _geometry(values: Mapping[str, Any]) -> Geometry:
    """Invert `Geometry.as_dict`; unknown keys are ignored."""
    verdict, field, clean = values["verdict"], values["receptive_field"], values["clean_cells"]
    tile = values["tile_cells"]
    if verdict not in get_args(Verdict):
        raise ValueError(f"there is no verdict {verdict!r}")
    if values["windows_exact"] is not (verdict == "windows exact"):
        raise ValueError(f"windows_exact contradicts the verdict {verdict!r}")
    found = Geometry(
        input=str(values["input"]),
        window=_ints(values["window"]),
        stride=_ints(values["stride"]),
        offset=_ints(values["offset"]),
        verdict=cast("Verdict", verdict),
        why=str(values["why"]),
        receptive_field=field and ReceptiveField(_ints(field["start"]), _ints(field["size"])),
        cells=_ints(values["cells"]),
        remainder=_ints(values["remainder"]),
        sizes=tuple(
            SizeRule(_ints([rule["modulo"]])[0], _ints(rule["remainders"]))
            for rule in values["sizes"]
        ),
        tile_cells=tile and TileCells(_ints(tile["first"]), _ints(tile["reach"])),
        clean_cells=clean and CleanCells(*_ints([clean["clean"], clean["total"]])),
        padded_layers=tuple(map(str, values["padded_layers"])),
        reduction=values.get("reduction"),
    )
    per_axis = (found.stride, found.offset, found.cells, found.remainder, found.sizes)
    if any(len(each) != len(found.window) for each in per_axis):
        raise ValueError("its lists have different lengths")
    if found.reduction not in (None, "mean", "max"):
        raise ValueError(f"there is no reduction {found.reduction!r}")
    if min(found.window, default=1) < 1 or min(found.stride, default=0) < 0:
        raise ValueError("a window or stride is not positive")
    if any(rule.modulo < 1 for rule in found.sizes):
        raise ValueError("a size is taken modulo 0")
    return found


def _ints(values: object) -> tuple[int, ...]:
    """A list of integers as a tuple.

    Raises:
        ValueError: If it is not one.
    """
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise ValueError(f"{values!r} is not a list of integers")
    return tuple(values)
