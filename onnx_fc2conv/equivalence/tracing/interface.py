"""Inputs and outputs of two models: matched by name, else by position where the types fit."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_fc2conv.equivalence.running.samples import model_inputs
from onnx_fc2conv.errors import ArgumentError

__all__ = ["match_interfaces", "same_interface"]


def match_interfaces(
    reference: ir.Model, converted: ir.Model
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Give the inputs and outputs of ``converted`` the names that they have in ``reference``.

    Returns:
        Notes on values matched by position, and the new names by the old ones.

    Raises:
        ArgumentError: If the models have different inputs.
    """
    fed, fed_too = ({i.name for i in model_inputs(m)} for m in (reference, converted))
    inputs = [v for v in reference.graph.inputs if v.name in fed]
    inputs_too = [v for v in converted.graph.inputs if v.name in fed_too]
    pairs = _by_position(inputs, inputs_too)
    if len(inputs) != len(inputs_too) or not all(_fit(one, two) for one, two in pairs):
        raise ArgumentError(
            f"the models have different inputs: {_listed(inputs)} and {_listed(inputs_too)}"
        )
    outputs = list(reference.graph.outputs)
    outputs_too = list(converted.graph.outputs)
    renamed = _by_position(outputs, outputs_too)
    if len(outputs) == len(outputs_too) and all(one.dtype == two.dtype for one, two in renamed):
        pairs += renamed
    notes = [
        f"{two.name} is taken for {one.name} of the reference, by position" for one, two in pairs
    ]
    moved = {two.name or "": one.name or "" for one, two in pairs}
    _rename(converted.graph, pairs)
    names = {value.name for value in outputs}
    unknown = [value.name or "" for value in outputs_too if value.name not in names]
    if unknown:
        notes.append(f"not compared, the reference has no such output: {', '.join(unknown)}")
    return tuple(notes), moved


def same_interface(reference: ir.Model, converted: ir.Model) -> bool:
    """Whether both models declare the same inputs and outputs, symbolic dims at the same places."""

    def interface(graph: ir.Graph) -> dict[str, list[int | None]]:
        values = (*graph.inputs, *graph.outputs)
        return {
            value.name or "": [dim if isinstance(dim, int) else None for dim in value.shape]
            for value in values
            if value.shape is not None and value.name not in graph.initializers
        }

    return interface(reference.graph) == interface(converted.graph)


def _by_position(
    one: Sequence[ir.Value], two: Sequence[ir.Value]
) -> list[tuple[ir.Value, ir.Value]]:
    """Pair the values that have no namesake, in order."""
    names, names_too = {v.name for v in one}, {v.name for v in two}
    rest = [v for v in one if v.name not in names_too]
    rest_too = [v for v in two if v.name not in names]
    return list(zip(rest, rest_too, strict=False))


def _fit(one: ir.Value, two: ir.Value) -> bool:
    """Whether an input of the reference can be fed to the other."""
    if one.dtype != two.dtype or one.shape is None or two.shape is None:
        return False
    if len(one.shape) != len(two.shape):
        return False
    dims = zip(one.shape, two.shape, strict=True)
    return all(a == b for a, b in dims if isinstance(a, int) and isinstance(b, int))


def _rename(graph: ir.Graph, pairs: Sequence[tuple[ir.Value, ir.Value]]) -> None:
    """Rename the values, after renaming any inner value that has a wanted name."""
    wanted = {one.name for one, _ in pairs}
    values = [v for node in graph for v in node.outputs]
    for value in (*values, *graph.inputs, *graph.initializers.values()):
        if value.name in wanted:
            value.name = f"{value.name}.own"
    for one, two in pairs:
        two.name = one.name


def _listed(values: Sequence[ir.Value]) -> str:
    return ", ".join(value.name or "" for value in values)
